"""BM25: the analyser by eye, scores against the textbook, and every way bm25s itself would go wrong."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.bm25.analyzer import analyze
from index.bm25.base import Bm25, Hits
from index.bm25.bm25s_index import Bm25sIndex
from index.errors import IndexFormatError, RequestError

FILMS = ["Alien", "Aliens", "The Alien Queen", "", "Amélie", "It", "Queen of Katwe"]


def build(texts: Sequence[str]) -> Bm25:
    """The default engine, seen through the contract."""
    return Bm25sIndex.build(texts)


def search(texts: Sequence[str], query: str, k: int = 10) -> list[int]:
    return build(texts).search([query], k)[0].rows.tolist()


# --- the analyser ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Running shoes, for RUNNERS", ["run", "shoe", "runner"]),
        ("Women's Vitamin-C 0.5oz", ["women", "vitamin", "c", "0", "5oz"]),
        ("Women\u2019s", ["women"]),  # the typographic apostrophe
        ("L'Oréal Café", ["l", "oreal", "cafe"]),
        ("Cafe\u0301", ["cafe"]),  # the accent as a character of its own must not split the word
        ("snake_case", ["snake", "case"]),
        ("Ёлка GROSSE große", ["елка", "gross", "gross"]),
        ("東京 物語", ["東京", "物語"]),
        ("OPI™", ["opitm"]),  # compatibility forms bring capitals of their own: folded before lower-casing
        ("The The", ["the", "the"]),
        ("It", ["it"]),
        ("It follows", ["follow"]),
        ("", []),
        (" -- !?", []),
    ],
)
def test_analyzer_by_eye(text: str, terms: list[str]) -> None:
    assert analyze([text]) == [terms]


@settings(deadline=None)
@given(st.lists(st.text(max_size=20), max_size=5))
def test_a_text_gives_the_same_terms_alone_and_in_company(texts: list[str]) -> None:
    assert analyze(texts) == [analyze([text])[0] for text in texts]


# --- scores ---------------------------------------------------------------------------------------------


def textbook(texts: Sequence[str], query: str, k1: float, b: float) -> list[float]:
    """Lucene's BM25 in Python floats, one score per text (Kamphuis et al., ECIR 2020, table 1)."""
    documents = analyze(texts)
    worded = [terms for terms in documents if terms]
    mean = sum(map(len, worded)) / max(len(worded), 1)
    scores = []
    for terms in documents:
        score = 0.0
        for term in analyze([query])[0]:
            frequency = Counter(terms)[term]
            df = sum(term in other for other in worded)
            idf = math.log(1 + (len(worded) - df + 0.5) / (df + 0.5))
            if frequency:
                score += idf * frequency / (frequency + k1 * (1 - b + b * len(terms) / mean))
        scores.append(score)
    return scores


words = st.sampled_from(["red", "reds", "blue", "the", "green", "gold", "1"])
texts = st.lists(words, max_size=6).map(" ".join)


@settings(deadline=None)
@given(
    corpus=st.lists(texts, max_size=12),
    queries=st.lists(texts, max_size=4),
    k=st.integers(1, 15),
    k1=st.sampled_from([0.0, 0.9, 1.2]),
    b=st.sampled_from([0.0, 0.4, 1.0]),
    data=st.data(),
)
def test_search_equals_the_textbook(
    corpus: list[str], queries: list[str], k: int, k1: float, b: float, data: st.DataObject
) -> None:
    rows = st.lists(st.integers(0, len(corpus) - 1), max_size=4) if corpus else st.just([])
    excluded = [data.draw(rows) for _ in queries]
    found = Bm25sIndex.build(corpus, k1=k1, b=b).search(
        queries, k, exclude=[np.array(rows, dtype=np.int64) for rows in excluded]
    )
    assert len(found) == len(queries)
    for query, hits, unwanted in zip(queries, found, excluded, strict=True):
        expected = textbook(corpus, query, k1, b)
        allowed = {row: score for row, score in enumerate(expected) if score > 0 and row not in unwanted}
        assert set(hits.rows.tolist()) <= set(allowed)
        np.testing.assert_allclose(hits.scores, [allowed[row] for row in hits.rows.tolist()], rtol=1e-5)
        # The right number of the best scores, and the order the contract promises for the scores given.
        np.testing.assert_allclose(hits.scores, sorted(allowed.values(), reverse=True)[:k], rtol=1e-5)
        assert [*zip(-hits.scores, hits.rows, strict=True)] == sorted(
            zip(-hits.scores, hits.rows, strict=True)
        )


