from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest

from index.artifact import open_artifact
from index.build import IndexSettings, build_index, training_part
from index.catalog import Catalog
from index.errors import CatalogError, IndexFormatError
from index.item_index import load_index
from index.leakage import event_hashes
from tests.toy import ITEMS, toy_catalog, toy_histories, toy_index


def test_an_index_comes_back_as_it_was_saved(tmp_path):
    index = toy_index()
    index.save(tmp_path / "toy.index")
    loaded = load_index(tmp_path / "toy.index", verify=True)
    assert loaded.catalog.fingerprint() == index.catalog.fingerprint()
    assert loaded.settings == index.settings
    np.testing.assert_array_equal(loaded.codes, index.codes)
    np.testing.assert_array_equal(loaded.trained_events, index.trained_events)
    np.testing.assert_allclose(loaded.vectors.vectors(), index.vectors.vectors())
    for name, array in index.trie.arrays().items():
        np.testing.assert_array_equal(loaded.trie.arrays()[name], array)
    assert loaded.bm25.search(["river comedy"], 3)[0].rows[0] == 0  # The river comedy


def test_codes_are_unique_and_the_trie_holds_each_items_own():
    index = toy_index()
    assert len(np.unique(index.codes, axis=0)) == ITEMS
    offsets = np.concatenate([[0], np.cumsum(index.level_sizes)[:-1]])
    for row in range(ITEMS):
        rank = int(index.trie.rank_of_item[row])
        assert index.trie.path(rank) == (index.codes[row] + offsets).tolist()


def test_the_same_build_twice_gives_the_same_codes():
    np.testing.assert_array_equal(toy_index().codes, toy_index().codes)


def test_building_looks_at_training_events_only():
    """Whatever the last two events are, the index is the same."""
    histories = toy_histories()
    changed = histories.items.copy()
    for end in histories.offsets[1:]:
        changed[end - 2 : end] = [0, 1]
    other = dataclasses.replace(histories, items=changed)
    settings = IndexSettings(text_encoder="tfidf", codebook_size=8, levels=2)
    one = build_index(toy_catalog(), histories, settings)
    two = build_index(toy_catalog(), other, settings)
    np.testing.assert_array_equal(one.codes, two.codes)
    expected = event_hashes(training_part(histories, "last-two"), one.catalog.item_ids)
    np.testing.assert_array_equal(one.trained_events, expected)
    everything = build_index(toy_catalog(), other, dataclasses.replace(settings, holdout="none"))
    assert len(everything.trained_events) == histories.num_events


def test_an_index_needs_no_histories():
    index = build_index(toy_catalog(), None, IndexSettings(text_encoder="tfidf", codebook_size=8, levels=2))
    assert len(index.trained_events) == 0
    assert len(np.unique(index.codes, axis=0)) == ITEMS


@pytest.mark.parametrize("items", [1, 2, 5])
def test_tiny_catalogs_can_be_indexed(items):
    catalog = Catalog(toy_catalog().frame.head(items))
    index = build_index(catalog, None, IndexSettings(text_encoder="tfidf"))
    assert len(index.trie) == items


def test_an_empty_catalog_is_refused():
    empty = Catalog(pl.DataFrame(schema={"item_id": pl.String, "title": pl.String}))
    with pytest.raises(CatalogError, match="at least one item"):
        build_index(empty)


def test_progress_names_every_stage():
    told = []
    build_index(
        toy_catalog(),
        toy_histories(),
        IndexSettings(text_encoder="tfidf", codebook_size=8),
        lambda stage, done, total: told.append(stage),
    )
    assert list(dict.fromkeys(told)) == ["text vectors", "co-occurrence", "semantic IDs", "trie and BM25"]


def test_a_flipped_bit_in_any_file_of_an_index_is_refused(tmp_path):
    toy_index().save(tmp_path / "toy.index")
    files = [path for path in (tmp_path / "toy.index").rglob("*") if path.is_file()]
    assert len(files) > 15
    for path in files:
        intact = path.read_bytes()
        for position in {0, len(intact) // 2, len(intact) - 1}:
            damaged = bytearray(intact)
            damaged[position] ^= 4
            path.write_bytes(damaged)
            with pytest.raises(IndexFormatError):
                load_index(tmp_path / "toy.index", verify=True)
        path.write_bytes(intact)
    open_artifact(tmp_path / "toy.index", verify=True)
