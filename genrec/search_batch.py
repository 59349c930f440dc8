"""What every search shares: requests and results, the batch, edge scores, finished items.

It knows the walk, the allowance and the decoder's contract; it knows nothing of texts, catalogs or tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from genrec.decoders.base import Decoder, Hidden, Prompt
from index.item_filter import Allowed, AllowedBatch
from index.trie import TokenTrie, ragged_positions
from index.types import Float32Array, Float64Array, Int64Array, IntArray
from index.walk import Children, Places, TrieWalk

Normalize: TypeAlias = Literal["catalog", "vocabulary"]


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What one user asks of the search."""

    prompt: Prompt
    k: int = 10
    """Items wanted; fewer come back only where fewer are allowed (``token`` mode may also lose some)."""
    beam: int = 20
    """Prefixes kept per step; at least ``k`` are kept."""
    allowed: Allowed = field(default_factory=Allowed)
    exact: bool = False
    """Go on until the best k are proven (``leaf`` mode). ``beam`` is then the number of prefixes taken up
    together: a smaller one proves with fewer expansions, a larger one with fewer model calls."""
    max_expansions: int | None = None
    """Budget of an exact search; when it ends, the best items found so far come back, certified as far as
    they are. None is no limit."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The items found for one request, best first."""

    ranks: Int64Array  # [k] item ranks in the trie
    scores: Float64Array  # [k] log-probabilities, falling; ties by catalog row
    certified: int
    """How many of the first results are proven to be in their true place: nothing the search left out can
    score as high. Relative to the scores this decoder computes."""
    expansions: int
    """Prefixes whose children were scored."""
    model_calls: int
    """Calls of the decoder during this request's batch, the prefill included."""


class SearchBatch:
    """What both synchronisations share: the batch, the walk, the scores, the finished items."""

    def __init__(
        self, decoder: Decoder, trie: TokenTrie, requests: Sequence[SearchRequest], normalize: Normalize
    ) -> None:
        self.decoder = decoder
        self.walk = TrieWalk(trie)
        self.trie = trie
        self.normalize = normalize
        self.requests = requests
        self.exact = np.array([request.exact for request in requests])  # [B]
        self.k = np.array([request.k for request in requests])  # [B]
        self.beam = np.array([max(request.beam, request.k) for request in requests])  # [B]
        self.allowed = AllowedBatch([request.allowed for request in requests], len(trie))
        prefilled = decoder.prefill([request.prompt for request in requests])
        self.states = prefilled.states
        self.hidden: Hidden = prefilled.hidden  # one row per prefix of the frontier
        self.slots = np.zeros(len(requests), np.int64)  # [B] tokens fed so far
        self.expansions = np.zeros(len(requests), np.int64)  # [B]
        self.model_calls = 1
        self.finished = Finished(len(requests))

    @property
    def size(self) -> int:
        """B, the number of requests."""
        return len(self.k)

    def edge_scores(self, places: Places, children: Children) -> Float64Array:
        """float64[E]: log-probability of each edge below the frontier, at most 0."""
        if not len(children.row):
            return np.zeros(0)
        logits = self.decoder.edge_logits(self.hidden, children.row, children.token)
        if self.normalize == "catalog":
            return log_softmax_by_row(logits, children.row)
        normalizer = self.decoder.log_normalizer(self.hidden, places.depth)
        return np.minimum(logits.astype(np.float64) - normalizer[children.row], 0.0)

    def feed(self, request: Int64Array, token: IntArray, parent: Int64Array) -> tuple[Hidden, Int64Array]:
        """Feed tokens; their hidden rows and their slot numbers, both [R]. ``request`` is non-decreasing."""
        slot = self.slots[request] + _place_in_group(request)
        hidden = self.decoder.extend(self.states, request, token, parent)
        self.slots += np.bincount(request, minlength=self.size)
        self.model_calls += 1
        return hidden, slot

    def finish(self, request: Int64Array, places: Places, score: Float64Array) -> None:
        """Record every allowed item below finished places; m items on one path share its probability."""
        if not len(request):
            return
        start = self.walk.start(places)
        count = places.end - start
        rank = ragged_positions(start, count)
        request, score = np.repeat(request, count), np.repeat(score - np.log(count), count)
        keep = self.allowed.count(request, rank, rank + 1) > 0
        self.finished.add(request[keep], rank[keep], score[keep])

    def results(self, bound: Float64Array) -> list[SearchResult]:
        """The k best finished items of every request; ``bound`` float64[B] tops whatever was left out."""
        results = []
        for b in range(self.size):
            rank, score = self.finished.of(b)
            row = self.trie.item_at_rank[rank]
            best = np.lexsort((row, -score))[: self.k[b]]
            scores = score[best]
            certified = int(np.searchsorted(-scores, -bound[b], side="left"))
            results.append(
                SearchResult(rank[best], scores, certified, int(self.expansions[b]), self.model_calls)
            )
        return results


