"""Item co-occurrence, alone and with text: the strongest training-free baselines we know.

They are fitted on training histories only and follow the rules of ``baselines``. The constants below were
chosen together on the *validation* part of Amazon Beauty 2014 and are not meant to be tuned per data set: a
baseline is a fixed yardstick.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from genrec.evaluation.baselines import check_vectors, event_counts, rank_dense, recency_weights, text_scores
from index.histories import Cases, Histories
from index.types import Float32Array, Int32Array

WINDOW = 20  # events apart that still count as together; 10, 20 and 100 are within noise of each other
BACKWARD = 0.25  # weight of "j came before i" against 1 for "j came after i"; a half costs 2 % of N@10
PRIOR_EVENTS = 10.0  # events without any co-occurrence that every item is taken to have had besides its own
RECENCY = 0.5  # what a history item's say is multiplied by for each event after it
TEXT_WEIGHT = 0.3  # of text against co-occurrence


class Cooccurrence:
    """Items that came soon after the user's latest items in other people's histories.

    ``follows[i, j]`` sums 1/√d over all training events where j came d places after i, and a quarter of that
    where it came d places before. Divided by (events of i + 10) it is a rate per event of i, shrunk towards
    zero where i is rare. A case's score of j is Σ over its history of ½^age · rate[i, j]: at most the sum of
    a few rates, usually well below 1. Items that co-occur with nothing in the history are not returned.

    Args:
        train: training histories.
        items: N.
    """

    name = "cooccurrence"

    def __init__(self, train: Histories, items: int) -> None:
        self._items = items
        events = event_counts(train, items)
        scale = (1.0 / (events + PRIOR_EVENTS)).astype(np.float32)
        self._rate = (sparse.diags_array(scale) @ _follows(train, items)).tocsr()  # [N, N]

    def rank(self, cases: Cases, k: int) -> Int32Array:
        """See ``Baseline.rank``."""
        return rank_dense(cases, k, self._items, self._evident)

    @property
    def rates(self) -> sparse.csr_array:
        """Sparse float32[N, N]: ``rate[i, j]``."""
        return self._rate

    def scores(self, cases: Cases) -> Float32Array:
        """float32[C, N], >= 0, dense: take cases in chunks."""
        weights = recency_weights(cases, self._items, RECENCY)
        scores: Float32Array = (weights @ self._rate).toarray()
        return scores

    def _evident(self, cases: Cases) -> Float32Array:
        scores = self.scores(cases)
        scores[scores == 0] = -np.inf
        return scores


class CooccurrenceText:
    """Co-occurrence plus 0.3 × text similarity.

    Neither part is rescaled per case, on purpose: a history with little co-occurrence behind it has small
    rates, so text decides there, and the reverse. The text part is the ½^age-weighted mean of the cosines
    between the history's items and the candidate.

    Args:
        train: training histories.
        vectors: float32[N, D], text vectors with rows of length 1 (or 0: an item without text).
    """

    name = "cooccurrence+text"

    def __init__(self, train: Histories, vectors: Float32Array) -> None:
        self._vectors = check_vectors(vectors)
        self._cooccurrence = Cooccurrence(train, len(vectors))

    def rank(self, cases: Cases, k: int) -> Int32Array:
        """See ``Baseline.rank``."""
        return rank_dense(cases, k, len(self._vectors), self._scores)

    def _scores(self, cases: Cases) -> Float32Array:
        weights = recency_weights(cases, len(self._vectors), RECENCY)
        text = text_scores(weights, self._vectors)
        together = self._cooccurrence.scores(cases)
        # Where the history has no text, co-occurrence alone is evidence.
        alone = np.where(together > 0, together, np.float32(-np.inf))
        return np.where(np.isfinite(text), together + np.float32(TEXT_WEIGHT) * text, alone)


def _follows(train: Histories, items: int) -> sparse.csr_array:
    """Sparse float32[N, N]; one distance at a time, so memory follows the distinct pairs, not all pairs."""
    user = np.repeat(np.arange(len(train)), train.lengths)
    total = sparse.csr_array((items, items), dtype=np.float32)
    for distance in range(1, min(WINDOW, len(user) - 1) + 1):
        first = np.flatnonzero(user[:-distance] == user[distance:])
        before, after = train.items[first], train.items[first + distance]
        kept = before != after  # bought again: says nothing of other items
        before, after = before[kept], after[kept]
        weight = np.full(len(before), distance**-0.5, dtype=np.float32)
        pairs = sparse.coo_array((weight, (before, after)), shape=(items, items)).tocsr()
        total = total + pairs + BACKWARD * pairs.T.tocsr()
    return total
