"""The contract of a BM25 engine, for all three: scores against the textbook, and what engines leave open."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.bm25.analyzer import analyze
from index.bm25.lucene_scores import stored_lengths
from index.errors import RequestError
from tests.index.bm25_engines import BUILD, every_engine

FILMS = ["Alien", "Aliens", "The Alien Queen", "", "Amélie", "It", "Queen of Katwe"]


def search(engine: str, texts: Sequence[str], query: str, k: int = 10) -> list[int]:
    return BUILD[engine](texts).search([query], k)[0].rows.tolist()


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


@every_engine
@settings(deadline=None, max_examples=60)
@given(
    corpus=st.lists(texts, max_size=12),
    queries=st.lists(texts, max_size=4),
    k=st.integers(1, 15),
    k1=st.sampled_from([0.0, 0.9, 1.2]),
    b=st.sampled_from([0.0, 0.4, 1.0]),
    data=st.data(),
)
def test_search_equals_the_textbook(
    engine: str, corpus: list[str], queries: list[str], k: int, k1: float, b: float, data: st.DataObject
) -> None:
    rows = st.lists(st.integers(0, len(corpus) - 1), max_size=4) if corpus else st.just([])
    masks = st.none() | st.lists(st.booleans(), min_size=len(corpus), max_size=len(corpus)).map(
        lambda kept: np.array(kept, dtype=np.bool_)
    )
    excluded = [np.array(data.draw(rows), dtype=np.int64) for _ in queries]
    allowed = [data.draw(masks) for _ in queries]
    index = BUILD[engine](corpus, k1=k1, b=b)
    found = index.search(queries, k, exclude=excluded, allowed=allowed)
    assert len(found) == len(queries)
    for query, hits, unwanted, mask in zip(queries, found, excluded, allowed, strict=True):
        expected = {
            row: score
            for row, score in enumerate(textbook(corpus, query, k1, b))
            if score > 0 and row not in unwanted and (mask is None or mask[row])
        }
        assert set(hits.rows.tolist()) <= set(expected)
        np.testing.assert_allclose(hits.scores, [expected[row] for row in hits.rows.tolist()], rtol=1e-5)
        # The right number of the best scores, and the order the contract promises for the scores given.
        np.testing.assert_allclose(hits.scores, sorted(expected.values(), reverse=True)[:k], rtol=1e-5)
        assert [*zip(-hits.scores, hits.rows, strict=True)] == sorted(
            zip(-hits.scores, hits.rows, strict=True)
        )
        for row, score in zip(hits.rows.tolist(), hits.scores.tolist(), strict=True):
            parts = index.explain(query, row)
            assert sum(part.score for part in parts) == pytest.approx(score, rel=1e-5)
            assert {part.term for part in parts} == set(analyze([query])[0]) & set(analyze([corpus[row]])[0])


@every_engine
def test_items_without_words_change_no_score(engine: str) -> None:
    """bm25s counts them as documents and into the mean length; Lucene does not. Rows keep their numbers."""
    [plain] = BUILD[engine](["red shoe", "blue shoe"]).search(["red shoe"], 5)
    [padded] = BUILD[engine](["", "red shoe", "?!", "blue shoe", ""]).search(["red shoe"], 5)
    assert plain.rows.tolist() == [0, 1]
    assert padded.rows.tolist() == [1, 3]
    np.testing.assert_array_equal(plain.scores, padded.scores)


@every_engine
def test_search_by_eye(engine: str) -> None:
    assert search(engine, FILMS, "aliens") == [0, 1, 2]  # stemmed alike; the shorter first, then by row
    assert search(engine, FILMS, "amelie") == [4]
    assert search(engine, FILMS, "it") == [5]  # a stop word that is the whole title
    assert search(engine, FILMS, "the queen") == [2, 6]


# --- what engines leave open -----------------------------------------------------------------------------


@every_engine
def test_no_match_and_empty_queries_find_nothing(engine: str) -> None:
    """bm25s returns arbitrary documents with score 0 for them, others per backend, or raises."""
    for hits in BUILD[engine](FILMS).search(["zeppelin", "", "...", "the of"], 3):
        assert hits.rows.tolist() == []
        assert hits.scores.tolist() == []
        assert (hits.rows.dtype, hits.scores.dtype) == (np.int32, np.float32)


@every_engine
def test_no_queries(engine: str) -> None:
    assert BUILD[engine](FILMS).search([], 3) == []


@every_engine
def test_fewer_matches_than_k_are_not_filled_up(engine: str) -> None:
    assert search(engine, FILMS, "katwe", k=5) == [6]


@every_engine
def test_k_may_exceed_the_catalog(engine: str) -> None:
    assert search(engine, FILMS, "alien", k=1000) == [0, 1, 2]


@every_engine
def test_ties_stand_in_row_order_wherever_k_cuts(engine: str) -> None:
    same = ["red shoe", "blue hat"] * 50
    tied = list(range(0, 100, 2))
    for k in (1, 7, 49, 50, 60):
        assert search(engine, same, "red", k=k) == tied[:k]


@every_engine
def test_excluded_rows_make_room_for_the_next(engine: str) -> None:
    index = BUILD[engine](["red"] * 6)
    found = index.search(["red", "red"], 3, exclude=[np.array([0, 2]), np.array([], dtype=np.int64)])
    assert [hits.rows.tolist() for hits in found] == [[1, 3, 4], [0, 1, 2]]
    assert index.search(["red"], 3)[0].rows.tolist() == [0, 1, 2], "an exclusion outlived its query"


@every_engine
@pytest.mark.parametrize("corpus", [[], ["", "?"]])
def test_a_catalog_without_words_finds_nothing(engine: str, corpus: list[str]) -> None:
    index = BUILD[engine](corpus)
    assert len(index) == len(corpus)
    assert index.search(["red"], 3)[0].rows.tolist() == []


@every_engine
def test_a_word_said_twice_weighs_twice(engine: str) -> None:
    index = BUILD[engine](["red shoe", "blue hat"])
    [once], [twice] = index.search(["red"], 1), index.search(["red red"], 1)
    assert twice.scores[0] == pytest.approx(2 * once.scores[0])


@every_engine
def test_batch_equals_single(engine: str) -> None:
    index, queries = BUILD[engine](FILMS), ["alien", "", "queen", "it"]
    for query, together in zip(queries, index.search(queries, 2), strict=True):
        [alone] = index.search([query], 2)
        np.testing.assert_array_equal(alone.rows, together.rows)
        np.testing.assert_array_equal(alone.scores, together.scores)


# --- filters --------------------------------------------------------------------------------------------


@every_engine
def test_a_filter_leaves_exactly_as_many_hits_as_match_it(engine: str) -> None:
    """A filter after the search would find none of these: the ten best are not allowed."""
    index = BUILD[engine](["red"] * 50 + ["red and some blue"] * 10 + ["blue"])
    late = np.arange(61) >= 50
    first, second = index.search(["red", "red"], 7, allowed=[late, None])
    assert first.rows.tolist() == [50, 51, 52, 53, 54, 55, 56]
    assert second.rows.tolist() == [0, 1, 2, 3, 4, 5, 6]
    [rest] = index.search(["red"], 100, exclude=[np.array([0, 51, 51, 60])], allowed=[late])
    assert rest.rows.tolist() == [50, 52, 53, 54, 55, 56, 57, 58, 59]


@every_engine
def test_a_filter_that_allows_nothing_finds_nothing(engine: str) -> None:
    [hits] = BUILD[engine](FILMS).search(["alien"], 3, allowed=[np.zeros(7, dtype=np.bool_)])
    assert hits.rows.tolist() == []


@every_engine
def test_filters_change_no_score(engine: str) -> None:
    """Document frequencies are the catalog's, not those of the allowed part."""
    index = BUILD[engine](FILMS)
    [free] = index.search(["queen"], 9)
    [filtered] = index.search(["queen"], 9, allowed=[np.arange(7) == 6])
    assert filtered.scores.tolist() == free.scores[free.rows == 6].tolist()


