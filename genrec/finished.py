"""Finished items of one request: whatever the search has found, and the best k of it under the caps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec.caps import Caps
from index.types import Float64Array, Int64Array, IntArray


@dataclass(frozen=True, slots=True)
class FoundItems:
    """M items with their scores."""

    rank: Int64Array  # [M] item ranks
    score: Float64Array  # [M] log-probability
    value: Float64Array  # [M] what they are ranked by; ``score`` itself where nothing else was asked

    def __len__(self) -> int:
        return len(self.rank)

    def take(self, index: IntArray | slice) -> FoundItems:
        """The items at ``index``."""
        score = self.score[index]
        value = score if self.value is self.score else self.value[index]
        return FoundItems(self.rank[index], score, value)


class Finished:
    """Grows while a request is searched.

    Args:
        k: items wanted.
        item_at_rank: int[N], catalog rows: equal values are ordered by them.
        caps: how many items of a label are wanted at most.
    """

    def __init__(self, k: int, item_at_rank: IntArray, caps: Caps | None = None) -> None:
        self._k = k
        self._row = item_at_rank
        self._caps = caps
        self._parts: list[FoundItems] = []
        self._known = np.zeros(0, np.int64)

    def add(self, items: FoundItems) -> None:
        """Record items. None comes twice, but for those that :meth:`add_ahead` knows."""
        if len(self._known):
            items = items.take(np.flatnonzero(~np.isin(items.rank, self._known)))
        self._parts.append(items)

    def add_ahead(self, items: FoundItems) -> None:
        """Record items that the search may find again, and ignore those then."""
        self.add(items)
        self._known = np.union1d(self._known, items.rank)

    def floor(self) -> float:
        """Value of the k-th best item: nothing below it matters any more. -inf where fewer are found."""
        if self._caps is not None:
            best = self.best()
            return float(best.value[-1]) if len(best) == self._k else -np.inf
        found = self._all()
        if len(found) < self._k:
            return -np.inf
        kth = float(-np.partition(-found.value, self._k - 1)[self._k - 1])
        if len(found) > 4 * self._k:  # what is below can never come back; equal values stay: row decides
            self._parts = [found.take(np.flatnonzero(found.value >= kth))]
        return kth

    def best(self) -> FoundItems:
        """The k best that the caps admit, best first; ties by catalog row."""
        found = self._all()
        order = np.lexsort((self._row[found.rank], -found.value))
        if self._caps is not None:
            order = order[self._caps.take(found.rank[order], self._k)]
        return found.take(order[: self._k])

    def _all(self) -> FoundItems:
        if len(self._parts) != 1:
            none = np.zeros(0)
            parts = self._parts or [FoundItems(np.zeros(0, np.int64), none, none)]
            score = np.concatenate([part.score for part in parts])
            plain = all(part.value is part.score for part in parts)
            value = score if plain else np.concatenate([part.value for part in parts])
            self._parts = [FoundItems(np.concatenate([part.rank for part in parts]), score, value)]
        return self._parts[0]
