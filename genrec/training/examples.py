"""User histories as training batches: whole sequences, every position a target, similar lengths together.

Histories are two flat arrays: user u's items are ``items[offsets[u]:offsets[u + 1]]``, oldest first. The
order of an epoch is a function of (seed, epoch) alone, so a resumed run sees the same batches. It knows no
model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from index.errors import TrainingError
from index.types import Int64Array, IntArray

# Windows are sorted by length inside pools of this many batches: on Amazon Beauty (101 batches an epoch) pools
# of 8, 32 and all pad 22 %, 7 % and 1 %. Smaller pools mix users more from epoch to epoch.
POOL_BATCHES = 32


@dataclass(frozen=True, slots=True)
class Histories:
    """The training part of every user's history, checked."""

    offsets: Int64Array  # [U + 1]
    items: Int64Array  # [T] catalog rows


def check_histories(offsets: IntArray, items: IntArray, catalog_size: int) -> Histories:
    """Check the flat arrays and widen them.

    Raises:
        TrainingError: offsets do not describe ``items``, a row is outside the catalog, or nothing is there.
    """
    if offsets.ndim != 1 or len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != len(items):
        raise TrainingError(
            f"expected offsets from 0 to {len(items)}, the number of items, got shape {list(offsets.shape)}; "
            "pass the arrays of one Histories"
        )
    if (np.diff(offsets) < 0).any():
        raise TrainingError("expected rising offsets, got falling ones; pass the arrays of one Histories")
    if not len(items):
        raise TrainingError(
            "expected at least one training event, got none; check the histories and the holdout"
        )
    if int(items.min()) < 0 or int(items.max()) >= catalog_size:
        raise TrainingError(
            f"expected item rows in [0, {catalog_size}), got {int(items.min())} to {int(items.max())}; "
            "use the index the histories were read with"
        )
    return Histories(offsets.astype(np.int64), items.astype(np.int64))


def epoch_batches(
    histories: Histories, max_items: int, batch_targets: int, seed: int, epoch: int
) -> list[Int64Array]:
    """One pass over every event: batches int64[B, P] of item rows, right-padded with -1.

    A sequence longer than ``max_items + 1`` is cut at a random phase, anew every epoch, so that no event is
    always the first of its window. ``batch_targets`` is the number of events per batch, roughly.
    """
    rng = np.random.default_rng([seed, epoch])
    start, length = window_bounds(histories.offsets, max_items + 1, rng)
    order = rng.permutation(len(start))
    pool_size = max(1, round(POOL_BATCHES * batch_targets / length.mean()))
    pool = np.arange(len(order)) // pool_size
    # Up and down in turn, so that neighbours are of similar length across pools too.
    key = np.where(pool % 2 == 0, length[order], -length[order])
    order = order[np.lexsort((key, pool))]
    batch = (np.cumsum(length[order]) - 1) // batch_targets
    cuts = np.flatnonzero(np.diff(batch)) + 1
    batches = np.split(order, cuts)
    return [
        pad(histories.items, start[batches[i]], length[batches[i]]) for i in rng.permutation(len(batches))
    ]


def pad(items: Int64Array, start: Int64Array, length: Int64Array) -> Int64Array:
    """int64[B, P]: the slices ``items[start : start + length]``, right-padded with -1."""
    column = np.arange(int(length.max(initial=0)))
    inside = column < length[:, None]
    return np.where(inside, items[np.where(inside, start[:, None] + column, 0)], -1)


def window_bounds(offsets: Int64Array, size: int, rng: np.random.Generator) -> tuple[Int64Array, Int64Array]:
    """Start and length of windows of at most ``size`` events that cover every event once."""
    begin, total = offsets[:-1], np.diff(offsets)
    phase = np.where(
        total > size, rng.integers(1, size + 1, len(total)), size
    )  # length of a user's first window
    count = 1 + -(-np.maximum(total - phase, 0) // size)
    count[total == 0] = 0
    user = np.repeat(np.arange(len(total)), count)
    nth = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    first = np.where(nth == 0, 0, phase[user] + (nth - 1) * size)
    end = np.minimum(phase[user] + nth * size, total[user])
    return begin[user] + first, end - first
