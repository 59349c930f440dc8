"""Resampling: how far a figure of a sample could be from that of everything the sample stands for.

Single values are drawn with replacement where they are independent (Efron 1979). Neighbours that wait in one queue
are drawn together: the circular block bootstrap of Politis and Romano (1992).
"""

from __future__ import annotations

import math

import numpy as np

from index.types import Float64Array, Int64Array

RESAMPLES = 1000


def resampled_means(values: Float64Array, seed: int = 0, resamples: int = RESAMPLES) -> Float64Array:
    """float64[resamples]: means of resamples of float64[n]."""
    drawn: Float64Array = values[draws(len(values), seed, resamples)].mean(axis=1)
    return drawn


def draws(count: int, seed: int, resamples: int = RESAMPLES) -> Int64Array:
    """int64[resamples, n]: places of resamples of n independent values."""
    return np.random.default_rng(seed).integers(0, count, (resamples, count))


def block_draws(count: int, seed: int, resamples: int = RESAMPLES) -> Int64Array:
    """int64[resamples, n]: resamples of n values made of blocks of neighbours, the last next to the first.

    Blocks of sqrt(n): longer than the n^(1/3) that is best for a mean of short memory, since a queue's is long.
    The price: of independent exponential times, 95 % intervals of p90 at n = 300, p99 and the median at n = 1000
    held the truth in 87, 90 and 92 % of 200 samples (single requests drawn: 92 to 93 %).
    """
    rng = np.random.default_rng(seed)
    length = math.ceil(math.sqrt(count))
    blocks = math.ceil(count / length)
    starts = np.stack([rng.integers(0, count, blocks) for _ in range(resamples)])
    return ((starts[:, :, None] + np.arange(length)) % count).reshape(resamples, -1)[:, :count]
