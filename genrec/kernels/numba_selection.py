"""Compiled selection: the best of many entries, without a heap, and rows from best to worst.

Selection rests on counting how many keys reach a value, which vectorises: halving an interval a few times finds a
threshold that spares looking at most of what comes later, halving it to the end the exact cut. A heap costs 20 to
30 ns an entry that passes it, mostly in mispredicted branches; this 3 to 5.

numba's cache looks only at the file of the function called, which is :mod:`genrec.kernels.numba_loops`: after a
change here, change that file too or delete the cache.
"""

# mypy: disable-error-code="return-value"
# Compiled code has one integer type where numpy's stubs tell int64 from int.
from __future__ import annotations

import numpy as np
from numba import njit, uint64

from index.types import Float64Array, Int64Array

_BUCKETS = 64
_BUCKETS_PER_NAT = 8.0


@njit(cache=True, nogil=True)
def best_rows_first(score: Float64Array, begin: int, end: int, order: Int64Array) -> None:
    """Write rows ``begin .. end - 1`` into that stretch of ``order``, roughly from best to worst.

    Rows within an eighth of a nat stay in their order: a full sort takes ten times as long and spares no more.
    """
    if end - begin < 3:
        for row in range(begin, end):
            order[row] = row
        return
    top = score[begin]
    for row in range(begin, end):
        top = max(top, score[row])
    place = np.zeros(_BUCKETS + 1, np.int64)
    for row in range(begin, end):
        place[_bucket(top - score[row]) + 1] += 1
    for bucket in range(_BUCKETS):
        place[bucket + 1] += place[bucket]
    for row in range(begin, end):
        bucket = _bucket(top - score[row])
        order[begin + place[bucket]] = row
        place[bucket] += 1


@njit(cache=True, nogil=True, inline="always")
def _bucket(gap: float) -> int:
    # Also where the gap is infinite, or nan between two infinite scores.
    return np.int64(gap * _BUCKETS_PER_NAT) if gap < _BUCKETS / _BUCKETS_PER_NAT else _BUCKETS - 1


@njit(cache=True, nogil=True)
def _count_reaching(key: Float64Array, size: int, wanted: float) -> int:
    count = 0
    for i in range(size):  # vectorised: a handful of these is cheaper than sorting or partitioning
        count += key[uint64(i)] >= wanted
    return count


@njit(cache=True, nogil=True)
def cut(key: Float64Array, size: int, limit: int, low: float, high: float, halvings: int) -> float:
    """A value that at least ``limit`` of the first ``size`` keys reach, and as few more as the halvings allow.

    ``limit`` is at most ``size``; ``low`` is such a value to start from, ``high`` the largest key.
    """
    if low == -np.inf:
        step = 1.0
        while high - step > -np.inf and step < 1e30:
            if _count_reaching(key, size, high - step) >= limit:
                low = high - step
                break
            step *= 4.0
        if low == -np.inf:
            return low
    for _ in range(halvings):
        middle = low + 0.5 * (high - low)
        if middle <= low or middle >= high:
            break
        count = _count_reaching(key, size, middle)
        if count >= limit:
            low = middle
            if count == limit:
                break
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def nth_largest(key: Float64Array, size: int, limit: int, low: float, high: float) -> float:
    """A value that exactly ``limit`` of the first ``size`` keys reach; the ``limit``-th largest key where ties
    leave none. ``low`` and ``high`` as in :func:`cut`."""
    found = cut(key, size, limit, low, high, 64)
    return found if _count_reaching(key, size, found) == limit else np.sort(key[:size])[size - limit]


@njit(cache=True, nogil=True)
def keep_best(
    key: Float64Array, edge: Int64Array, score: Float64Array, size: int, limit: int, low: float, high: float
) -> float:
    """Of the first ``size`` entries (more than ``limit``) move the best ``limit`` to the front, in their order.

    Higher keys are better, then earlier edges. ``low`` and ``high`` as in :func:`cut`. Returns the highest score
    left out.
    """
    worst = nth_largest(key, size, limit, low, high) if limit else np.inf
    if _count_reaching(key, size, worst) > limit:  # of the equals the later edges go
        above = 0
        for i in range(size):
            above += key[i] > worst
        last_edge = np.sort(edge[:size][key[:size] == worst])[limit - above - 1]
        for i in range(size):
            if key[i] == worst and edge[i] > last_edge:
                key[i] = np.nan
    left_out = _best_below(key, score, size, worst)
    kept = 0
    for i in range(size):
        own_key = key[i]
        key[kept], edge[kept], score[kept] = own_key, edge[i], score[i]
        kept += own_key >= worst
    return left_out


@njit(cache=True, nogil=True)
def _best_below(key: Float64Array, score: Float64Array, size: int, worst: float) -> float:
    """The highest score among the entries whose key does not reach ``worst``; -inf of none.

    As in :func:`~genrec.kernels.numba_rows.largest`, by the bits of the floats: that vectorises.
    """
    bits = score.view(np.int64)
    none = np.int64(-9218868437227405313)  # -inf, all bits but the sign turned round
    top = none
    for i in range(size):
        own = bits[uint64(i)]
        own ^= (own >> 63) & np.int64(0x7FFFFFFFFFFFFFFF)
        top = max(top, none if key[uint64(i)] >= worst else own)
    return np.int64(top ^ ((top >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))).view(np.float64)


@njit(cache=True, nogil=True)
def keep_reached(
    edge: Int64Array, score: Float64Array, item_score: Float64Array, begin: int, end: int, floor: float
) -> int:
    """Move the entries of ``begin .. end - 1`` that reach ``floor`` to the front; where they end now."""
    kept = begin
    for i in range(begin, end):
        if item_score[i] >= floor:
            edge[kept], score[kept], item_score[kept] = edge[i], score[i], item_score[i]
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def sort_by_row(
    edge: Int64Array,
    score: Float64Array,
    size: int,
    begin_of: Int64Array,
    out_edge: Int64Array,
    out_score: Float64Array,
) -> None:
    """Write the first ``size`` entries by ascending edge; those of one row are in that order already."""
    rows = len(begin_of) - 1
    if size == 0:
        return
    begin_of[:] = 0
    for i in range(size):
        begin_of[(edge[i] >> 32) + 1] += 1
    for r in range(rows):
        begin_of[r + 1] += begin_of[r]
    for i in range(size):
        row = edge[i] >> 32
        out_edge[begin_of[row]], out_score[begin_of[row]] = edge[i], score[i]
        begin_of[row] += 1
