"""Catalog fields as numbers."""

from __future__ import annotations

import polars as pl
import pytest

from index.catalog import Catalog
from index.errors import RequestError
from index.labels import Labels

CATALOG = Catalog(
    pl.DataFrame(
        {
            "item_id": [f"i{row}" for row in range(10)],
            "title": [f"Item {row}" for row in range(10)],
            "kind": ["film"] * 6 + ["novel"] * 3 + [None],
            "code": [f"c{row}" for row in range(10)],  # everybody's own
            "year": list(range(10)),
            "genres": [["a", "b", "a"], [], None, ["b"]] + [["c"]] * 6,
        },
        schema_overrides={"genres": pl.List(pl.String)},
    )
)


def named(labels: Labels) -> list[set[int]]:
    return [set(row[row >= 0].tolist()) for row in labels.table]


def test_lists_and_shared_values_are_labels():
    labels = Labels.of(CATALOG)
    assert labels is not None
    assert labels.fields == ("kind", "genres")
    film, novel, a, b, c = range(5)
    assert named(labels)[:4] == [{film, a, b}, {film}, {film}, {film, b}]
    assert named(labels)[8:] == [{novel, c}, {c}]
    assert all(len(row[row >= 0]) == len(set(row[row >= 0].tolist())) for row in labels.table)


def test_fields_may_be_named():
    labels = Labels.of(CATALOG, ["code", "year"])
    assert labels is not None
    assert labels.table.shape == (10, 2)
    assert len(set().union(*named(labels))) == 20
    with pytest.raises(RequestError, match=r"\(kind, code, year, genres\) as labels, got 'colour'"):
        Labels.of(CATALOG, ["colour"])


def test_a_catalog_without_such_fields_has_no_labels():
    assert Labels.of(Catalog(CATALOG.frame.select("item_id", "title", "code", "year"))) is None
    assert Labels.of(CATALOG, []) is None
