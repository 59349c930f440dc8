from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from genrec.cap_rules import CapRules
from index.catalog import Catalog
from index.errors import RequestError
from index.trie import build_trie

CATALOG = Catalog(
    pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "title": ["Same", "Same", "Other", ""],
            "genres": [["x", "y"], ["y", "y"], None, []],
            "year": [2001, None, 1999, 2001],
            "new": [True, False, None, True],
        }
    )
)
TRIE = build_trie([[3], [1], [2], [0]])  # ranks: d, b, c, a


def labels_by_row(**max_per: int) -> list[set[int]]:
    caps = CapRules(CATALOG, TRIE).caps(max_per)
    assert caps is not None
    by_row = caps.labels[TRIE.rank_of_item]
    assert all(len(set(own[own >= 0])) == (own >= 0).sum() for own in by_row)  # no label twice
    return [set(own[own >= 0].tolist()) for own in by_row]


def test_values_become_labels():
    assert labels_by_row(year=1) == [{1}, set(), {0}, {1}]
    assert labels_by_row(new=1) == [{1}, {0}, set(), {1}]
    assert labels_by_row(genres=1) == [{0, 1}, {1}, set(), set()]
    a, b, c, d = labels_by_row(title=1)
    assert a == b
    assert len({frozenset(one) for one in (a, c, d)}) == 3


def test_fields_keep_their_own_labels_and_limits():
    caps = CapRules(CATALOG, TRIE).caps({"year": 3, "genres": 2})
    assert caps is not None
    assert caps.most.tolist() == [3, 3, 2, 2]
    assert labels_by_row(year=3, genres=2) == [{1, 2, 3}, {3}, {0}, {1}]


def test_no_field_is_no_caps():
    assert CapRules(CATALOG, TRIE).caps({}) is None


@pytest.mark.parametrize(
    ("max_per", "message"),
    [
        ({"colour": 1}, r"of the catalog \(item_id, .*\) in max_per, got 'colour'"),
        ({"year": 0}, "integer >= 1, got year=0"),
        ({"year": "2"}, "integer >= 1, got year='2'"),
    ],
)
def test_wrong_caps_are_refused(max_per, message):
    with pytest.raises(RequestError, match=message):
        CapRules(CATALOG, TRIE).caps(max_per)


def test_a_catalog_without_values_has_no_labels():
    catalog = Catalog(
        pl.DataFrame({"item_id": ["a"], "title": ["A"], "year": pl.Series([None], dtype=pl.Int64)})
    )
    caps = CapRules(catalog, build_trie([[1]])).caps({"year": 1})
    assert caps is not None
    np.testing.assert_array_equal(caps.labels, [[-1]])


def test_caps_asked_for_again_are_the_same_until_others_push_them_out():
    rules = CapRules(CATALOG, TRIE)
    first = rules.caps({"year": 1, "genres": 2})
    assert rules.caps({"genres": 2, "year": 1}) is first
    assert rules.caps({"genres": 2, "year": 2}) is not first
    for limit in range(1, 9):
        rules.caps({"title": limit})
    again = rules.caps({"year": 1, "genres": 2})
    assert again is not first
    assert again is not None
    assert first is not None
    np.testing.assert_array_equal(again.labels, first.labels)
