"""Compiled fields answer every filter as polars does over the plain columns."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import and_, or_

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.catalog import Catalog
from index.errors import FilterError
from index.filter_columns import FilterColumns
from index.filter_expression import All, Any_, Comparison, Filter, Not, parse_filter
from index.trie import TokenTrie, build_trie


def as_polars(parsed: Filter, schema: pl.Schema) -> pl.Expr:
    """The filter as an expression over the catalog's frame: the obvious way, and the slow one."""
    match parsed:
        case All(parts):
            return reduce(and_, (as_polars(part, schema) for part in parts), pl.lit(True))
        case Any_(parts):
            return reduce(or_, (as_polars(part, schema) for part in parts), pl.lit(False))
        case Not(part):
            return ~as_polars(part, schema)
    column, dtype = pl.col(parsed.field), schema[parsed.field]
    values = parsed.value if isinstance(parsed.value, tuple) else (parsed.value,)
    if isinstance(dtype, pl.List):
        return reduce(or_, (column.list.contains(pl.lit(v)) for v in values), pl.lit(False)).fill_null(False)
    if parsed.op == "in":
        return reduce(or_, (column.eq(pl.lit(v)) for v in values), pl.lit(False)).fill_null(False)
    name = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}[parsed.op]
    return getattr(column, name)(pl.lit(parsed.value)).fill_null(False)


def shuffled_trie(items: int, seed: int = 0) -> TokenTrie:
    return build_trie(np.random.default_rng(seed).permutation(items)[:, None].tolist())


def catalog_of(**fields: pl.Series) -> Catalog:
    items = len(next(iter(fields.values())))
    rows = [str(row) for row in range(items)]
    return Catalog(pl.DataFrame({"item_id": rows, "title": rows, **fields}))


def assert_same(catalog: Catalog, where: object) -> None:
    trie = shuffled_trie(len(catalog))
    parsed = parse_filter(where)
    expected = catalog.frame.select(as_polars(parsed, catalog.frame.schema).alias("x"))["x"].to_numpy()
    expected = np.broadcast_to(expected, len(catalog))[trie.item_at_rank]
    np.testing.assert_array_equal(FilterColumns(catalog, trie).mask(parsed), expected)


TEXTS = st.sampled_from(["", "a", "A", "b", "ab", "é", "\uffff", "\U0001f600", "zz"]) | st.text(max_size=2)
VALUES = {
    "text": TEXTS,
    "whole": st.integers(-3, 3) | st.sampled_from([-(2**62), 2**62]),
    "real": st.sampled_from([-1.5, -0.0, 0.0, 1.0, 2.5, float("inf"), float("-inf")]),
    "flag": st.booleans(),
    "tags": TEXTS,
}
NUMBERS = st.integers(-3, 3) | st.sampled_from([-1.5, 0.0, 1.0, 2.5])  # a whole field against a fraction too
ASKED = {**VALUES, "whole": NUMBERS, "real": NUMBERS}
ORDERED = ["==", "!=", "<", "<=", ">", ">="]


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    items = draw(st.integers(1, 40))

    def column(values: st.SearchStrategy, dtype: pl.DataType) -> pl.Series:
        return pl.Series(draw(st.lists(st.none() | values, min_size=items, max_size=items)), dtype=dtype)

    return catalog_of(
        text=column(VALUES["text"], pl.String()),
        whole=column(VALUES["whole"], pl.Int64()),
        real=column(VALUES["real"] | st.just(float("nan")), pl.Float64()),
        flag=column(VALUES["flag"], pl.Boolean()),
        tags=column(st.lists(st.none() | TEXTS, max_size=3), pl.List(pl.String())),
    )


@st.composite
def comparisons(draw: st.DrawFn) -> dict[str, object]:
    field = draw(st.sampled_from(list(VALUES)))
    ops = {"flag": ["==", "!=", "in"], "tags": ["contains", "in", "=="]}.get(field, [*ORDERED, "in"])
    op = draw(st.sampled_from(ops))
    value = st.lists(ASKED[field], max_size=12) if op == "in" else ASKED[field]
    return {"field": field, "op": op, "value": draw(value)}