def test_items_without_words_change_no_score() -> None:
    """bm25s counts them as documents and into the mean length; Lucene does not. Rows keep their numbers."""
    [plain] = build(["red shoe", "blue shoe"]).search(["red shoe"], 5)
    [padded] = build(["", "red shoe", "?!", "blue shoe", ""]).search(["red shoe"], 5)
    assert plain.rows.tolist() == [0, 1]
    assert padded.rows.tolist() == [1, 3]
    np.testing.assert_array_equal(plain.scores, padded.scores)


def test_search_by_eye() -> None:
    assert search(FILMS, "aliens") == [0, 1, 2]  # stemmed alike; the shorter first, then by row
    assert search(FILMS, "amelie") == [4]
    assert search(FILMS, "it") == [5]  # a stop word that is the whole title
    assert search(FILMS, "the queen") == [2, 6]


# --- what bm25s leaves open -----------------------------------------------------------------------------


def test_no_match_and_empty_queries_find_nothing() -> None:
    """bm25s returns arbitrary documents with score 0 for them, others per backend, or raises."""
    for hits in build(FILMS).search(["zeppelin", "", "...", "the of"], 3):
        assert hits.rows.tolist() == []
        assert hits.scores.tolist() == []
        assert (hits.rows.dtype, hits.scores.dtype) == (np.int32, np.float32)


def test_no_queries() -> None:
    assert build(FILMS).search([], 3) == []


def test_fewer_matches_than_k_are_not_filled_up() -> None:
    assert search(FILMS, "katwe", k=5) == [6]


def test_k_may_exceed_the_catalog() -> None:
    assert search(FILMS, "alien", k=1000) == [0, 1, 2]


def test_ties_stand_in_row_order_wherever_k_cuts() -> None:
    same = ["red shoe", "blue hat"] * 50
    tied = list(range(0, 100, 2))
    for k in (1, 7, 49, 50, 60):
        assert search(same, "red", k=k) == tied[:k]


def test_excluded_rows_make_room_for_the_next() -> None:
    index = build(["red"] * 6)
    found = index.search(["red", "red"], 3, exclude=[np.array([0, 2]), np.array([], dtype=np.int64)])
    assert [hits.rows.tolist() for hits in found] == [[1, 3, 4], [0, 1, 2]]
    assert index.search(["red"], 3)[0].rows.tolist() == [0, 1, 2], "an exclusion outlived its query"


@pytest.mark.parametrize("corpus", [[], ["", "?"]])
def test_a_catalog_without_words_finds_nothing(corpus: list[str]) -> None:
    index = build(corpus)
    assert len(index) == len(corpus)
    assert index.search(["red"], 3)[0].rows.tolist() == []


def test_a_word_said_twice_weighs_twice() -> None:
    index = build(["red shoe", "blue hat"])
    [once], [twice] = index.search(["red"], 1), index.search(["red red"], 1)
    assert twice.scores[0] == pytest.approx(2 * once.scores[0])


def test_batch_equals_single() -> None:
    index, queries = build(FILMS), ["alien", "", "queen", "it"]
    for query, together in zip(queries, index.search(queries, 2), strict=True):
        [alone] = index.search([query], 2)
        np.testing.assert_array_equal(alone.rows, together.rows)
        np.testing.assert_array_equal(alone.scores, together.scores)


