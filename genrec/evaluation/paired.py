"""Is one system better than another, or did it draw the luckier users? Paired bootstrap over cases.

Both systems answered the same cases, so what is resampled is the difference per case (Efron 1979; Smucker, Allan and
Carterette, CIKM 2007, on comparing rankings so): what makes a case hard for both cancels out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from index.errors import RequestError
from index.types import FloatArray

RESAMPLES = 2_000
MIN_DIFFERING = 6
"""Cases that must differ before a verdict. An exact two-sided sign test (Dixon and Mood, JASA 1946) cannot reach .05
with fewer: five of five on one side have p = 2 · .5⁵ = .063, six of six 2 · .5⁶ = .031. The bootstrap does not know:
where all of four that differ are ours, nearly every resample has one of them."""
_ROUNDING = 1e-12  # values are means over seeds: sums in another order are no difference


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean of (ours - theirs) over cases."""

    mean: float
    low: float  # 95 % interval
    high: float
    cases: int
    differing: int  # cases on which the two are not alike

    @property
    def is_worse(self) -> bool:
        """Whether chance hardly explains that ours is below."""
        return self.high < 0.0 and self.differing >= MIN_DIFFERING

    @property
    def is_better(self) -> bool:
        """Whether chance hardly explains that ours is above."""
        return self.low > 0.0 and self.differing >= MIN_DIFFERING


def paired_differences(
    ours: FloatArray, theirs: Mapping[str, FloatArray], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Difference]:
    """Differences of per-case values with percentile intervals; every system is judged on the same resamples.

    Args:
        ours: float[C], such as :func:`genrec.evaluation.metrics.ndcg` returns.
        theirs: by system, float[C] of the same cases.
        resamples: of the cases, with replacement.
        seed: of the resamples.

    Raises:
        RequestError: there is no case, shapes differ, or there are fewer than two resamples.
    """
    if ours.ndim != 1 or not len(ours):
        raise RequestError(f"expected per-case values float[C] with C >= 1, got shape {list(ours.shape)}")
    for name, values in theirs.items():
        if values.shape != ours.shape:
            raise RequestError(
                f"expected one value per case of '{name}' as of ours, {list(ours.shape)}, got {list(values.shape)}"
            )
    if resamples < 2:
        raise RequestError(f"expected at least 2 resamples, got {resamples}")
    if not theirs:
        return {}
    cases = len(ours)
    apart = np.stack([ours - values for values in theirs.values()], axis=1)  # [C, systems]
    rng = np.random.default_rng(seed)
    # How often each case was drawn, in place of the draws: one pass serves all systems.
    drawn = (np.bincount(rng.integers(0, cases, cases), minlength=cases) for _ in range(resamples))
    means = np.stack([counts @ apart for counts in drawn]) / cases  # [resamples, systems]
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    differing = (np.abs(apart) > _ROUNDING).sum(axis=0)
    return {
        name: Difference(
            float(apart[:, place].mean()), float(low[place]), float(high[place]), cases, int(differing[place])
        )
        for place, name in enumerate(theirs)
    }