class Finished:
    """Finished items of B requests: only ever the best k of each need to stay."""

    def __init__(self, requests: int) -> None:
        self._rank: list[list[Int64Array]] = [[] for _ in range(requests)]
        self._score: list[list[Float64Array]] = [[] for _ in range(requests)]

    def add(self, request: Int64Array, rank: Int64Array, score: Float64Array) -> None:
        """Append items; ``request`` is non-decreasing."""
        present = np.unique(request)
        bounds = np.searchsorted(request, np.append(present, len(self._rank)))
        for b, low, high in zip(present, bounds[:-1], bounds[1:], strict=True):
            self._rank[b].append(rank[low:high])
            self._score[b].append(score[low:high])

    def of(self, request: int) -> tuple[Int64Array, Float64Array]:
        """Ranks and scores of one request, in the order they came."""
        return (
            np.concatenate(self._rank[request] or [np.zeros(0, np.int64)]),
            np.concatenate(self._score[request] or [np.zeros(0)]),
        )

    def kth_best(self, request: int, k: int) -> float:
        """Score of the k-th best item, -inf where fewer are finished."""
        _, score = self.of(request)
        if len(score) < k:
            return -np.inf
        self._keep_ties_of_best(request, k)
        return float(-np.partition(-score, k - 1)[k - 1])

    def _keep_ties_of_best(self, request: int, k: int) -> None:
        """Forget what can no longer be among the best k; equal scores stay, their order is by row."""
        rank, score = self.of(request)
        if len(score) <= 4 * k:
            return
        keep = score >= -np.partition(-score, k - 1)[k - 1]
        self._rank[request], self._score[request] = [rank[keep]], [score[keep]]


def log_softmax_by_row(logits: Float32Array, row: Int64Array) -> Float64Array:
    """float64[E]: log-softmax within each run of equal ``row`` (int[E], non-decreasing)."""
    wide = logits.astype(np.float64)
    is_first = np.ones(len(row), bool)
    is_first[1:] = row[1:] != row[:-1]
    first = np.flatnonzero(is_first)
    run = np.cumsum(is_first) - 1
    wide -= np.maximum.reduceat(wide, first)[run]
    wide -= np.log(np.add.reduceat(np.exp(wide), first))[run]
    return np.minimum(wide, 0.0)


def best_per_request(request: Int64Array, score: Float64Array, limit: Int64Array) -> IntArray:
    """Positions of each request's best ``limit[b]`` rows, ascending; ties go to the earlier row.

    ``request`` is int[R], non-decreasing.
    """
    kept = []
    bounds = np.searchsorted(request, np.arange(len(limit) + 1))
    for low, high, most in zip(bounds[:-1], bounds[1:], limit, strict=True):
        if high - low <= most or most == 0:
            kept.append(np.arange(low, high if most else low))
            continue
        part = score[low:high]
        threshold = np.partition(part, len(part) - most)[len(part) - most]
        above = part > threshold
        ties = np.flatnonzero(part == threshold)[: most - int(above.sum())]
        above[ties] = True
        kept.append(low + np.flatnonzero(above))
    return np.concatenate(kept or [np.zeros(0, np.int64)])


def _place_in_group(group: Int64Array) -> Int64Array:
    """int64[R]: 0, 1, 2 … within each run of equal values of a non-decreasing array."""
    return np.arange(len(group)) - np.searchsorted(group, group)