@pytest.mark.parametrize(
    ("k", "exclude", "message"),
    [
        (0, None, "expected k >= 1, got 0"),
        (1, [], "one list of excluded rows per query, got 0 for 1"),
        (1, [np.array([7])], r"excluded rows in \[0, 7\), got 7..7"),
        (1, [np.array([-1, 2])], r"excluded rows in \[0, 7\), got -1..2"),
    ],
)
def test_bad_searches_are_refused(k: int, exclude: list[np.ndarray] | None, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        build(FILMS).search(["alien"], k, exclude=exclude)


@pytest.mark.parametrize(
    ("k1", "b"), [(-0.1, 0.5), (1.2, -0.1), (1.2, 1.1), (math.nan, 0.5), (1.2, math.nan)]
)
def test_bad_settings_are_refused(k1: float, b: float) -> None:
    with pytest.raises(RequestError, match="expected k1 >= 0 and b in"):
        Bm25sIndex.build(FILMS, k1=k1, b=b)


# --- on disk --------------------------------------------------------------------------------------------


def same(left: Hits, right: Hits) -> bool:
    return np.array_equal(left.rows, right.rows) and np.array_equal(left.scores, right.scores)


@pytest.mark.parametrize("corpus", [FILMS, [], ["", "?"]])
def test_a_saved_index_searches_alike(tmp_path: Path, corpus: list[str]) -> None:
    built = Bm25sIndex.build(corpus, k1=0.9, b=0.4)
    built.save(tmp_path / "bm25")
    loaded = Bm25sIndex.load(tmp_path / "bm25")
    assert len(loaded) == len(corpus)
    queries = ["alien queen", "it", "", "zeppelin"]
    assert all(map(same, built.search(queries, 3), loaded.search(queries, 3)))


def test_what_is_saved_is_plain_and_the_same_every_time(tmp_path: Path) -> None:
    """bm25s numbers terms by iterating a set of strings, so its files would differ from process to process."""
    Bm25sIndex.build(FILMS).save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy", ".json"}
    for path in tmp_path.glob("*.npy"):
        np.load(path, allow_pickle=False)
    vocabulary = json.loads((tmp_path / "vocab.index.json").read_text(encoding="utf-8"))
    assert list(vocabulary.items()) == [(term, i) for i, term in enumerate(sorted(vocabulary))]


def test_arrays_are_mapped_not_read(tmp_path: Path) -> None:
    Bm25sIndex.build(FILMS).save(tmp_path)
    arrays = Bm25sIndex.load(tmp_path)._engine.scores
    assert all(isinstance(arrays[name].base, np.memmap) for name in ("data", "indices", "indptr"))


FILES = [
    "analyzer.json",
    "data.csc.index.npy",
    "indices.csc.index.npy",
    "indptr.csc.index.npy",
    "params.index.json",
    "vocab.index.json",
]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_reported(tmp_path: Path, name: str) -> None:
    Bm25sIndex.build(FILMS).save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(IndexFormatError, match=rf"{name}.*build the index again"):
        Bm25sIndex.load(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_reported(tmp_path: Path, name: str) -> None:
    Bm25sIndex.build(FILMS).save(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-4])
    with pytest.raises(IndexFormatError, match="build the index again"):
        Bm25sIndex.load(tmp_path)


def test_files_of_different_indexes_are_refused(tmp_path: Path) -> None:
    Bm25sIndex.build(FILMS).save(tmp_path / "films")
    Bm25sIndex.build(["red shoe"]).save(tmp_path / "shoes")
    (tmp_path / "shoes" / "vocab.index.json").replace(tmp_path / "films" / "vocab.index.json")
    with pytest.raises(IndexFormatError, match="files of different indexes"):
        Bm25sIndex.load(tmp_path / "films")


def test_an_index_of_another_analyzer_is_refused(tmp_path: Path) -> None:
    Bm25sIndex.build(FILMS).save(tmp_path)
    (tmp_path / "analyzer.json").write_text('{"analyzer": "klingon-1"}', encoding="utf-8")
    with pytest.raises(IndexFormatError, match="got 'klingon-1'; build the index again"):
        Bm25sIndex.load(tmp_path)