FILTERS = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: {"all": parts}),
        st.lists(inner, max_size=3).map(lambda parts: {"any": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(catalogs(), FILTERS)
def test_every_filter_selects_what_polars_selects(catalog, where):
    assert_same(catalog, where)


@pytest.mark.parametrize("distinct", [1, 254, 255, 256, 257, 65_535, 65_536])
def test_codes_of_every_width_tell_first_and_last_value_apart(distinct):
    texts = [f"{value:06}" for value in range(distinct)]
    catalog = catalog_of(text=pl.Series([*texts, None]), tags=pl.Series([[one] for one in texts] + [None]))
    columns = FilterColumns(catalog, trie := shuffled_trie(distinct + 1))
    row = np.asarray(trie.item_at_rank)
    for where, expected in (
        (f'text == "{texts[0]}"', row == 0),
        (f'text == "{texts[-1]}"', row == distinct - 1),
        (f'text >= "{texts[0]}"', row < distinct),
        (f'text <= "{texts[-1]}"', row < distinct),
        (f'text != "{texts[0]}"', (row > 0) & (row < distinct)),
        (f'text > "{texts[-1]}" or text < "{texts[0]}"', row < 0),
        (f'"{texts[-1]}" in tags', row == distinct - 1),
        ({"text": texts[::2][:900]}, (row % 2 == 0) & (row < 1800) & (row < distinct)),
    ):
        np.testing.assert_array_equal(columns.mask(parse_filter(where)), expected, err_msg=str(where))


def test_whole_numbers_are_compared_exactly():
    big = 2**53 + 1  # as a float it is 2**53
    catalog = catalog_of(whole=pl.Series([big - 1, big, big + 1, None]))
    columns = FilterColumns(catalog, build_trie([[0], [1], [2], [3]]))

    def rows(where: object) -> list[int]:
        return np.flatnonzero(columns.mask(parse_filter(where))).tolist()

    assert rows(f"whole == {float(2**53)}") == [0]
    assert rows(f"whole > {float(2**53)}") == [1, 2]
    assert rows("whole < 1e999") == [0, 1, 2]
    assert rows("whole in [1e999, 1e300]") == []


def test_a_value_of_many_items_is_a_bitmap_and_all_values_answer_alike():
    items = 640  # a bitmap from 21 items on
    tags = [[f"each {row % 2}", f"some {row % 30}", f"one {row}", "each 0"] for row in range(items)]
    catalog = catalog_of(tags=pl.Series(tags))
    for where in ("'each 0' in tags", "'each 1' in tags", "'some 7' in tags", "'some 29' in tags"):
        assert_same(catalog, where)
    assert_same(catalog, {"tags": ["each 1", "some 4", "one 12", "nothing"]})
    columns = FilterColumns(catalog, shuffled_trie(items))
    columns.mask(parse_filter("'x' in tags"))
    frame = catalog.frame["tags"]
    assert columns.nbytes - frame.explode().unique().estimated_size() < 4 * 3 * items + 8 * 700


def test_a_field_is_compiled_when_it_is_named_and_once_for_all_threads(monkeypatch):
    items = 20_000
    catalog = catalog_of(
        kind=pl.Series([f"k{row % 7}" for row in range(items)]), year=pl.Series(range(items))
    )
    columns = FilterColumns(catalog, trie := shuffled_trie(items))
    assert columns.nbytes == 0
    expected = np.asarray(trie.item_at_rank) % 7 == 3
    parsed = parse_filter("kind == 'k3'")
    with ThreadPoolExecutor(8) as pool:
        masks = list(pool.map(columns.mask, [parsed] * 32))
    assert all(np.array_equal(mask, expected) for mask in masks)
    assert items <= columns.nbytes < items + 1000  # one byte an item beside seven short texts
    assert list(columns._columns) == ["kind"]


def test_what_cannot_be_compared_is_refused_wherever_it_stands():
    columns = FilterColumns(catalog_of(kind=pl.Series(["a"])), build_trie([[0]]))
    for where in ("kind == 'b' and year > 3", "kind == 'a' or year > 3", "not year > 3"):
        with pytest.raises(FilterError, match="got 'year'"):
            columns.mask(parse_filter(where))
    assert columns.mask(Comparison("kind", "in", ("a",))).tolist() == [True]