@every_engine
@pytest.mark.parametrize(
    ("k", "exclude", "allowed", "message"),
    [
        (0, None, None, "expected k >= 1, got 0"),
        (1, [], None, "one list of excluded rows per query, got 0 for 1"),
        (1, [np.array([7])], None, r"excluded rows in \[0, 7\), got 7..7"),
        (1, [np.array([-1, 2])], None, r"excluded rows in \[0, 7\), got -1..2"),
        (1, None, [], r"one mask \(or None\) per query, got 0 for 1"),
        (1, None, [np.ones(6, dtype=np.bool_)], r"expected a mask bool\[7\], got bool\[6\]"),
        (1, None, [np.arange(7)], r"expected a mask bool\[7\], got int64\[7\]"),
    ],
)
def test_bad_searches_are_refused(
    engine: str,
    k: int,
    exclude: list[np.ndarray] | None,
    allowed: list[np.ndarray | None] | None,
    message: str,
) -> None:
    with pytest.raises(RequestError, match=message):
        BUILD[engine](FILMS).search(["alien"], k, exclude=exclude, allowed=allowed)


# --- explanations ---------------------------------------------------------------------------------------


@every_engine
def test_an_explanation_names_the_terms_that_match(engine: str) -> None:
    index = BUILD[engine](FILMS)
    parts = index.explain("aliens QUEEN queens zeppelin", 2)
    assert [part.term for part in parts] == ["queen", "alien"]  # said twice; and rarer
    [hits] = index.search(["aliens QUEEN queens zeppelin"], 1)
    assert sum(part.score for part in parts) == pytest.approx(float(hits.scores[0]), rel=1e-6)
    assert index.explain("queen", 0) == index.explain("queen", 3) == index.explain("", 0) == []
    for row in (-1, 7):
        with pytest.raises(RequestError, match=rf"expected a row in \[0, 7\), got {row}"):
            index.explain("queen", row)


