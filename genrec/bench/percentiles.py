"""Percentiles with what they stand on: an interval each, and none where the sample cannot support it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from index.types import FloatArray

BEYOND = 10
"""Samples that must lie beyond a tail percentile: p95 needs 200, p99 needs 1,000. With fewer its upper bound is
the sample's own maximum or not far from it, which says more of one bad moment than of the percentile."""

_Z95 = 1.96  # standard normal, 95 % two-sided


@dataclass(frozen=True, slots=True)
class Percentile:
    """One percentile and its 95 % interval."""

    value: float
    low: float | None  # None where the sample has no order statistic so far out
    high: float | None


def samples_for(share: float) -> int:
    """How many samples the percentile ``share`` (0.95 is p95) needs; the median is always given."""
    return 1 if share <= 0.5 else math.ceil(BEYOND / (1 - share) - 1e-6)


def percentile(values: Sequence[float] | FloatArray, share: float) -> Percentile | None:
    """The percentile ``share`` in (0, 1) of at least one number, or None where they are too few.

    The interval is distribution-free: the order statistics at n·p ± z·√(n·p·(1 − p)) (Conover, Practical
    Nonparametric Statistics, 3rd edition, section 3.2).
    """
    ordered = np.sort(np.asarray(values, np.float64))
    n = len(ordered)
    if n < samples_for(share):
        return None
    reach = _Z95 * math.sqrt(n * share * (1 - share))
    low, high = (
        math.floor(n * share - reach),
        math.ceil(n * share + reach),
    )  # 1-based: the low-th, the (high+1)-th
    return Percentile(
        float(np.quantile(ordered, share)),
        float(ordered[low - 1]) if low >= 1 else None,
        float(ordered[high]) if high < n else None,
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """A sample of times in a few numbers, all in the unit it came in."""

    count: int
    mean: float  # means of parts add up to the mean of the whole; medians do not
    median: Percentile
    p95: Percentile | None

    @staticmethod
    def of(values: Sequence[float] | FloatArray) -> Summary:
        """Of at least one number."""
        median = percentile(values, 0.5)
        assert median is not None
        return Summary(len(values), float(np.mean(values)), median, percentile(values, 0.95))

    def as_json(self, digits: int = 5) -> dict[str, object]:
        """For a report; a refused percentile is null."""
        return {
            "count": self.count,
            "mean": round(self.mean, digits),
            "median": round(self.median.value, digits),
            "median_95": _interval(self.median, digits),
            "p95": None if self.p95 is None else round(self.p95.value, digits),
            "p95_95": None if self.p95 is None else _interval(self.p95, digits),
        }


def _interval(one: Percentile, digits: int) -> list[float | None]:
    return [None if end is None else round(end, digits) for end in (one.low, one.high)]
