"""One row of a step, compiled: its logits, their normaliser, and which of its children are worth a look.

A row's logits lie in a stretch of one flat array: in the model's own output, or gathered into a buffer. What
is not worth a look is decided on float32 logits, against a threshold that rounds the safe way; whoever looks
computes the exact score.

numba's cache looks only at the file of the function called, which is :mod:`genrec.kernels.numba_loops`: after a
change here, change that file too or delete the cache.
"""

# mypy: disable-error-code="arg-type,return-value"
# Compiled code has one integer type where numpy's stubs tell int64 from int.
from __future__ import annotations

import math

import numpy as np
from numba import njit, uint64

from genrec.kernels.numba_bits import bit_count
from index.types import Float32Array, Int64Array, IntArray

# Reductions may be reordered (that is what lets them vectorise); infinities are real values here.
_FAST = {"reassoc", "nnan", "nsz", "contract", "arcp"}


@njit(cache=True, nogil=True, inline="always")
def lowest_logit(wanted: float, base: float, norm: float) -> float:
    """float32: below this logit, ``base + min(logit - norm, 0)`` is surely below ``wanted``."""
    if wanted == -np.inf or base == -np.inf:
        return np.float32(-np.inf)
    logit = wanted - base + norm
    # Room for float32's rounding of this, and for float64's of sums of larger numbers.
    slack = 2e-7 * abs(logit) + 1e-12 * (abs(wanted) + abs(base) + abs(norm))
    return np.float32(logit - slack)


@njit(cache=True, nogil=True, inline="always")
def in_blocks(count: int) -> int:
    """``count`` rounded up to blocks of 64, which :func:`reaching` takes fastest; itself where few are over."""
    return (count + 63) & ~63 if count & 63 > 16 else count


@njit(cache=True, nogil=True, fastmath=_FAST)
def gather(
    flat: Float32Array, begin: int, token: IntArray, first: int, count: int, out: Float32Array
) -> None:
    """Logits of the children ``first .. first + count - 1`` of a row, then -inf up to the end of a block."""
    for j in range(count):  # unsigned: no test for negative indices
        out[uint64(j)] = flat[uint64(begin) + uint64(token[uint64(first + j)])]
    for j in range(count, in_blocks(count)):
        out[uint64(j)] = np.float32(-np.inf)


@njit(cache=True, nogil=True)
def any_reaches(values: Float32Array, begin: int, count: int, threshold: float) -> bool:
    """Whether one of a stretch reaches the threshold. (A maximum of floats would not vectorise.)"""
    found = False
    for j in range(count):
        found |= values[uint64(begin + j)] >= threshold
    return found


@njit(cache=True, nogil=True)
def largest(values: Float32Array, begin: int, count: int) -> float:
    """float64: the maximum of a stretch; -inf of none.

    A maximum of floats would not vectorise, one of integers does. Of floats that are not negative the bits
    are in their order as they are, of negative ones all but the sign must be turned round.
    """
    bits = values.view(np.int32)
    top = np.int32(-2139095041)  # -inf, all bits but the sign turned round
    for j in range(count):
        own = bits[uint64(begin + j)]
        top = max(top, np.int32(own ^ ((own >> 31) & 0x7FFFFFFF)))
    return np.float64(np.int32(top ^ ((top >> 31) & 0x7FFFFFFF)).view(np.float32))


@njit(cache=True, nogil=True, fastmath=_FAST)
def log_sum_exp(logits: Float32Array, begin: int, count: int, top: float) -> float:
    """Exponentials by a polynomial, which vectorises where a call of the C library would not.

    exp(x) = 2^n exp(r) with x = n log 2 + r and |r| <= log(2) / 2; the Taylor series to r^7 is off by less than
    6e-9 of the value. Below exp(-700) a term is nothing beside the largest, which is 1.
    """
    if count == 1:
        return top
    total = 0.0
    for j in range(count):
        x = max(np.float64(logits[uint64(begin + j)]) - top, -700.0)
        n = math.floor(x * 1.4426950408889634 + 0.5)
        r = x - n * 0.6931471805599453
        series = 1 / 5040
        for coefficient in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0):
            series = series * r + coefficient
        power = np.int64((np.int64(n) + 1023) << 52).view(np.float64)  # 2^n: n in the bits of the exponent
        total += series * power
    return top + math.log(total)


