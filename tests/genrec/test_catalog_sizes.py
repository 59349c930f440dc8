"""Tries of other sizes than the catalog they are made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.bench import catalog_sizes
from genrec.bench.catalog_sizes import trie_of_size, usual_sizes
from genrec.bench.decode import DecodeSettings, measure_decode
from genrec.bench.request_histories import random_items
from genrec.tasks import TaskDefaults
from index.errors import IdentifierError
from index.maintenance import remove_items
from tests.fake_decoder import FakeDecoder
from tests.toy import ITEMS, toy_index

INDEX = toy_index()


def paths(trie) -> list[tuple[int, ...]]:
    return [tuple(trie.path(rank)) for rank in range(len(trie))]


@given(st.integers(1, 2 * ITEMS), st.integers(0, 3))
@settings(deadline=None, max_examples=40)
def test_a_trie_has_as_many_items_as_asked_for_and_knows_which_are_real(items, seed):
    sized = trie_of_size(INDEX, items, np.random.default_rng(seed))
    assert len(sized.trie) == items
    own = paths(sized.trie)
    assert len(set(own)) == items
    codes = [set(level) for level in INDEX.level_tokens.T.tolist()]
    assert all(token in codes[level] for path in own for level, token in enumerate(path))
    for row, item in enumerate(sized.item_of_row.tolist()):
        if item >= 0:
            assert own[sized.trie.rank_of_item[item]] == tuple(INDEX.level_tokens[row].tolist())
            assert sized.row_of_item[item] == row
    real = set(map(tuple, INDEX.level_tokens.tolist()))
    assert sum(path in real for path in own) == min(items, ITEMS) == (sized.item_of_row >= 0).sum()


def test_usual_sizes_are_those_the_codes_reach(monkeypatch):
    reach = int(np.prod([len(set(level)) for level in INDEX.level_tokens.T.tolist()]))
    monkeypatch.setattr(catalog_sizes, "USUAL_SIZES", (2, reach // 2, reach // 2 + 1, 10 * reach))
    sizes = usual_sizes(INDEX)
    assert sizes[:2] == (2, reach // 2)
    assert 10 * reach not in sizes
    for size in sizes:
        assert len(trie_of_size(INDEX, size, np.random.default_rng(0)).trie) == size


def test_ranks_are_those_of_the_rows_that_are_there():
    sized = trie_of_size(INDEX, 7, np.random.default_rng(0))
    there = np.flatnonzero(sized.item_of_row >= 0)
    ranks = sized.ranks(np.arange(ITEMS))
    assert [sized.trie.path(int(rank)) for rank in ranks] == INDEX.level_tokens[there].tolist()


def test_the_own_size_is_the_catalog_and_removed_items_are_in_none():
    sized = trie_of_size(INDEX, ITEMS, np.random.default_rng(0))
    assert sized.source == "the catalog"
    assert paths(sized.trie) == paths(INDEX.trie)
    fewer = remove_items(toy_index(), ["i0", "i1"])
    for items in (5, ITEMS - 2, ITEMS + 3):
        sized = trie_of_size(fewer, items, np.random.default_rng(0))
        assert (sized.item_of_row[:2] == -1).all()
        assert not set(sized.row_of_item.tolist()) & {0, 1}


@pytest.mark.parametrize(
    ("items", "says"), [(0, "at least one item"), (10_000, "codes enough for 10,000 items")]
)
def test_sizes_that_cannot_be_are_refused(items, says):
    with pytest.raises(IdentifierError, match=says):
        trie_of_size(INDEX, items, np.random.default_rng(0))


def test_a_sweep_over_sizes_walks_them_and_says_where_they_come_from():
    settings_ = DecodeSettings(
        beams=(4,), lengths=(3, 6), kept=(), exact=False, k=4, sizes=(10, 80), grid=True
    )
    histories = random_items(ITEMS, 3, np.random.default_rng(0))
    decoder = FakeDecoder(sum(INDEX.level_sizes))
    report = measure_decode(INDEX, decoder, TaskDefaults(beam=6), histories, settings_)
    rows = {one.scenario.name: one.as_json() for one in report.results}
    assert (rows["10 items"]["items"], rows["beam 4"]["items"]) == (10, None)
    assert "random part" in rows["10 items"]["items_from"]
    assert "40 invented" in rows["80 items"]["items_from"]
    grid = [name for name in rows if name.count(",") == 2]
    assert len(grid) == 2 * 2 * 2  # beams 4 and 6, two lengths, two sizes
    assert rows["beam 4, history 3, 80 items"]["history_items"] == 3
    assert all(len(one["samples"]["cpu_ms"]) == 3 for one in rows.values())
    # Of ten items at most a history's are left out; four are always there to be found or all that remain.
    assert rows["80 items"]["items_found"] == 4
