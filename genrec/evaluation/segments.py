"""The cases that are hard for everybody: users with little behind them, and items nobody has met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from genrec.evaluation.baselines import event_counts
from index.histories import Cases, Histories
from index.types import BoolArray

SPARSE_EVENTS = 5


@dataclass(frozen=True, eq=False)
class Segments:
    """Which of C cases are of a kind."""

    sparse: BoolArray  # [C] the user has at most five training events
    cold: BoolArray  # [C] the target is in no training event

    @classmethod
    def of(cls, cases: Cases, training: Histories, items: int) -> Self:
        """Of cases whose users index the same ``user_ids`` as ``training``; ``items`` is N.

        Raises:
            RequestError: the histories name a row outside the catalog.
        """
        events = event_counts(training, items)
        return cls(training.lengths[cases.user] <= SPARSE_EVENTS, np.asarray(events[cases.target] == 0))

    def named(self) -> dict[str, BoolArray]:
        """By the name that figures carry in front: ``sparse_recall@10``."""
        return {"sparse": self.sparse, "cold": self.cold}