@njit(cache=True, nogil=True)
def count_childless(first: int, count: int, first_child: IntArray) -> int:
    """How many of the children have no children themselves."""
    childless = 0
    for j in range(count):
        child = uint64(first + j)
        childless += first_child[child + uint64(1)] == first_child[child]
    return childless


@njit(cache=True, nogil=True)
def reaching(values: Float32Array, begin: int, count: int, threshold: float, out: Int64Array) -> int:
    """Write the places of a stretch that reach the threshold, ascending; how many."""
    found, whole = 0, count & ~63
    for block in range(0, whole, 64):  # 64 comparisons become the bits of one number
        hits = uint64(0)
        for j in range(64):
            hits |= uint64(values[uint64(begin + block + j)] >= threshold) << uint64(j)
        while hits != uint64(0):
            lowest = hits & (~hits + uint64(1))
            out[uint64(found)] = block + bit_count(lowest - uint64(1))
            found += 1
            hits ^= lowest
    for block in range(whole, count, 16):
        size = min(16, count - block)
        if any_reaches(values, begin + block, size, threshold):
            for j in range(block, block + size):  # without branches
                out[uint64(found)] = j
                found += values[uint64(begin + j)] >= threshold
    return found


@njit(cache=True, nogil=True)
def reaching_by_kind(
    values: Float32Array,
    begin: int,
    count: int,
    first: int,
    first_child: IntArray,
    going: float,
    ended: float,
    out: Int64Array,
) -> int:
    """As :func:`reaching`, with a threshold of their own for children without children."""
    found, whole = 0, count & ~63
    for block in range(0, whole, 64):
        hits = uint64(0)
        for j in range(64):
            child, value = uint64(first + block + j), values[uint64(begin + block + j)]
            childless = first_child[child + uint64(1)] == first_child[child]
            hits |= uint64(value >= (ended if childless else going)) << uint64(j)
        while hits != uint64(0):
            lowest = hits & (~hits + uint64(1))
            out[uint64(found)] = block + bit_count(lowest - uint64(1))
            found += 1
            hits ^= lowest
    for j in range(whole, count):
        child, value = uint64(first + j), values[uint64(begin + j)]
        childless = first_child[child + uint64(1)] == first_child[child]
        out[uint64(found)] = j
        found += value >= (ended if childless else going)
    return found


@njit(cache=True, nogil=True)
def children_reaching(
    flat: Float32Array,
    begin: int,
    vocabulary: int,
    threshold: float,
    token: IntArray,
    first: int,
    count: int,
    out: Int64Array,
) -> int:
    """As :func:`reaching`, from a whole row of the vocabulary: no other logit of a child is gathered.

    ``out`` has room for the vocabulary.
    """
    found = reaching(flat, begin, vocabulary, threshold, out)
    kept = 0
    lowest, highest = np.int64(token[first]), np.int64(token[first + count - 1])
    for i in range(found):
        wanted = out[i]
        if wanted < lowest or wanted > highest:
            continue
        # Children's tokens are distinct and ascending, which leaves them little room.
        low = max(0, count - 1 - (highest - wanted))
        size = min(wanted - lowest, count - 1) - low + 1
        while size > 1:  # without branches
            half = size >> 1
            low += half * (np.int64(token[uint64(first + low + half)]) <= wanted)
            size -= half
        if np.int64(token[uint64(first + low)]) == wanted:
            out[kept] = low
            kept += 1
    return kept
