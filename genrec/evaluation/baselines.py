"""Training-free recommenders that stand in every table beside the model.

Each is fitted on training histories only (what ``hold_out_last`` returns) and ranks the whole catalog for a
case's history. They know histories, item texts and item vectors; they know no model and no metric.

The rules are the same for all: an item in the case's history is never returned, an item for which there is
no evidence is not returned either (shorter lists are padded with -1), and ties stand in item-row order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from scipy import sparse

from index.bm25.base import Bm25
from index.errors import RequestError
from index.histories import Cases, Histories
from index.types import Float32Array, Int32Array, Int64Array

_CHUNK_SCORES = 1 << 22  # dense scores held at a time; with the sort keys beside them about 120 MB


class Baseline(Protocol):
    """A recommender that needs no training run."""

    @property
    def name(self) -> str:
        """The row of the table: ``popularity``, ``bm25-last`` and so on."""

    def rank(self, cases: Cases, k: int) -> Int32Array:
        """int32[C, k]: catalog rows for each case, best first, padded with -1.

        Raises:
            RequestError: ``k`` is below 1, or a history names a row outside the catalog.
        """


class Popularity:
    """Most bought in training, the same list for everybody but for what they have seen."""

    name = "popularity"

    def __init__(self, train: Histories, items: int) -> None:
        self._items = items
        counts = event_counts(train, items)
        order = np.argsort(-counts, kind="stable")
        self._order = order[counts[order] > 0].astype(np.int32)  # best first
        self._place = np.full(items, items, dtype=np.int64)  # where an item stands in that order
        self._place[self._order] = np.arange(len(self._order))

    def rank(self, cases: Cases, k: int) -> Int32Array:
        """The first k of the order that are not in the history; see ``Baseline.rank``."""
        _check(cases, k, self._items)
        ranked = np.full((len(cases), k), -1, dtype=np.int32)
        longest = int(np.diff(cases.history_offsets).max(initial=0))
        width = min(len(self._order), k + longest)  # k unseen ones are always among so many
        for start, stop in _chunks(len(cases), width):
            seen = np.zeros((stop - start, width + 1), dtype=np.bool_)
            case, item = _events(cases, start, stop)
            seen[case, np.minimum(self._place[item], width)] = True  # the last column takes what is beyond
            unseen_first = np.argsort(seen[:, :width], axis=1, kind="stable")[:, :k]
            found = self._order[unseen_first]
            found[np.take_along_axis(seen, unseen_first, axis=1)] = -1
            ranked[start:stop, : found.shape[1]] = found
        return ranked


class Bm25Last:
    """The words of the last item, or of the last few, as a BM25 query (GPT4Rec's simplest query generator).

    Args:
        index: BM25 over the catalog.
        texts: N texts that make the queries: titles, or whatever ``index`` holds.
        last: how many of the newest history items speak.
    """

    def __init__(self, index: Bm25, texts: Sequence[str], last: int = 1) -> None:
        if last < 1:
            raise RequestError(f"expected at least one history item in the query, got last={last}")
        if len(texts) != len(index):
            raise RequestError(f"expected one text per indexed item ({len(index)}), got {len(texts)}")
        self.name = "bm25-last" if last == 1 else f"bm25-last{last}"
        self._index, self._texts, self._last = index, texts, last

    def rank(self, cases: Cases, k: int) -> Int32Array:
        """One search per case; see ``Baseline.rank``."""
        _check(cases, k, len(self._texts))
        histories = [cases.history_of(case) for case in range(len(cases))]
        queries = [" ".join(self._texts[row] for row in history[-self._last :]) for history in histories]
        ranked = np.full((len(cases), k), -1, dtype=np.int32)
        for case, hits in enumerate(self._index.search(queries, k, exclude=histories)):
            ranked[case, : len(hits.rows)] = hits.rows
        return ranked


class TextLast:
    """The nearest texts to the last item's, by cosine.

    Args:
        vectors: float32[N, D], rows of length 1 (or 0: an item without text).
    """

    name = "text-last"

    def __init__(self, vectors: Float32Array) -> None:
        self._vectors = check_vectors(vectors)

    def rank(self, cases: Cases, k: int) -> Int32Array:
        """See ``Baseline.rank``."""
        return rank_dense(cases, k, len(self._vectors), self._scores)

    def _scores(self, cases: Cases) -> Float32Array:
        # With a decay of 0 only the newest event has weight.
        return text_scores(recency_weights(cases, len(self._vectors), decay=0.0), self._vectors)


def recency_weights(cases: Cases, items: int, decay: float, last: int = 20) -> sparse.csr_array:
    """Sparse float32[C, N]: ``decay ** age`` at each of the last events, age 0 the newest; other items 0.

    Args:
        cases: C histories.
        items: N.
        decay: in [0, 1].
        last: events looked at; with a decay of a half the twentieth weighs one part in a million.
    """
    case, item = _events(cases, 0, len(cases))
    age = cases.history_offsets[1:][case] - 1 - np.arange(len(item))
    kept = age < last
    weights = np.power(decay, age[kept]).astype(np.float32)
    return sparse.coo_array((weights, (case[kept], item[kept])), shape=(len(cases), items)).tocsr()


def text_scores(weights: sparse.csr_array, vectors: Float32Array) -> Float32Array:
    """float32[C, N]: the mean cosine of each item with the history's items, weighted by ``weights`` [C, N].

    In [-1, 1] as weights are divided by their sum. A history of no text is evidence of nothing: -inf.
    """
    total = np.asarray(weights.sum(axis=1), dtype=np.float32)[:, None]
    profile: Float32Array = weights @ vectors / np.maximum(total, np.float32(1e-30))  # [C, D]
    scores = profile @ vectors.T
    scores[~profile.any(axis=1)] = -np.inf
    return scores


def rank_dense(cases: Cases, k: int, items: int, score: Callable[[Cases], Float32Array]) -> Int32Array:
    """int32[C, k] from a function that scores every item for a chunk of cases; see ``Baseline.rank``.

    Args:
        cases: C cases, taken a chunk at a time so that memory does not grow with C.
        k: places per case.
        items: N.
        score: a chunk of c cases to float32[c, N], -inf where there is no evidence. The array is written to.
    """
    _check(cases, k, items)
    ranked = np.full((len(cases), k), -1, dtype=np.int32)
    for start, stop in _chunks(len(cases), items):
        scores = score(cases.take(np.arange(start, stop)))
        scores[_events(cases, start, stop)] = -np.inf
        best = top_rows(scores, k)
        ranked[start:stop, : best.shape[1]] = best
    return ranked


def top_rows(scores: Float32Array, k: int) -> Int32Array:
    """int32[C, min(k, N)]: columns of the best scores by (−score, column); -1 where a score is -inf."""
    items = scores.shape[1]
    # One integer that sorts as (score, -column): a float's bits, with negative ones flipped, sort as the
    # float does. Distinct keys make the partial sort exact where scores tie. Adding 0.0 turns -0.0 into 0.0.
    bits = (scores + np.float32(0.0)).view(np.int32).astype(np.int64)
    bits = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    keys = (bits << 32) + np.arange(items - 1, -1, -1)
    if k < items:
        keys = np.partition(keys, items - k, axis=1)[:, items - k :]
    keys = np.sort(keys, axis=1)[:, ::-1]
    columns = (items - 1 - (keys & 0xFFFFFFFF)).astype(np.int32)
    return np.where(np.take_along_axis(scores, columns, axis=1) == -np.inf, np.int32(-1), columns)


def event_counts(train: Histories, items: int) -> Int64Array:
    """int64[N]: training events per item.

    Raises:
        RequestError: the histories name a row outside the catalog.
    """
    if train.num_events and train.items.max() >= items:
        raise RequestError(f"expected training rows in [0, {items}), got {train.items.max()}")
    return np.bincount(train.items, minlength=items)


def check_vectors(vectors: Float32Array) -> Float32Array:
    """The vectors, if they are float32[N, D] with rows of length 1 or 0.

    Raises:
        RequestError: they are not.
    """
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise RequestError(f"expected vectors float32[N, D], got {vectors.dtype}{list(vectors.shape)}")
    lengths = np.linalg.norm(vectors, axis=1)
    off = np.minimum(np.abs(lengths - 1), lengths).max(initial=0.0)
    if not off < 1e-3:
        raise RequestError(
            f"expected vectors of length 1 (or 0), got one off by {off:.3g}; normalise the rows"
        )
    return vectors


def _check(cases: Cases, k: int, items: int) -> None:
    if k < 1:
        raise RequestError(f"expected k >= 1, got {k}")
    if len(cases.history) and cases.history.max() >= items:
        raise RequestError(f"expected history rows in [0, {items}), got {cases.history.max()}")


def _chunks(cases: int, width: int) -> list[tuple[int, int]]:
    """Stretches of cases whose dense scores of that width fit the memory bound."""
    step = max(1, _CHUNK_SCORES // max(width, 1))
    return [(start, min(start + step, cases)) for start in range(0, cases, step)]


def _events(cases: Cases, start: int, stop: int) -> tuple[Int64Array, Int32Array]:
    """(case, item) of every history event of cases start..stop; ``case`` counts from ``start``."""
    offsets = cases.history_offsets[start : stop + 1]
    return np.repeat(np.arange(stop - start), np.diff(offsets)), cases.history[offsets[0] : offsets[-1]]
