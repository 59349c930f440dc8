"""The histories a benchmark asks for: real ones, resampled, or random items where there are none.

What a decode costs hardly depends on which items a history holds, but how soon a search is certain does: so a
report must say which kind it stands on. This module knows catalog rows; it knows no file and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from index.errors import HistoryError
from index.histories import Cases, Histories
from index.types import Int64Array

RANDOM_LENGTH = 20  # items of a random history: the order of what the models of DESIGN read


@dataclass(frozen=True, eq=False)
class RequestHistories:
    """U histories, one a request."""

    source: str  # in words, for the report
    rows: Sequence[Int64Array]  # U of them, catalog rows, oldest first, none empty
    targets: Int64Array | None = None  # [U] the row that came next, where it is known and was held out

    def of_length(self, items: int, rng: np.random.Generator) -> Sequence[Int64Array]:
        """The same U histories at exactly ``items`` items: the last ones, others' events before them if too few."""
        return [self._filled_up(one, items, rng) for one in self.rows]

    def _filled_up(self, rows: Int64Array, items: int, rng: np.random.Generator) -> Int64Array:
        pieces, length = [rows], len(rows)
        while length < items:
            pieces.append(self.rows[int(rng.integers(len(self.rows)))])
            length += len(pieces[-1])
        return np.concatenate(pieces[::-1])[-items:]


def resampled(histories: Histories, users: int, rng: np.random.Generator) -> RequestHistories:
    """``users`` of the users that have any event: all different where there are enough, else drawn again.

    Raises:
        HistoryError: no user has an event.
    """
    candidates = np.flatnonzero(histories.lengths > 0)
    if not len(candidates):
        raise HistoryError("expected histories with events of catalog items, got none")
    again = users > len(candidates)
    chosen = rng.choice(candidates, users, replace=again)
    source = f"{users:,} users of {len(candidates):,} in the file" + (
        ", drawn with repetition" if again else ""
    )
    return RequestHistories(source, [histories.events(int(user)).astype(np.int64) for user in chosen])


def held_out(cases: Cases, users: int, rng: np.random.Generator) -> RequestHistories:
    """``users`` of the cases, with what came next: all different where there are enough, else drawn again.

    Raises:
        HistoryError: there is no case.
    """
    if not len(cases):
        raise HistoryError("expected users with an event to hold out, got none; histories are too short")
    again = users > len(cases)
    chosen = rng.choice(len(cases), users, replace=again)
    source = f"{users:,} of {len(cases):,} held-out cases" + (", drawn with repetition" if again else "")
    rows = [cases.history_of(int(case)).astype(np.int64) for case in chosen]
    return RequestHistories(source, rows, cases.target[chosen].astype(np.int64))


def random_items(items: int, users: int, rng: np.random.Generator) -> RequestHistories:
    """``users`` histories of :data:`RANDOM_LENGTH` items drawn from a catalog of ``items``, uniformly."""
    source = f"{users:,} histories of {RANDOM_LENGTH} random items (no file of histories was given)"
    return RequestHistories(source, list(rng.integers(0, items, (users, RANDOM_LENGTH))))
