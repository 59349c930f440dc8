"""The lists of a history prior when items have come and gone: carried over, never learned anew.

What follows what is known of old items only. A new item is found by its text: it gets the list of its neighbours and
stands in the lists of those. Words are counted anew, since how much one says depends on how many items have it.
"""

from __future__ import annotations

import numpy as np

from genrec.history_prior import NEIGHBOURS, HistoryPrior, NeighbourLists
from genrec.item_words import ItemWords
from genrec.text_neighbours import neighbours_of, offsets_of
from index.item_index import ItemIndex
from index.types import Float32Array, Int32Array, Int64Array, IntArray


def carried_over(prior: HistoryPrior, row_of_old: IntArray, index: ItemIndex) -> HistoryPrior:
    """The prior of a changed catalog.

    Args:
        prior: of the catalog before.
        row_of_old: int[N before], the row that each of its items has now; -1 where it is gone.
        index: the changed one.
    """
    items, lists = len(index.catalog), prior.lists
    row_now: Int64Array = np.asarray(row_of_old, np.int64)
    text = np.asarray(index.vectors.text)
    follow = _moved(lists.follow_offsets, lists.follow_rows, row_now, lists.follow_rates)
    near = _moved(lists.near_offsets, lists.near_rows, row_now)
    new = np.setdiff1d(np.arange(items), row_now)
    words = None if prior.words is None else ItemWords.of_texts(index.catalog.texts())
    beside = neighbours_of(text, new, NEIGHBOURS, words)
    owner = np.repeat(new, [len(one) for one in beside])
    other = np.concatenate([*beside, np.zeros(0, np.int32)]).astype(np.int64)
    is_old = np.isin(other, new, invert=True)  # new ones list each other already
    near_owner = np.concatenate([near.owner, owner, other[is_old]])
    near_rows = np.concatenate([near.rows, other, owner[is_old]])
    follow_offsets, order = _grouped(follow.owner, items)
    near_offsets, near_order = _grouped(near_owner, items)
    return HistoryPrior(
        NeighbourLists(
            follow_offsets,
            follow.rows[order].astype(np.int32),
            follow.values[order],
            near_offsets,
            near_rows[near_order].astype(np.int32),
        ),
        text,
        prior.settings,
        words,
    )


class _Moved:
    """The entries of lists whose owner and item are both still there, by their rows of now."""

    def __init__(self, owner: Int64Array, rows: Int64Array, values: Float32Array) -> None:
        kept = (owner >= 0) & (rows >= 0)
        self.owner, self.rows, self.values = owner[kept], rows[kept], values[kept]


def _moved(
    offsets: Int64Array, rows: Int32Array, row_of_old: Int64Array, values: Float32Array | None = None
) -> _Moved:
    owner = np.repeat(row_of_old, np.diff(offsets))
    return _Moved(owner, row_of_old[rows], np.zeros(len(rows), np.float32) if values is None else values)


def _grouped(owner: IntArray, items: int) -> tuple[Int64Array, Int64Array]:
    """Offsets of the owners' lists, and the entries in that order; each list's entries stay in theirs."""
    return offsets_of(np.bincount(owner, minlength=items)), np.argsort(owner, kind="stable")
