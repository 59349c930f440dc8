"""What every search shares: requests and results, the batch, edge scores, finished items.

It knows the walk, the allowance and the decoder's contract; it knows nothing of texts, catalogs or tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from genrec.blend import Blend
from genrec.caps import Caps
from genrec.decoders.base import PROMPT_SLOT, Decoder, Hidden, Prompt
from genrec.finished import Finished, FoundItems
from genrec.prefixes import Prefixes
from genrec.prior import Prior
from genrec.values import Below, Values
from index.item_filter import Allowed, AllowedBatch
from index.trie import TokenTrie, ragged_positions
from index.types import Float32Array, Float64Array, Int64Array, IntArray
from index.walk import Children, Places, TrieWalk

Normalize: TypeAlias = Literal["catalog", "vocabulary"]


@dataclass(frozen=True, slots=True)
class Diversity:
    """How unlike each other the items of an answer are wanted: see :mod:`genrec.diverse_search`."""

    groups: int
    """The beam and the k items are split among so many groups; 1 is the plain search."""
    strength: float = 1.0
    """What it costs a group, in nats (log-probability), to choose a prefix that an earlier group has chosen.
    With 0 every group searches alike; 1 makes what is repeated e times less probable."""


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
    look_ahead: bool = True
    """Under a filter a beam (``leaf`` mode) chooses prefixes by score plus the log share of allowed items
    below them. Neither scores nor certificates nor an exact search change by it."""
    prior: Prior | None = None
    """What is known of the items beside the model (``leaf`` mode; a mixture needs catalog scores)."""
    blend: Blend | None = None
    """Shares of items that are mixed with the model's (``leaf`` mode, no prior beside it, no diversity)."""
    caps: Caps | None = None
    """At most so many items of a label (``leaf`` mode), applied greedily in the final order. Where the beam
    does not find k of them, the search goes on: min(k, what filter and caps admit) items come back."""
    sample_seed: int | None = None
    """Draw k items without replacement from the model's distribution over the allowed items instead of
    ranking them (``leaf`` mode, catalog scores). The same seed draws the same items, whatever the beam; a
    filter takes forbidden items out of the draw. ``beam`` and ``max_expansions`` mean what they mean to an
    exact search."""
    diversity: Diversity | None = None
    """Ask for unlike items (``leaf`` mode). They come in the order of their scores, which stay pure; items left
    out for diversity's sake may score higher, and ``certified`` counts no result behind the first of them."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The items found for one request, best first."""

    ranks: Int64Array  # [k] item ranks in the trie
    scores: Float64Array
    """[k] log-probabilities, a blend's shares mixed in, an additive prior's term on top; falling, ties by catalog
    row. A sample is in the order of the draw."""
    certified: int
    """How many of the first results are proven to be in their true place: nothing the search left out can
    score as high. Relative to the scores this decoder computes."""
    expansions: int
    """Prefixes whose children were scored."""
    model_calls: int
    """Calls of the decoder during this request's batch, the prefill included."""


MOST_SCORES = 1 << 20
"""Attention scores of one call, of one head, padding included. A batch of long titles scores whole tails at once, and
every request is padded to the longest: 64 on Amazon Beauty, 40 items each, took 32 s of CPU and 10 GB in one call
at a time; 13.9 s and 1.2 GB with 1 << 23, 10.9 and 1.0 with 1 << 22, 8.7 and .9 with this."""


