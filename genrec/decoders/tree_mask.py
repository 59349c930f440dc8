"""Ragged rows of several requests as one padded batch, and which position sees which. numpy only, no model.

The columns of a mask are the past of each request, left-aligned in the first ``past`` columns (its prompt,
then its slots), and behind them the new rows: row q of every request in column ``past + q``. Padding sees
only itself and is seen by none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genrec.decoders.base import PROMPT_SLOT
from index.errors import DecoderError
from index.types import BoolArray, Int64Array, IntArray


class RaggedRows:
    """R rows of B requests and their places in a [B, Q] batch, left-aligned.

    Args:
        request: int[R], non-decreasing, every number of 0 .. B - 1 at least once.
    """

    def __init__(self, request: IntArray) -> None:
        self.request: Int64Array = np.asarray(request, np.int64)  # [R]
        self.count: Int64Array = np.bincount(self.request)  # [B] rows of each request
        start = np.cumsum(self.count) - self.count
        self.column: Int64Array = np.arange(len(self.request)) - start[self.request]  # [R]
        self.width = int(self.count.max(initial=0))  # Q
        self._borders = start[1:]

    def __len__(self) -> int:
        return len(self.request)

    def pad(self, values: Int64Array) -> Int64Array:
        """int64[B, Q]: one number per row, zero in padding."""
        padded = np.zeros((len(self.count), self.width), np.int64)
        padded[self.request, self.column] = values
        return padded

    def split(self, values: Int64Array) -> list[Int64Array]:
        """One number per row, as one array per request."""
        return np.split(values, self._borders)


def prompt_mask(rows: RaggedRows, known: Int64Array | None = None) -> BoolArray:
    """bool[B, Q, past + Q]: every row sees itself, the earlier rows of its request, and what is known of its prompt.

    ``known`` is int64[B], the positions each request has already, left-aligned in ``past`` columns; none where not
    given.
    """
    occupied = np.arange(rows.width) < rows.count[:, None]  # [B, Q]
    seen: BoolArray = np.tri(rows.width, dtype=bool) & occupied[:, :, None] | np.eye(rows.width, dtype=bool)
    if known is None or not known.any():
        return seen
    before = (np.arange(known.max()) < known[:, None])[:, None] & occupied[:, :, None]  # [B, Q, past]
    return np.concatenate([before, seen], 2)


def tree_mask(
    prompt_length: IntArray, past_parents: Sequence[Int64Array], rows: RaggedRows, parent: Int64Array
) -> tuple[BoolArray, Int64Array]:
    """Let every new token see the prompt, its ancestors and itself.

    Args:
        prompt_length: int[B].
        past_parents: for each request, int[slots]: the parent of every slot it has.
        rows: the new tokens; each gets the next slot of its request.
        parent: int[R], an earlier slot of the request, possibly one of these very rows, or ``PROMPT_SLOT``.

    Returns:
        bool[B, Q, past + Q], and int64[R]: how many ancestors stand between each new token and the prompt.
    """
    slots = np.array([len(parents) for parents in past_parents])
    past = int((prompt_length + slots).max())
    sees = np.zeros((len(slots), rows.width, past + rows.width), bool)
    sees[:, :, past:] = np.eye(rows.width, dtype=bool)
    for b, (length, count) in enumerate(zip(prompt_length, rows.count, strict=True)):
        sees[b, :count, :length] = True

    # All trees as one: slot s of request b is node first[b] + s, and every node knows its column.
    all_slots = slots + rows.count
    first = np.cumsum(all_slots) - all_slots
    node_parent = np.concatenate(
        [part for parts in zip(past_parents, rows.split(parent), strict=True) for part in parts]
    )
    slot = np.arange(len(node_parent)) - np.repeat(first, all_slots)
    is_new = slot >= np.repeat(slots, all_slots)
    column = slot + np.repeat(prompt_length, all_slots)
    column[is_new] = past + rows.column
    node_parent = np.where(node_parent == PROMPT_SLOT, PROMPT_SLOT, node_parent + np.repeat(first, all_slots))

    # Climb from every new token to the prompt, all at once: as many rounds as the deepest is deep.
    depth = np.zeros(len(rows), np.int64)
    row = np.arange(len(rows))
    node = node_parent[is_new]
    while True:
        row, node = row[node != PROMPT_SLOT], node[node != PROMPT_SLOT]
        if not len(row):
            return sees, depth
        sees[rows.request[row], rows.column[row], column[node]] = True
        depth[row] += 1
        node = node_parent[node]


def compacted_parents(parent: Int64Array, live: IntArray) -> Int64Array:
    """int64[S]: the parents of the slots ``live`` among themselves.

    Raises:
        DecoderError: ``live`` is not ascending, names a slot that is not there, or lacks a parent.
    """
    slots = len(parent)
    if len(live) and (live[0] < 0 or live[-1] >= slots or (np.diff(live) <= 0).any()):
        raise DecoderError(f"expected ascending slots below {slots}, got {live.tolist()}")
    renumbered = np.full(slots + 1, -2)  # one past the end is where PROMPT_SLOT lands
    renumbered[PROMPT_SLOT] = PROMPT_SLOT
    renumbered[live] = np.arange(len(live))
    among: Int64Array = renumbered[parent[live]]
    if (among == -2).any():
        orphan = int(live[np.argmax(among == -2)])
        raise DecoderError(
            f"expected live slots to be closed under parents, got slot {orphan} without its parent "
            f"{int(parent[orphan])}; keep the ancestors of every live slot"
        )
    return among


def check_parents(slots: Sequence[int], rows: RaggedRows, parent: Int64Array) -> None:
    """Refuse a parent that is no earlier slot of its request; ``slots`` are those each request has.

    Raises:
        DecoderError: one is not.
    """
    slot = np.array(slots)[rows.request] + rows.column
    bad = (parent < PROMPT_SLOT) | (parent >= slot)
    if bad.any():
        row = int(np.argmax(bad))
        raise DecoderError(
            f"expected the parent of slot {slot[row]} to be an earlier slot of its request, or {PROMPT_SLOT} "
            f"for the prompt, got {parent[row]}"
        )