# --- settings -------------------------------------------------------------------------------------------

WEIGHTS = {"title": 3, "categories": 2, "description": 1}
FIELDS = {
    "title": ["Red shoe", "Blue hat", "Green hat", ""],
    "categories": ["shoes", "red things", "hats", ""],
    "description": ["for feet", "for heads", "better than a red hat", ""],
}


@every_engine
def test_a_field_of_weight_three_counts_as_three_times_its_words(engine: str) -> None:
    index = BUILD[engine](FIELDS, weights=WEIGHTS)
    assert index.settings.weights == WEIGHTS
    assert len(index) == 4
    said = [
        " ".join([title] * 3 + [categories] * 2 + [description])
        for title, categories, description in zip(*FIELDS.values(), strict=True)
    ]
    queries = ["red", "hat", "red hat", "feet"]
    for one, other in zip(index.search(queries, 4), BUILD[engine](said).search(queries, 4), strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.scores, other.scores)
    assert index.search(["red"], 4)[0].rows.tolist() == [
        0,
        1,
        2,
    ]  # title before categories before description


@every_engine
def test_other_weights_give_another_order(engine: str) -> None:
    heavy = BUILD[engine](FIELDS, weights={**WEIGHTS, "description": 9})
    assert heavy.search(["red"], 4)[0].rows.tolist() == [2, 0, 1]


@every_engine
def test_a_title_of_stop_words_is_found_whatever_the_description_says(engine: str) -> None:
    fields = {"title": ["It", "Alien"], "description": ["A clown returns", "A ship answers it"]}
    index = BUILD[engine](fields, weights={"title": 1, "description": 1})
    assert index.search(["it"], 2)[0].rows.tolist() == [0]


@every_engine
def test_bad_settings_are_refused(engine: str) -> None:
    build = BUILD[engine]
    for k1, b in [(-0.1, 0.5), (1.2, -0.1), (1.2, 1.1), (math.nan, 0.5), (1.2, math.nan)]:
        with pytest.raises(RequestError, match="expected k1 >= 0 and b in"):
            build(FILMS, k1=k1, b=b)
    for weight in (0, -1, 0.5, True):
        with pytest.raises(RequestError, match=rf"a whole weight >= 1 for field 'title', got {weight}"):
            build(FIELDS, weights={**WEIGHTS, "title": weight})
    with pytest.raises(RequestError, match="texts by field for the weights"):
        build(FILMS, weights=WEIGHTS)
    with pytest.raises(RequestError, match=r"got weights of \[\]"):
        build(FIELDS)
    with pytest.raises(RequestError, match=r"got weights of \['title'\]"):
        build(FIELDS, weights={"title": 1})
    with pytest.raises(RequestError, match="expected fields of one length"):
        build({**FIELDS, "title": ["Red shoe"]}, weights=WEIGHTS)


@every_engine
def test_k1_and_b_are_kept_and_change_scores(engine: str) -> None:
    plain, other = BUILD[engine](FILMS), BUILD[engine](FILMS, k1=0.4, b=0.1)
    assert (plain.settings.k1, plain.settings.b) == (1.2, 0.75)
    assert (other.settings.k1, other.settings.b) == pytest.approx((0.4, 0.1))
    assert plain.search(["alien"], 1)[0].scores[0] != other.search(["alien"], 1)[0].scores[0]


# --- words that engines trip over -----------------------------------------------------------------------


@every_engine
def test_long_words_and_rare_characters_find_themselves_only(engine: str) -> None:
    """Lucene cuts a word at 255 characters; characters beyond U+FFFF reach Java as null characters."""
    corpus = ["x" * 300 + "y", "x" * 300 + "z", "\U00020000", "\U00020001", "\U00010330", "x" * 40_000]
    for row, word in enumerate(corpus):
        assert search(engine, corpus, word) == [row]


@every_engine
def test_a_query_may_have_thousands_of_words(engine: str) -> None:
    """Lucene allows 1,024 clauses where it is not told otherwise."""
    corpus = [f"word{i}" for i in range(1500)]
    assert search(engine, corpus, " ".join(corpus), k=3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("length", "stored"),
    [(0, 0), (1, 1), (24, 24), (39, 39), (40, 40), (41, 40), (42, 42), (63, 60), (116, 112)],
)
def test_stored_lengths_by_eye(length: int, stored: int) -> None:
    assert stored_lengths(np.array([length])).tolist() == [stored]