class SearchBatch:
    """What both synchronisations share: the batch, the walk, the scores, the finished items."""

    def __init__(
        self, decoder: Decoder, trie: TokenTrie, requests: Sequence[SearchRequest], normalize: Normalize
    ) -> None:
        self.decoder = decoder
        self.walk = TrieWalk(trie)
        self.trie = trie
        self.normalize = normalize
        self.values = Values(
            [request.prior for request in requests],
            [request.sample_seed for request in requests],
            [request.allowed for request in requests],
            len(trie),
            [request.k for request in requests],
            [request.blend for request in requests],
        )
        prefilled = decoder.prefill([request.prompt for request in requests])
        self.states = list(prefilled.states)
        self.prompt_hidden: Hidden = prefilled.hidden  # [B, H]
        self.hidden: Hidden = prefilled.hidden  # one row per prefix of the frontier
        self.slots = np.zeros(len(requests), np.int64)  # [B] tokens fed so far
        self.expansions = np.zeros(len(requests), np.int64)  # [B]
        self.model_calls = np.ones(len(requests), np.int64)  # [B]
        self.finished = [Finished(request.k, trie.item_at_rank, request.caps) for request in requests]
        self.bind(requests)

    def bind(self, requests: Sequence[SearchRequest]) -> None:
        """Set what follows from the requests alone."""
        self.requests = list(requests)
        self.k = np.array([request.k for request in requests], np.int64)  # [B]
        self.beam = np.array([max(request.beam, request.k) for request in requests], np.int64)  # [B]
        self.allowed = AllowedBatch([request.allowed for request in requests], len(self.trie))

    @property
    def size(self) -> int:
        """B, the number of requests."""
        return len(self.k)

    def root(self) -> Prefixes:
        """The first frontier: every request at its prompt."""
        score = self.values.root(self.size)
        value = self.values.of_root(score)
        prompt = np.full(self.size, PROMPT_SLOT)
        return Prefixes(np.arange(self.size), self.walk.root(self.size), score, value, prompt)

    def edge_scores(self, hidden: Hidden, places: Places, children: Children) -> Float64Array:
        """float64[E]: the model's log-probability of each edge below places, at most 0.

        ``hidden`` holds one row per place.
        """
        if not len(children.row):
            return np.zeros(0)
        logits = self.decoder.edge_logits(hidden, children.row, children.token)
        if self.normalize == "catalog":
            return log_softmax_by_row(logits, children.row)
        normalizer = self.decoder.log_normalizer(hidden, places.depth)
        return np.minimum(logits.astype(np.float64) - normalizer[children.row], 0.0)

    def next_slots(self, request: Int64Array) -> Int64Array:
        """int64[R]: the slots that tokens fed next will get; ``request`` is non-decreasing."""
        return self.slots[request] + _place_in_group(request)

    def feed(self, request: Int64Array, token: IntArray, parent: Int64Array) -> tuple[Hidden, Int64Array]:
        """Feed tokens; their hidden rows and their slot numbers, both [R]. ``request`` is non-decreasing."""
        slot = self.next_slots(request)
        row = np.bincount(request, minlength=self.size)
        bounds = np.concatenate([[0], np.cumsum(row)])
        parts = []
        for first, end in _groups(row, self.slots + row):
            rows = slice(bounds[first], bounds[end])
            own = request[rows] - first
            parts.append(self.decoder.extend(self.states[first:end], own, token[rows], parent[rows]))
        hidden = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self.slots += np.bincount(request, minlength=self.size)
        self.model_calls += 1  # of every request: it was there
        return hidden, slot

    def below(self, parents: Prefixes, children: Children) -> Below:
        """Where children of prefixes stand."""
        places = children.places
        request = parents.request[children.row]
        return Below(request, children.row, self.walk.start(places), places.end, places.node)

    def items_of(self, paths: Prefixes) -> tuple[Int64Array, FoundItems]:
        """Requests (non-decreasing) and items of finished paths; m items on one path share its probability."""
        start = self.walk.start(paths.places)
        count = paths.places.end - start
        row = np.repeat(np.arange(len(paths)), count)
        rank = ragged_positions(start, count)
        below = Below(paths.request[row], row, rank, rank + 1, self.trie.nodes + rank)
        score = paths.score[row] + self.values.mix(-np.log(count)[row], below)
        return below.request, FoundItems(rank, *self.values.of_items(score, paths.value, below))

    def finish(self, paths: Prefixes, *, ahead: bool = False) -> None:
        """Record every allowed item of finished paths; ``ahead`` where the search may find them again."""
        if not len(paths):
            return
        request, items = self.items_of(paths)
        keep = np.flatnonzero(self.allowed.count(request, items.rank, items.rank + 1) > 0)
        request, items = request[keep], items.take(keep)
        bounds = np.searchsorted(request, np.arange(self.size + 1))
        for b in np.unique(request).tolist():
            found = items.take(slice(bounds[b], bounds[b + 1]))
            if ahead:
                self.finished[b].add_ahead(found)
            else:
                self.finished[b].add(found)

    def results(self, bound: Float64Array) -> list[SearchResult]:
        """The k best finished items of every request; ``bound`` float64[B] tops whatever was left out."""
        return [self.result(b, float(bound[b])) for b in range(self.size)]

    def result(self, b: int, bound: float) -> SearchResult:
        """The k best finished items of one request."""
        best = self.finished[b].best()
        scores = best.value if self.requests[b].sample_seed is None else best.score
        bound = self.values.open_bound(b, bound)
        certified = int(np.searchsorted(-best.value, -bound, side="left"))
        return SearchResult(best.rank, scores, certified, int(self.expansions[b]), int(self.model_calls[b]))


def _groups(row: IntArray, seen: IntArray) -> Iterator[tuple[int, int]]:
    """Stretches first .. end - 1 of B requests that are fed together: all of them, unless that takes much memory.

    Args:
        row: int[B], tokens to feed.
        seen: int[B], tokens that the last of them sees of its own tree.
    """
    first, most_rows, most_seen = 0, 0, 0
    for b, (rows, sees) in enumerate(zip(row.tolist(), seen.tolist(), strict=True)):
        most_rows, most_seen = max(most_rows, rows), max(most_seen, sees)
        if b > first and (b + 1 - first) * most_rows * most_seen > MOST_SCORES:
            yield first, b
            first, most_rows, most_seen = b, rows, sees
    yield first, len(row)


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


def _place_in_group(group: Int64Array) -> Int64Array:
    """int64[R]: 0, 1, 2 … within each run of equal values of a non-decreasing array."""
    return np.arange(len(group)) - np.searchsorted(group, group)
