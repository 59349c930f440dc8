"""How unlike the items of a list are, and how much of a user's interests it covers. It knows no recommender.

Both are measures of GPT4Rec (Li et al. 2023, arXiv 2304.03879), which judges multi-query generation by "the
diversity of retrieved items and the coverage of a user's multi-interests". What an item is about is said by its
labels (categories, brand, genres: :mod:`index.labels`); how we read the two measures is said at each.
"""

from __future__ import annotations

import numpy as np

from index.histories import Cases
from index.labels import Labels
from index.types import BoolArray, Float64Array, Int32Array, Int64Array, IntArray

_CHUNK = (
    64  # cases compared together: 64 lists of 40 items with 8 labels are 6.5 million comparisons at a time
)


def diversity(ranked: IntArray, labels: Labels) -> Float64Array:
    """float64[C]: 1 - the mean Jaccard similarity of the labels of any two items of a list.

    The complement of intra-list similarity (Ziegler et al., WWW 2005). Items without a label are left out; a list
    of fewer than two is not diverse.

    Args:
        ranked: int[C, K], catalog rows, -1 where a list is shorter.
        labels: of the catalog.
    """
    return np.concatenate(
        [np.zeros(0), *(_diversity(ranked[at : at + _CHUNK], labels) for at in range(0, len(ranked), _CHUNK))]
    )


def _diversity(ranked: IntArray, labels: Labels) -> Float64Array:
    table = _labels_at(ranked, labels)  # [c, K, F]
    count = (table >= 0).sum(2)
    mine = np.where(table >= 0, table, -1)[:, :, None, :, None]
    others = np.where(table >= 0, table, -2)[:, None, :, None, :]
    shared = (mine == others).sum((3, 4))  # [c, K, K]
    either = count[:, :, None] + count[:, None, :] - shared
    pair = np.triu(np.ones(shared.shape[1:], bool), 1) & (count > 0)[:, :, None] & (count > 0)[:, None, :]
    similarity = np.where(pair, shared / np.maximum(either, 1), 0.0).sum((1, 2))
    pairs = pair.sum((1, 2))
    return np.where(pairs > 0, 1.0 - similarity / np.maximum(pairs, 1), 0.0)


def interest_coverage(ranked: IntArray, cases: Cases, labels: Labels) -> Float64Array:
    """float64[C']: the share of the labels in a user's history that some item of the list has.

    Users whose history has no label are left out.

    Args:
        ranked: int[C, K], catalog rows, -1 where a list is shorter.
        cases: C histories.
        labels: of the catalog.
    """
    shares = []
    for case in range(len(cases)):
        wanted = _distinct(labels.table[cases.history_of(case)])
        if len(wanted):
            row = ranked[case]
            shares.append(np.isin(wanted, labels.table[row[row >= 0]]).mean())
    return np.array(shares, np.float64)


def _labels_at(ranked: IntArray, labels: Labels) -> Int32Array:
    """int32[c, K, F]: labels of ranked items, -1 where there is none."""
    is_item: BoolArray = ranked >= 0
    return np.where(is_item[:, :, None], labels.table[np.maximum(ranked, 0)], -1).astype(np.int32)


def _distinct(table: Int32Array) -> Int64Array:
    found = np.unique(table)
    return found[found >= 0].astype(np.int64)
