"""Which items lists show, beside whether they are right: evenness, novelty, and how unlike the items of a list are.

All look at the first ten places of each list, skip padding, and know no recommender.
"""

from __future__ import annotations

import numpy as np

from genrec.evaluation.metrics import CUTOFF
from index.errors import RequestError
from index.histories import Histories
from index.types import BoolArray, Float32Array, Float64Array, Int64Array, IntArray

_CHUNK = 2048  # lists whose vectors are held together: 30 MB at 384 dimensions


def gini(ranked: IntArray, items: int) -> float:
    """The Gini coefficient of how often each of N items is shown; 0 where all are shown alike, 1 - 1/N for one alone.

    Over the whole catalog: an item that nobody is shown counts as shown 0 times. 0 where nothing is shown at all.

    Args:
        ranked: int[C, K], catalog rows, -1 where a list is shorter.
        items: N.

    Raises:
        RequestError: there is no item.
    """
    if items < 1:
        raise RequestError(f"expected a catalog of at least one item, got {items}")
    first = ranked[:, :CUTOFF]
    shown = np.sort(np.bincount(first[(first >= 0) & (first < items)], minlength=items))
    total = int(shown.sum())
    if not total:
        return 0.0
    # Half the relative mean difference of all pairs, written for sorted counts.
    return float((2 * np.arange(1, items + 1) - items - 1) @ shown / (items * total))


def novelty(ranked: IntArray, users_of_item: IntArray, users: int) -> Float64Array:
    """float64[C']: the mean self-information of a list's items in bits, log2(U / users of the item in training).

    How surprising it is that a random user has met the item (Zhou et al., PNAS 2010). An item nobody has met counts
    as one that a single user has met: it has no finite surprise. Empty lists are left out.

    Args:
        ranked: int[C, K], catalog rows, -1 where a list is shorter.
        users_of_item: int[N], distinct training users of every item (:func:`users_by_item`).
        users: U, users with a training event.
    """
    bits = np.log2(max(users, 1) / np.maximum(users_of_item, 1))
    first = ranked[:, :CUTOFF]
    is_item = (first >= 0) & (first < len(bits))
    total = np.where(is_item, bits[np.where(is_item, first, 0)], 0.0).sum(1)
    count = is_item.sum(1)
    surprise: Float64Array = total[count > 0] / count[count > 0]
    return surprise


def distance(ranked: IntArray, vectors: Float32Array) -> Float64Array:
    """float64[C]: the mean cosine distance (1 - cosine) of any two items of a list.

    Intra-list diversity (Ziegler et al., WWW 2005; Vargas and Castells, RecSys 2011) by vectors, where
    :func:`genrec.evaluation.interests.diversity` goes by labels. Items without a vector are left out; a list of
    fewer than two is not diverse.

    Args:
        ranked: int[C, K], catalog rows, -1 where a list is shorter.
        vectors: float32[N, D], rows of length 1 (or 0: an item without a vector).
    """
    first = ranked[:, :CUTOFF]
    has_vector: BoolArray = np.asarray(vectors.any(axis=1))
    apart = np.zeros(len(first))
    for start in range(0, len(first), _CHUNK):
        rows = first[start : start + _CHUNK]
        kept = (rows >= 0) & (rows < len(vectors))
        kept &= has_vector[np.where(kept, rows, 0)]
        listed = np.where(kept[:, :, None], vectors[np.where(kept, rows, 0)], np.float32(0.0))  # [c, 10, D]
        count = kept.sum(1)
        # The squared length of a sum of unit vectors is their number plus twice the cosines of all pairs.
        cosines = np.square(listed.sum(1, dtype=np.float64)).sum(1) - count
        several = count > 1
        pairs = count[several] * (count[several] - 1)
        apart[start : start + _CHUNK][several] = 1.0 - cosines[several] / pairs
    return apart


def users_by_item(train: Histories, items: int) -> Int64Array:
    """int64[N]: distinct users who have met each item in training.

    Raises:
        RequestError: the histories name a row outside the catalog.
    """
    if train.num_events and train.items.max() >= items:
        raise RequestError(f"expected training rows in [0, {items}), got {train.items.max()}")
    user = np.repeat(np.arange(len(train)), train.lengths)
    met = np.unique(user * items + train.items)  # a pair once, however often they met
    return np.bincount(met % items, minlength=items)
