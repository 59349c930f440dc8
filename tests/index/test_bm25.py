"""BM25: the analyser by eye, and the default engine on disk. What engines share: test_bm25_contract.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.bm25.analyzer import analyze
from index.bm25.base import Bm25Settings, Hits
from index.bm25.bm25s_index import Bm25sIndex
from index.bm25.documents import catalog_texts
from index.build import IndexSettings, build_index
from index.catalog import Catalog
from index.errors import CatalogError, IndexFormatError, RequestError
from index.item_index import load_index
from index.maintenance import add_items, compact, remove_items

FILMS = ["Alien", "Aliens", "The Alien Queen", "", "Amélie", "It", "Queen of Katwe"]


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
    "frequencies.npy",
    "idf.npy",
    "indices.csc.index.npy",
    "indptr.csc.index.npy",
    "lengths.npy",
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


def test_weights_are_kept(tmp_path: Path) -> None:
    fields = {"title": ["red shoe", "blue hat"], "description": ["for feet", "red too"]}
    built = Bm25sIndex.build(fields, k1=0.9, weights={"title": 2, "description": 1})
    built.save(tmp_path)
    loaded = Bm25sIndex.load(tmp_path)
    assert loaded.settings == built.settings == built.without(np.array([0])).settings
    assert all(map(same, built.search(["red hat"], 3), loaded.search(["red hat"], 3)))


def test_an_index_from_before_there_were_weights_is_read(tmp_path: Path) -> None:
    Bm25sIndex.build(FILMS).save(tmp_path)
    (tmp_path / "analyzer.json").write_text('{"analyzer": "english-1"}', encoding="utf-8")
    assert Bm25sIndex.load(tmp_path).settings.weights is None


@pytest.mark.parametrize("weights", ['{"title": 0}', '{"title": "much"}', "[1, 2]"])
def test_broken_weights_are_refused(tmp_path: Path, weights: str) -> None:
    Bm25sIndex.build(FILMS).save(tmp_path)
    (tmp_path / "analyzer.json").write_text(
        f'{{"analyzer": "english-1", "weights": {weights}}}', encoding="utf-8"
    )
    with pytest.raises(IndexFormatError, match="expected the settings of a BM25 index"):
        Bm25sIndex.load(tmp_path)


@pytest.mark.parametrize("corpus", [FILMS, [], ["", "?"]])
@pytest.mark.parametrize(("k1", "b"), [(0.0, 0.0), (0.9, 0.4), (2.0, 1.0)])
def test_other_settings_score_as_an_index_built_with_them(
    tmp_path: Path, corpus: list[str], k1: float, b: float
) -> None:
    built = Bm25sIndex.build(corpus)
    built.save(tmp_path)
    queries = ["alien queen", "queen queen of", "it", "", "zeppelin"]
    wanted = Bm25sIndex.build(corpus, k1=k1, b=b)
    for index in (built, Bm25sIndex.load(tmp_path)):
        again = index.rescored(k1, b)
        assert again.settings == wanted.settings
        assert all(map(same, wanted.search(queries, 9), again.search(queries, 9)))
        assert all(map(same, built.search(queries, 9), again.rescored(1.2, 0.75).search(queries, 9)))
    with pytest.raises(RequestError, match="got k1=-1"):
        built.rescored(-1, 0)


def test_other_settings_keep_the_statistics_of_the_build_when_items_are_gone(tmp_path: Path) -> None:
    """A removed item must not change what others score, whichever comes first."""
    gone = np.array([1, 6])
    built = Bm25sIndex.build(FILMS)
    built.without(gone).save(tmp_path)
    wanted = built.rescored(0.5, 0.3).without(gone).search(["alien queen"], 9)[0]
    assert wanted.rows.tolist() == [2, 0]
    assert same(wanted, built.without(gone).rescored(0.5, 0.3).search(["alien queen"], 9)[0])
    assert same(wanted, Bm25sIndex.load(tmp_path).rescored(0.5, 0.3).search(["alien queen"], 9)[0])


def test_an_index_of_an_earlier_version_is_scored_anew_from_its_texts(tmp_path: Path) -> None:
    frame = pl.DataFrame({"item_id": ["1", "2", "3"], "title": ["Red shoe", "Red hat red", "Blue hat"]})
    built = build_index(Catalog(frame), None, IndexSettings(text_encoder="tfidf", levels=2, codebook_size=2))
    built.bm25.save(tmp_path)
    for name in ("frequencies.npy", "idf.npy", "lengths.npy"):
        (tmp_path / name).unlink()
    (tmp_path / "analyzer.json").write_text('{"analyzer": "english-1"}', encoding="utf-8")
    old = replace(built, bm25=Bm25sIndex.load(tmp_path))
    with pytest.raises(IndexFormatError, match="earlier version; build the index again"):
        old.bm25.rescored(0.4, 0.2)
    assert old.bm25_scored_by() is old.bm25
    assert old.bm25_scored_by(k1=1.2) is old.bm25
    wanted = built.bm25_scored_by(k1=0.4, b=0.2)
    assert wanted.settings == Bm25Settings(k1=0.4, b=0.2)
    assert same(wanted.search(["red hat"], 3)[0], old.bm25_scored_by(0.4, 0.2).search(["red hat"], 3)[0])
    assert not same(wanted.search(["red hat"], 3)[0], built.bm25.search(["red hat"], 3)[0])


def test_explanations_survive_removals_and_disk(tmp_path: Path) -> None:
    built = Bm25sIndex.build(FILMS).without(np.array([0]))
    built.save(tmp_path)
    assert Bm25sIndex.load(tmp_path).explain("alien", 1) == built.explain("alien", 1) != []
    assert built.explain("alien", 0) == []


def test_an_index_keeps_its_bm25_settings_through_every_change(tmp_path: Path) -> None:
    """Adding items and compacting build BM25 anew: by the weights of the index, not by the defaults."""
    frame = pl.DataFrame(
        {
            "item_id": [f"i{row}" for row in range(7)],
            "title": ["Red shoe", "Blue hat", "Green hat", "", "Red tie", "Old coat", "New coat"],
            "categories": [["shoes"], ["red", "hats"], ["hats"], None, [], ["coats"], ["coats"]],
            "description": ["for feet", None, "a red hat", "", "silk", "for winter", "red and warm"],
        }
    )
    weights = {"title": 3, "categories": 2, "description": 1}
    settings = IndexSettings(
        text_encoder="tfidf", levels=2, codebook_size=3, bm25_k1=0.9, bm25_b=0.4, bm25_weights=weights
    )
    build_index(Catalog(frame.head(6)), None, settings).save(tmp_path / "index")
    index = load_index(tmp_path / "index")
    assert index.settings["bm25_weights"] == weights
    assert set(index.bm25.search(["red"], 6)[0].rows.tolist()) == {0, 1, 2, 4}
    more = add_items(index, Catalog(frame.tail(1)))
    less = remove_items(more, ["i0"])
    fresh = compact(less)
    for changed in (index, more, less, fresh):
        assert changed.bm25.settings == Bm25Settings(k1=0.9, b=0.4, weights=weights)
    assert set(more.bm25.search(["red"], 9)[0].rows.tolist()) == {0, 4, 1, 2, 6}
    texts = catalog_texts(Catalog(frame), weights, removed=np.array([0]))
    by_hand = Bm25sIndex.build(texts, k1=0.9, b=0.4, weights=weights)
    readded = add_items(remove_items(index, ["i0"]), Catalog(frame.tail(1)))
    assert same(by_hand.search(["red hat"], 9)[0], readded.bm25.search(["red hat"], 9)[0])


def test_weights_of_fields_that_the_catalog_has_not_are_refused() -> None:
    catalog = Catalog(pl.DataFrame({"item_id": ["1"], "title": ["Alien"], "genre": ["horror"]}))
    with pytest.raises(CatalogError, match=r"among \['title', 'genre'\], got \['genres'\]"):
        build_index(
            catalog, None, IndexSettings(text_encoder="tfidf", bm25_weights={"title": 2, "genres": 1})
        )
    assert catalog_texts(catalog, {"genre": 1}) == {"genre": ["horror"]}
