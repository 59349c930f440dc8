"""Which items a request may get, answered for any rank range of the trie at O(1) or O(log n) a range.

A request's rule is a bitmap over item ranks that can count itself below any rank, minus a short sorted list
of excluded ranks (the items already seen). Nothing is filtered after the search: a range that holds no allowed
item is never entered. This module knows ranks, not items, models or scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from index.types import BoolArray, Int64Array, IntArray, UInt32Array, UInt64Array

_NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class RankBitmap:
    """A set of ranks that says in O(1) how many of them lie below any rank.

    One bit a rank and one count per 64 of them: a fifth of a byte an item, where a plain prefix count takes
    four and is nine times slower to build (0.06 against 0.53 ms over a million items).
    """

    words: UInt64Array  # [N // 64 + 1] bit r % 64 of word r // 64 is rank r
    before: UInt32Array  # [N // 64 + 1] ranks in the set below the word's first

    @staticmethod
    def from_mask(mask: BoolArray) -> RankBitmap:
        """From bool[N] over ranks."""
        packed = np.packbits(mask, bitorder="little")
        words = np.zeros(len(mask) // 64 + 1, "<u8")  # little-endian: byte i of the bits is byte i of memory
        words.view(np.uint8)[: len(packed)] = packed
        before = np.zeros(len(words), np.uint32)
        np.cumsum(np.bitwise_count(words[:-1]), dtype=np.uint32, out=before[1:])
        return RankBitmap(words, before)

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.words.nbytes + self.before.nbytes

    def count_below(self, rank: IntArray) -> Int64Array:
        """int64[...]: ranks of the set below each ``rank`` (0 .. N)."""
        place = np.asarray(rank, np.uint64)
        word = place >> np.uint64(6)
        low_bits = (np.uint64(1) << (place & np.uint64(63))) - np.uint64(1)
        count: Int64Array = np.bitwise_count(self.words[word] & low_bits).astype(np.int64)
        count += self.before[word]
        return count

    def contains(self, rank: IntArray) -> BoolArray:
        """bool[...]: which ranks are in the set."""
        place = np.asarray(rank, np.uint64)
        bit: UInt64Array = (self.words[place >> np.uint64(6)] >> (place & np.uint64(63))) & np.uint64(1)
        return bit.astype(bool)


@dataclass(frozen=True, slots=True)
class Allowed:
    """The items one request may get: every rank, or those of a bitmap, without the excluded ones."""

    bitmap: RankBitmap | None = None  # None allows all
    excluded: Int64Array = field(default_factory=lambda: _NOTHING)  # ranks, ascending, distinct

    @staticmethod
    def build(mask: BoolArray | None = None, excluded: IntArray | None = None) -> Allowed:
        """From a bitmap over ranks (bool[N], None allows all) and ranks to leave out (any order)."""
        return Allowed.from_bitmap(None if mask is None else RankBitmap.from_mask(mask), excluded)

    @staticmethod
    def from_bitmap(bitmap: RankBitmap | None, excluded: IntArray | None = None) -> Allowed:
        """From a bitmap and ranks to leave out (any order)."""
        ranks: Int64Array = _NOTHING if excluded is None else np.unique(np.asarray(excluded, np.int64))
        if bitmap is not None:  # what the bitmap forbids must not be subtracted twice
            ranks = ranks[bitmap.contains(ranks)]
        return Allowed(bitmap, ranks)

    def is_empty(self, items: int) -> bool:
        """Whether no item of ``items`` may be had."""
        all_ranks = np.array([0]), np.array([items])
        return not AllowedBatch([self], items).count(np.zeros(1, np.int64), *all_ranks)[0]


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
        self._filtered = [b for b, rule in enumerate(rules) if rule.bitmap is not None]

    def count(self, request: IntArray, start: IntArray, end: IntArray) -> Int64Array:
        """int64[E]: allowed items among ranks ``start .. end - 1`` for each range's request.

        ``request`` is non-decreasing.
        """
        result = np.asarray(end, np.int64) - start
        for b in self._filtered:
            bitmap = self._rules[b].bitmap
            assert bitmap is not None
            rows = slice(*np.searchsorted(request, (b, b + 1)))
            result[rows] = bitmap.count_below(end[rows]) - bitmap.count_below(start[rows])
        if len(self._excluded):
            shift = np.asarray(request, np.int64) * self._stride
            result -= np.searchsorted(self._excluded, shift + end)
            result += np.searchsorted(self._excluded, shift + start)
        return result
