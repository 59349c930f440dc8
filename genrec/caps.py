"""Caps: at most so many items of one label (a genre, a brand) in an answer.

Applied greedily in the final order: the best item is taken, then the next best whose labels all have room, and
so on. An item may have several labels, of one field or of several, and labels may have different limits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from index.errors import RequestError
from index.types import BoolArray, Int64Array, IntArray


@dataclass(frozen=True, eq=False)
class Caps:
    """Labels of every item and how many items each label admits. Make one and share it between requests.

    Raises:
        RequestError: the arrays do not fit each other, or a limit is below 1.
    """

    labels: IntArray  # [N, F] label ids by item rank, each once an item; -1 where it has fewer than F
    most: IntArray  # [G] items admitted per label id

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.max(initial=-1) >= len(self.most):
            raise RequestError(
                f"expected labels [N, F] below {len(self.most)}, got {self.labels.shape} "
                f"up to {self.labels.max(initial=-1)}"
            )
        if len(self.most) and self.most.min() < 1:
            raise RequestError(f"expected every cap to admit at least 1 item, got {self.most.min()}")

    def take(self, rank: Int64Array, k: int) -> Int64Array:
        """Positions of the first k items that the caps admit, of items given best first."""
        taken: list[int] = []
        room = self.most.tolist()
        for position, labels in enumerate(self.labels[rank].tolist()):
            own = [label for label in labels if label >= 0]
            if all(room[label] for label in own):
                for label in own:
                    room[label] -= 1
                taken.append(position)
                if len(taken) == k:
                    break
        return np.array(taken, np.int64)

    def full(self, rank: Int64Array) -> BoolArray:
        """bool[G]: labels that the items taken have filled."""
        own = self.labels[rank].ravel()
        return np.asarray(np.bincount(own[own >= 0], minlength=len(self.most)) >= self.most)


class Room:
    """Where items are left that the caps of one request still admit. Counted again only when a label fills.

    Args:
        caps: the request's.
        may_come: bool[N], the items it may get.
    """

    def __init__(self, caps: Caps, may_come: BoolArray) -> None:
        self._caps = caps
        self._may_come = may_come
        self._full: BoolArray | None = None
        self._count = np.zeros(0, np.int64)  # [N + 1] items with room below each rank

    def below(self, taken: Int64Array, start: Int64Array, end: Int64Array) -> BoolArray:
        """bool[E]: ranges ``start .. end - 1`` with an item that fits beside the ranks ``taken``."""
        full = self._caps.full(taken)
        if self._full is None or not np.array_equal(full, self._full):
            is_full = np.append(full, False)[self._caps.labels]  # [N, F]; label -1 reads the appended False
            self._full = full
            self._count = np.zeros(len(is_full) + 1, np.int64)
            np.cumsum(self._may_come & ~np.any(is_full, axis=1), out=self._count[1:])
        return np.asarray(self._count[end] > self._count[start])
