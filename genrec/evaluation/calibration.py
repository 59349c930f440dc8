"""Whether probabilities mean what they say: of items given one in five, is one in five the next?

Bins hold equally many predictions (quantiles), not equal stretches of [0, 1]: nearly all probabilities of items lie
below a tenth, where ten equal stretches would be one bin.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from genrec.evaluation.metrics import CUTOFF
from index.errors import RequestError
from index.types import BoolArray, Float64Array, IntArray

BINS = 15


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predictions of similar probability, and how often they came true."""

    low: float  # the smallest and
    high: float  # the largest probability in the bin
    count: int
    predicted: float  # mean probability
    observed: float  # share that came true


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far probabilities are from frequencies."""

    error: float
    """Expected calibration error: the mean of |predicted - observed| over bins, weighted by their counts (Naeini et
    al., AAAI 2015; bins of equal mass as in Nguyen and O'Connor, EMNLP 2015)."""
    bins: tuple[ReliabilityBin, ...]  # by rising probability


@dataclass(frozen=True, slots=True)
class ListCalibration:
    """Calibration of a recommender that gives probabilities, over the first ten of each list."""

    items: Calibration  # each item's probability, against its being the next
    lists: Calibration  # the sum of a list's probabilities, against the next item's being in it

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def calibration(probabilities: Float64Array, came_true: BoolArray, bins: int = BINS) -> Calibration:
    """Compare probabilities with what happened.

    Args:
        probabilities: float64[n], in [0, 1].
        came_true: bool[n].
        bins: at most so many of them; equal probabilities share one.

    Raises:
        RequestError: nothing to compare, shapes that differ, no bin, or values that are no probabilities.
    """
    if probabilities.ndim != 1 or probabilities.shape != came_true.shape or not len(probabilities):
        raise RequestError(
            f"expected probabilities [n] and outcomes [n] with n >= 1, got {list(probabilities.shape)} and "
            f"{list(came_true.shape)}"
        )
    if bins < 1:
        raise RequestError(f"expected at least one bin, got {bins}")
    low, high = float(probabilities.min()), float(probabilities.max())
    if not (low >= 0.0 and high <= 1.0):  # NaN is refused, too
        raise RequestError(f"expected probabilities in [0, 1], got {low:g} to {high:g}")
    edges = np.quantile(probabilities, np.linspace(0.0, 1.0, bins + 1))
    place = np.searchsorted(edges[1:-1], probabilities)
    found = []
    for one in range(bins):
        inside = place == one
        if inside.any():
            some = probabilities[inside]
            found.append(
                ReliabilityBin(
                    low=float(some.min()),
                    high=float(some.max()),
                    count=int(inside.sum()),
                    predicted=float(some.mean()),
                    observed=float(came_true[inside].mean()),
                )
            )
    error = sum(one.count * abs(one.predicted - one.observed) for one in found) / len(probabilities)
    return Calibration(error, tuple(found))


def list_calibration(ranked: IntArray, shares: Float64Array, targets: IntArray) -> ListCalibration | None:
    """Calibration of the first ten of C lists; None where not a single item came back.

    Args:
        ranked: int[C, K], catalog rows, -1 where a list is shorter.
        shares: float64[C, K], the probability of each.
        targets: int[C], catalog rows: what came next.
    """
    first, share = ranked[:, :CUTOFF], shares[:, :CUTOFF]
    is_item = first >= 0
    if not is_item.any():
        return None
    hit = is_item & (first == targets[:, None])
    # Sums of float32 scores may end a rounding above one.
    total = np.minimum(np.where(is_item, share, 0.0).sum(1), 1.0)
    return ListCalibration(calibration(share[is_item], hit[is_item]), calibration(total, hit.any(1)))
