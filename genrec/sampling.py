"""Sampling items without replacement: Gumbel noise laid over a trie from the root down.

Add independent Gumbel noise to the log-probability of every item and sort: the order is a draw without
replacement from the model (Gumbel top-k). A node's value is the largest noisy score below it, so it can be
drawn first and its children's afterwards, given that the best of them is the node's (Kool, van Hoof and
Welling, "Stochastic beams and where to find them", ICML 2019, algorithm 1 and appendix B.3). Node values are
therefore upper bounds, and a best-first search over them finds the draw without visiting every item.

Noise is no stream but a hash of (seed, node): a request's draw depends on its seed alone, not on beam width,
batch mates or filter. A filtered draw is the unfiltered one without the forbidden items.
"""

from __future__ import annotations

import numpy as np

from index.types import Float64Array, Int64Array, IntArray, UInt64Array


def gumbel_noise(seed: int, key: IntArray) -> Float64Array:
    """float64[E]: standard Gumbel noise, the same for the same seed and key (0 or more)."""
    counter = np.asarray(key, np.uint64) + np.uint64(1)
    bits = _splitmix(counter * np.uint64(_GOLDEN) + _splitmix(np.array([seed % 2**64], np.uint64)))
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # in (0, 1), both ends out
    return np.asarray(-np.log(-np.log(uniform)))


def values_below(
    score: Float64Array, row: Int64Array, ceiling: Float64Array, noise: Float64Array
) -> Float64Array:
    """float64[E]: noisy scores of children, given that the best of each parent's is the parent's value.

    Args:
        score: float64[E], log-probabilities of the children.
        row: int64[E], which parent; non-decreasing.
        ceiling: float64[E], the parent's value.
        noise: float64[E], standard Gumbel.
    """
    if not len(row):
        return score
    is_first = np.append(True, row[1:] != row[:-1])
    noisy = score + noise
    best = np.maximum.reduceat(noisy, np.flatnonzero(is_first))[np.cumsum(is_first) - 1]
    with np.errstate(divide="ignore"):  # the best child: log(0) = -inf makes its value the ceiling
        shift = ceiling - noisy + np.log(-np.expm1(noisy - best))
    return np.asarray(ceiling - np.maximum(shift, 0.0) - np.log1p(np.exp(-np.abs(shift))))


# SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
_GOLDEN = 0x9E3779B97F4A7C15


def _splitmix(value: UInt64Array) -> UInt64Array:
    """uint64[E]: the finaliser of SplitMix64, a bijection that spreads every bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
