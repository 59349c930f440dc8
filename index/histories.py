"""Histories: which items each user met, oldest first, and the splits that hold some of them out.

It knows users, catalog rows and times. It knows no file format (``history_readers`` does), no item text and
no model. Everything is flat: one array of item rows, one of offsets, so splits are slices and masks.

A split never renames users: the training part and the cases of a split index the same ``user_ids``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from index.errors import HistoryError
from index.types import BoolArray, Float64Array, Int32Array, Int64Array, IntArray


@dataclass(frozen=True, eq=False)
class Histories:
    """What U users did, as catalog rows in time order.

    Raises:
        HistoryError: arrays of the wrong type or length, or a user's times that run backwards.
    """

    user_ids: Sequence[str]  # U, unique
    offsets: Int64Array  # [U + 1]: user u's events are items[offsets[u] : offsets[u + 1]]
    items: Int32Array  # [T] catalog rows, oldest first within a user
    timestamps: Float64Array | None = None  # [T] unix seconds, non-decreasing within a user

    def __post_init__(self) -> None:
        _check_ragged("items", self.offsets, self.items, len(self.user_ids))
        if self.timestamps is None:
            return
        if self.timestamps.dtype != np.float64 or self.timestamps.shape != self.items.shape:
            raise HistoryError(
                f"expected timestamps float64{list(self.items.shape)}, "
                f"got {self.timestamps.dtype}{list(self.timestamps.shape)}"
            )
        if not np.isfinite(self.timestamps).all():
            raise HistoryError("expected finite timestamps, got NaN or infinity; drop those events")
        backwards = np.diff(self.timestamps) < 0
        backwards[
            self.offsets[1:-1][(self.offsets[1:-1] > 0) & (self.offsets[1:-1] < self.num_events)] - 1
        ] = False
        if backwards.any():
            raise HistoryError(
                "expected each user's timestamps in rising order, got a step back; sort the events"
            )

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def num_events(self) -> int:
        """T, over all users."""
        return len(self.items)

    @property
    def lengths(self) -> Int64Array:
        """int64[U]: events per user."""
        return np.diff(self.offsets)

    def events(self, user: int) -> Int32Array:
        """The item rows of user number ``user``, oldest first."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def take(self, users: IntArray) -> Histories:
        """The histories of some users only, in the order asked for."""
        users = np.asarray(users, dtype=np.int64)
        pieces = _gather(self.offsets[users], self.lengths[users])
        return Histories(
            user_ids=[self.user_ids[u] for u in users.tolist()],
            offsets=_offsets(self.lengths[users]),
            items=self.items[pieces],
            timestamps=None if self.timestamps is None else self.timestamps[pieces],
        )


@dataclass(frozen=True, eq=False)
class Cases:
    """C questions put to a recommender: after this history, what came next?"""

    user: Int64Array  # [C] index into the histories' user_ids
    history_offsets: Int64Array  # [C + 1]: case c's history is history[offsets[c] : offsets[c + 1]]
    history: Int32Array  # flat catalog rows, oldest first within a case
    target: Int32Array  # [C] the catalog row that came next

    def __post_init__(self) -> None:
        _check_ragged("history", self.history_offsets, self.history, len(self.target))
        if len(self.user) != len(self.target):
            raise HistoryError(
                f"expected one target per case, got {len(self.target)} for {len(self.user)} cases"
            )

    def __len__(self) -> int:
        return len(self.target)

    def history_of(self, case: int) -> Int32Array:
        """The item rows before the target of case number ``case``, oldest first."""
        return self.history[self.history_offsets[case] : self.history_offsets[case + 1]]

    def take(self, cases: IntArray) -> Cases:
        """Some cases only, in the order asked for."""
        cases = np.asarray(cases, dtype=np.int64)
        lengths = np.diff(self.history_offsets)[cases]
        return Cases(
            user=self.user[cases],
            history_offsets=_offsets(lengths),
            history=self.history[_gather(self.history_offsets[cases], lengths)],
            target=self.target[cases],
        )

    def sample(self, most: int, seed: int) -> Cases:
        """At most ``most`` cases, the same for a seed, in the order they stand in."""
        if len(self) <= most:
            return self
        return self.take(np.sort(np.random.default_rng(seed).choice(len(self), most, replace=False)))


@dataclass(frozen=True)
class TemporalSplit:
    """Three parts of the same histories by two moments in time."""

    train: Histories  # every event before the first moment
    validation: Cases  # targets from the first moment on, before the second
    test: Cases  # targets from the second moment on


