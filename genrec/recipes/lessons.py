"""Lessons: what instructions are written from: moments of histories, items that were not chosen, kinds of things.

It knows no prompt; :mod:`genrec.recipes.instructions` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from genrec.recipes.catalog_text import CatalogText
from genrec.recipes.llmtreerec import CategoryTree
from index.errors import TrainingError
from index.item_index import ItemIndex
from index.types import IntArray


@dataclass(frozen=True, slots=True)
class Moment:
    """A place in a user's history, as catalog rows."""

    before: Sequence[int]  # oldest first
    after: Sequence[int]  # what the user chose then, one item at least


@dataclass(frozen=True, slots=True)
class Lesson:
    """A prompt and its right answer."""

    prompt: str
    answers: tuple[str, ...]  # one text, or the lines of a numbered list whose "1." ends the prompt


class Lessons:
    """Writes lessons about one catalog.

    Args:
        index: the items.
        events: int[T] catalog rows of all training events: how well known items are.
    """

    def __init__(self, index: ItemIndex, events: IntArray) -> None:
        self.text = CatalogText(index)
        self._nameable = np.array(self.text.nameable(), np.int64)
        if not len(self._nameable):
            raise TrainingError(
                "expected items with titles to write instructions about, got none; add titles"
            )
        self._may_answer = np.zeros(len(index.catalog), bool)
        self._may_answer[self._nameable] = True
        self._events = np.asarray(events)
        self._count = np.bincount(self._events, minlength=len(index.catalog))
        self.known = float(np.median(self._count[self._nameable]))

    def others(
        self, moment: Moment, rng: np.random.Generator, count: int, *, known: bool = False
    ) -> list[int]:
        """Items drawn that the user neither has chosen nor chooses next, well-known ones more often if wished."""
        pool = self._events if known and len(self._events) else self._nameable
        gone, drawn = {*moment.before, *moment.after}, []
        for row in pool[rng.integers(0, len(pool), 20 * count)].tolist():
            if row not in gone and self.may_answer(row):
                gone.add(row)
                drawn.append(row)
        return drawn[:count]

    def may_answer(self, row: int) -> bool:
        """Whether a row may be a right answer: it has a title, and was not removed."""
        return bool(self._may_answer[row])

    def is_known(self, row: int) -> bool:
        """Whether more events name a row than half of the items."""
        return bool(self._count[row] > self.known)

    @cached_property
    def common_kind(self) -> str:
        """The most frequent kind."""
        counts = Counter(kind for some in self.text.kinds for kind in some)
        return counts.most_common(1)[0][0] if counts else "item"

    def keywords(self, rows: Sequence[int], most: int = 3) -> list[str]:
        """The kinds that items have in common, the most frequent first."""
        return [
            kind for kind, _ in Counter(k for row in rows for k in self.text.kinds[row]).most_common(most)
        ]

    @cached_property
    def tree(self) -> CategoryTree:
        """The catalog by the kinds: the first, and the last."""
        return CategoryTree.over(self.text, self.text.kinds, self.text.kinds)
