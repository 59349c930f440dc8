"""Check: one thing a recipe must show, as a figure against a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Tier: TypeAlias = Literal["T0", "T1"]
"""``T0``: a planted model, seconds, no training. ``T1``: a trained bundle on real data (``benchmarks.recipes``)."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was measured, and what it had to be."""

    what: str
    figure: float
    threshold: float
    sense: Literal[">=", "<=", ">", "=="] = ">="
    tier: Tier = "T0"

    @property
    def passed(self) -> bool:
        """Whether the figure holds."""
        return bool(
            {
                ">=": self.figure >= self.threshold,
                "<=": self.figure <= self.threshold,
                ">": self.figure > self.threshold,
                "==": self.figure == self.threshold,
            }[self.sense]
        )