def hold_out_last(histories: Histories, events: int = 2) -> Histories:
    """The training part that leaves out the last ``events`` events of every user.

    A user with fewer than ``events + 1`` events keeps all of them for training and is never evaluated: the
    convention of SASRec (Kang & McAuley 2018, ``data_partition`` in its code), which the published numbers on
    the Amazon and MovieLens sets follow.

    Raises:
        HistoryError: ``events`` is negative.
    """
    if events < 0:
        raise HistoryError(f"expected a number of events >= 0 to hold out, got {events}")
    lengths = histories.lengths
    return _first_events(histories, np.where(lengths > events, lengths - events, lengths))


def leave_one_out(histories: Histories, part: Literal["validation", "test"]) -> Cases:
    """One case per user with at least three events; the training part is ``hold_out_last(histories, 2)``.

    ``test`` asks for the last event after all before it, the validation event included; ``validation`` asks
    for the last but one after all before that.

    Raises:
        HistoryError: another part.
    """
    if part not in ("validation", "test"):
        raise HistoryError(f"expected part 'validation' or 'test', got {part!r}")
    users = np.flatnonzero(histories.lengths >= 3)
    last = histories.offsets[users + 1] - (1 if part == "test" else 2)
    return _cases(histories, users, last)


def temporal_split(histories: Histories, validation: float = 0.1, test: float = 0.1) -> TemporalSplit:
    """Split at two moments so that about these shares of all events come after them.

    As in MiniOneRec (8:1:1 by global time): every event from the first moment on is a target, and every
    earlier event of that user is its history. Two differences: events of one moment stay in one part, so the
    shares are met only up to ties; and histories are whole, where MiniOneRec keeps the last ten. A user's
    very first event is never a target, for want of a history.

    Raises:
        HistoryError: the histories have no timestamps, the shares are not shares, or no event is left to
            train on.
    """
    if histories.timestamps is None:
        raise HistoryError(
            "expected timestamps for a temporal split, got histories without; use leave-one-out"
        )
    if validation < 0 or test < 0 or not validation + test < 1:
        raise HistoryError(f"expected shares >= 0 that sum below 1, got validation={validation}, test={test}")
    times = histories.timestamps
    ordered = np.append(np.sort(times), np.inf)
    test_events = round(len(times) * test)
    held_out_events = round(len(times) * (validation + test))
    from_test = ordered[len(times) - test_events]
    from_validation = ordered[len(times) - held_out_events]
    if len(times) and not from_validation > ordered[0]:
        raise HistoryError(
            f"expected events before the validation moment, got none: {len(times)} events, the first and the "
            "first held-out one at the same time; lower the shares or use leave-one-out"
        )
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    first = np.zeros(len(times), dtype=np.bool_)
    first[histories.offsets[:-1][histories.lengths > 0]] = True

    def cases(wanted: BoolArray) -> Cases:
        events = np.flatnonzero(wanted & ~first)
        return _cases(histories, owner[events], events)

    before = np.concatenate(([0], np.cumsum(times < from_validation)))
    return TemporalSplit(
        train=_first_events(histories, np.diff(before[histories.offsets])),
        validation=cases((times >= from_validation) & (times < from_test)),
        test=cases(times >= from_test),
    )


def _first_events(histories: Histories, counts: Int64Array) -> Histories:
    """The first ``counts[u]`` events of every user; all users stay, some perhaps without events."""
    kept = _gather(histories.offsets[:-1], counts)
    return Histories(
        user_ids=histories.user_ids,
        offsets=_offsets(counts),
        items=histories.items[kept],
        timestamps=None if histories.timestamps is None else histories.timestamps[kept],
    )


def _cases(histories: Histories, users: Int64Array, events: Int64Array) -> Cases:
    """One case per event position ``events[c]`` of user ``users[c]``, with all earlier ones as history."""
    starts = histories.offsets[users]
    lengths = events - starts
    return Cases(
        user=users.astype(np.int64),
        history_offsets=_offsets(lengths),
        history=histories.items[_gather(starts, lengths)],
        target=histories.items[events],
    )


def _offsets(lengths: Int64Array) -> Int64Array:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def _gather(starts: Int64Array, lengths: Int64Array) -> Int64Array:
    """The positions ``starts[i] .. starts[i] + lengths[i]`` of every piece, one after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    positions: Int64Array = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return positions


def _check_ragged(name: str, offsets: Int64Array, values: Int32Array, pieces: int) -> None:
    if offsets.dtype != np.int64 or offsets.shape != (pieces + 1,):
        raise HistoryError(f"expected offsets int64[{pieces + 1}], got {offsets.dtype}{list(offsets.shape)}")
    if values.dtype != np.int32 or values.ndim != 1:
        raise HistoryError(f"expected {name} int32[T], got {values.dtype}{list(values.shape)}")
    if offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
        raise HistoryError(
            f"expected offsets that rise from 0 to {len(values)}, got {offsets[:3]}…{offsets[-1:]}"
        )
    if len(values) and values.min() < 0:
        raise HistoryError(
            f"expected catalog rows >= 0 in {name}, got {values.min()}; drop unknown items first"
        )
