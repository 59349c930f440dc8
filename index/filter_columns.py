"""Catalog fields compiled for filters: a filter becomes bool[N] over ranks in a fraction of a millisecond.

A field is kept as the ascending list of its distinct values and, for every item in rank order, a small code:
0 where it has no value, otherwise 1 + the place of its value in that list. Codes are ordered as values are, so
any comparison of texts, numbers or truth values is one or two ranges of codes, and missing values satisfy
none. A list field is kept the other way round: for every value the ranks that have it, as a bitmap where that
is smaller than the list of ranks.

A field is compiled when a filter first names it (benchmarks/LOG.md has the times) and kept from then on: 1, 2
or 4 bytes an item, by the number of distinct values, beside those values; a list field takes at most 4 bytes
an entry. This module knows ranks and fields; it knows no request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from index.catalog import Catalog
from index.filter_expression import All, Any_, Comparison, Filter, Not, Scalar, check_comparison
from index.trie import TokenTrie
from index.types import BoolArray, Int32Array, Int64Array

_FEW = 8  # ranges of codes compared one by one; above, a table over codes costs less (0.8 ms a million items)
_BITS_OF_RANK = 32  # a value's list of ranks outgrows its bitmap where it has more than N / 32 of them


class FilterColumns:
    """The fields of one catalog in the order of one trie. Safe to share between threads."""

    def __init__(self, catalog: Catalog, trie: TokenTrie) -> None:
        self._catalog = catalog
        self._trie = trie
        self._columns: dict[str, _Column] = {}
        self._lock = Lock()

    @property
    def nbytes(self) -> int:
        """Memory the compiled fields take, an estimate for the distinct values."""
        return sum(column.nbytes for column in list(self._columns.values()))

    def mask(self, parsed: Filter) -> BoolArray:
        """bool[N] over ranks: the items for which a filter holds.

        Raises:
            FilterError: an unknown field, or a comparison the field's type does not have.
        """
        match parsed:
            case All(parts):
                holds = np.ones(len(self._trie), np.bool_)
                for part in parts:
                    holds &= self.mask(part)
                return holds
            case Any_(parts):
                holds = np.zeros(len(self._trie), np.bool_)
                for part in parts:
                    holds |= self.mask(part)
                return holds
            case Not(part):
                return ~self.mask(part)
            case Comparison():
                check_comparison(parsed, self._catalog)
                return self._column(parsed.field).mask(parsed)

    def _column(self, name: str) -> _Column:
        column = self._columns.get(name)  # read without the lock: one thread's first use stops no other field
        if column is not None:
            return column
        with self._lock:
            if name not in self._columns:
                series = self._catalog.frame[name]
                by_rank = series.gather(np.asarray(self._trie.item_at_rank, np.int64))
                build = _ListColumn.build if isinstance(series.dtype, pl.List) else _ScalarColumn.build
                self._columns[name] = build(by_rank)
            return self._columns[name]


class _Column(Protocol):
    @property
    def nbytes(self) -> int: ...

    def mask(self, one: Comparison) -> BoolArray: ...


@dataclass(frozen=True, slots=True, eq=False)
class _ScalarColumn:
    """One value an item, or none."""

    values: pl.Series  # [U] distinct, ascending as polars sorts: texts by code point, NaN above every number
    codes: npt.NDArray[np.unsignedinteger[Any]]  # [N] by rank, 1 + place in ``values``; 0 where missing

    @staticmethod
    def build(by_rank: pl.Series) -> _ScalarColumn:
        values = by_rank.drop_nulls().unique().sort()
        return _ScalarColumn(values, _codes(by_rank, values))

    @property
    def nbytes(self) -> int:
        return int(self.codes.nbytes + self.values.estimated_size())

    def mask(self, one: Comparison) -> BoolArray:
        ranges = [(start, stop) for start, stop in self._ranges(one) if start < stop]
        if len(ranges) > _FEW:
            holds = np.zeros(len(self.values) + 1, np.bool_)
            for start, stop in ranges:
                holds[start:stop] = True
            return holds.take(self.codes)
        result = np.zeros(len(self.codes), np.bool_)
        for start, stop in ranges:
            result |= self._within(start, stop)
        return result

    def _ranges(self, one: Comparison) -> list[tuple[int, int]]:
        """Codes ``start .. stop - 1`` for which the comparison holds."""
        wanted = one.value if isinstance(one.value, tuple) else (one.value,)
        equal = [_equal(self.values, value) for value in wanted]
        if one.op in ("==", "in"):
            return [(at.start + 1, at.stop + 1) for at in equal]
        (at,), last = equal, len(self.values) + 1
        return {
            "!=": [(1, at.start + 1), (at.stop + 1, last)],
            "<": [(1, at.start + 1)],
            "<=": [(1, at.stop + 1)],
            ">": [(at.stop + 1, last)],
            ">=": [(at.start + 1, last)],
        }[one.op]

    def _within(self, start: int, stop: int) -> BoolArray:
        number = self.codes.dtype.type
        if stop - start == 1:
            return np.asarray(self.codes == number(start))
        # Codes below the start wrap around to large ones: one comparison tells both ends.
        return np.asarray(self.codes - number(start) < number(stop - start))


@dataclass(frozen=True, slots=True, eq=False)
class _ListColumn:
    """Any number of texts an item."""

    items: int  # N
    values: pl.Series  # [U] distinct, ascending
    bitmaps: Mapping[int, npt.NDArray[np.uint8]]  # by place of a value many have: [N / 8] bit r is rank r
    first: Int64Array  # [U + 1] where each other value's ranks begin
    ranks: Int32Array  # [T] ascending for each value

    @staticmethod
    def build(by_rank: pl.Series) -> _ListColumn:
        items = len(by_rank)
        entries = pl.DataFrame({"rank": np.arange(items, dtype=np.int32), "value": by_rank})
        entries = entries.explode("value").drop_nulls()
        values = entries["value"].unique().sort()
        code = _codes(entries["value"], values)
        order = np.argsort(code, kind="stable")
        ranks = entries["rank"].to_numpy()[order]
        count = np.bincount(code, minlength=len(values) + 1)[1:]
        end = np.cumsum(count)
        is_many = count > items / _BITS_OF_RANK
        bitmaps = {}
        for place in np.flatnonzero(is_many).tolist():
            bitmaps[place] = np.packbits(_mask_of(ranks[end[place] - count[place] : end[place]], items))
        first = np.concatenate([[0], np.cumsum(np.where(is_many, 0, count))])
        return _ListColumn(items, values, bitmaps, first, ranks[~np.repeat(is_many, count)])

    @property
    def nbytes(self) -> int:
        bitmaps = sum(bitmap.nbytes for bitmap in self.bitmaps.values())
        return int(self.first.nbytes + self.ranks.nbytes + bitmaps + self.values.estimated_size())

    def mask(self, one: Comparison) -> BoolArray:
        """Where at least one of the values is in the list; no other comparison of lists exists."""
        wanted = one.value if isinstance(one.value, tuple) else (one.value,)
        places = [place for value in wanted for place in _equal(self.values, value)]
        ranks = [self.ranks[self.first[place] : self.first[place + 1]] for place in places]
        result = _mask_of(np.concatenate([*ranks, np.zeros(0, np.int32)]), self.items)
        for place in places:
            if place in self.bitmaps:
                result |= np.unpackbits(self.bitmaps[place], count=self.items).view(np.bool_)
        return result


def _codes(column: pl.Series, values: pl.Series) -> npt.NDArray[np.unsignedinteger[Any]]:
    """[len(column)] 1 + place of each value in ``values``, 0 where missing, in the narrowest type that fits."""
    known = pl.DataFrame({"value": values, "code": np.arange(1, len(values) + 1, dtype=np.uint32)})
    joined = column.to_frame("value").join(known, on="value", how="left", maintain_order="left")
    codes: npt.NDArray[np.unsignedinteger[Any]] = joined["code"].fill_null(0).to_numpy()
    return codes.astype(np.min_scalar_type(len(values)))


def _equal(values: pl.Series, value: Scalar) -> range:
    """Places of ``value`` in an ascending list of distinct values: one or none, where it would stand.

    Python compares whole numbers with fractions exactly, and a NaN, being last, is never below ``value``.
    """
    place = bisect_left(values, value)
    return range(place, place + (place < len(values) and values[place] == value))


def _mask_of(ranks: Int32Array, items: int) -> BoolArray:
    mask = np.zeros(items, np.bool_)
    mask[ranks] = True
    return mask
