"""Compiled questions to a filter's bitmap (:class:`~index.item_filter.RankBitmap`) over the trie's ranges.

numba's cache looks only at the file of the function called, which is :mod:`genrec.kernels.numba_loops`: after a
change here, change that file too or delete the cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

from index.types import Int64Array, IntArray, UInt32Array, UInt64Array


@njit(cache=True, nogil=True, inline="always")
def bit_count(x: int) -> int:
    """Bits of a uint64, in the usual way, which LLVM turns into one instruction."""
    x = x - ((x >> uint64(1)) & uint64(0x5555555555555555))
    x = (x & uint64(0x3333333333333333)) + ((x >> uint64(2)) & uint64(0x3333333333333333))
    x = (x + (x >> uint64(4))) & uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * uint64(0x0101010101010101)) >> uint64(56))


@njit(cache=True, nogil=True, inline="always")
def bits_below(words: UInt64Array, before: UInt32Array, rank: int) -> int:
    """As :meth:`~index.item_filter.RankBitmap.count_below`."""
    low_bits = (uint64(1) << uint64(rank & 63)) - uint64(1)
    return np.int64(before[rank >> 6]) + bit_count(words[rank >> 6] & low_bits)


@njit(cache=True, nogil=True)
def _next_allowed(words: UInt64Array, rank: int, end: int) -> int:
    """The first rank of the bitmap in ``rank .. end - 1``, or ``end``."""
    if rank >= end:
        return end
    word = rank >> 6
    rest = words[word] >> uint64(rank & 63)
    while rest == uint64(0):
        word += 1
        rank = word << 6
        if rank >= end:
            return end
        rest = words[word]
    lowest = rest & (~rest + uint64(1))
    return min(rank + bit_count(lowest - uint64(1)), end)


@njit(cache=True, nogil=True)
def allowed_children(
    words: UInt64Array, span_start: IntArray, first: int, count: int, start: int, end: int, out: Int64Array
) -> int:
    """Write the places of the children with a rank of the bitmap in their span, by going from one to the next."""
    found, child = 0, 0
    rank = _next_allowed(words, start, end)
    while rank < end:
        low, high = child + 1, count  # the last child that starts at or before the rank
        while low < high:
            middle = (low + high) >> 1
            if np.int64(span_start[first + middle]) <= rank:
                low = middle + 1
            else:
                high = middle
        child = low - 1
        out[found] = child
        found += 1
        if low == count:
            break
        rank = _next_allowed(words, np.int64(span_start[first + low]), end)
    return found
