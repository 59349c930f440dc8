"""Which items a request may get, answered for any rank range of the trie at O(1) or O(log n) a range.

A request's rule is a bitmap over item ranks, kept as its cumulative count, minus a short sorted list of
excluded ranks (the items already seen). Nothing is filtered after the search: a range that holds no allowed
item is never entered. This module knows ranks, not items, models or scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from index.types import BoolArray, Int64Array, IntArray

_NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Allowed:
    """The items one request may get: every rank, or those of a bitmap, without the excluded ones."""

    prefix: IntArray | None = None  # [N + 1] allowed ranks below r; None allows all
    excluded: Int64Array = field(default_factory=lambda: _NOTHING)  # ranks, ascending, distinct

    @staticmethod
    def build(mask: BoolArray | None = None, excluded: IntArray | None = None) -> Allowed:
        """From a bitmap over ranks (bool[N], None allows all) and ranks to leave out (any order)."""
        return Allowed.from_prefix(None if mask is None else prefix_count(mask), excluded)

    @staticmethod
    def from_prefix(prefix: IntArray | None, excluded: IntArray | None = None) -> Allowed:
        """From a bitmap's :func:`prefix_count` and ranks to leave out (any order)."""
        ranks: Int64Array = _NOTHING if excluded is None else np.unique(np.asarray(excluded, np.int64))
        if prefix is not None:  # what the bitmap forbids must not be subtracted twice
            ranks = ranks[prefix[ranks + 1] > prefix[ranks]]
        return Allowed(prefix, ranks)


def prefix_count(mask: BoolArray) -> IntArray:
    """int[N + 1]: how many of the first r ranks a bitmap allows."""
    prefix: IntArray = np.zeros(len(mask) + 1, np.int32 if len(mask) < 2**31 else np.int64)
    np.cumsum(mask, out=prefix[1:])
    return prefix


class AllowedBatch:
    """The rules of B requests, asked together."""

    def __init__(self, rules: Sequence[Allowed], items: int) -> None:
        self._items = items
        self._rules = rules
        # One sorted array for all requests: request b's excluded ranks are shifted by b * (N + 1).
        self._stride = items + 1
        self._excluded = np.concatenate(
            [rule.excluded + b * self._stride for b, rule in enumerate(rules)] or [_NOTHING]
        )
        self._filtered = [b for b, rule in enumerate(rules) if rule.prefix is not None]

    def count(self, request: IntArray, start: IntArray, end: IntArray) -> Int64Array:
        """int64[E]: allowed items among ranks ``start .. end - 1`` for each range's request.

        ``request`` is non-decreasing.
        """
        result = np.asarray(end, np.int64) - start
        for b in self._filtered:
            prefix = self._rules[b].prefix
            assert prefix is not None
            rows = slice(*np.searchsorted(request, (b, b + 1)))
            result[rows] = prefix[end[rows]].astype(np.int64) - prefix[start[rows]]
        if len(self._excluded):
            shift = np.asarray(request, np.int64) * self._stride
            result -= np.searchsorted(self._excluded, shift + end)
            result += np.searchsorted(self._excluded, shift + start)
        return result
