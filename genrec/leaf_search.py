"""Leaf-synchronous beam search: one step is one decision, however many tokens lie between two decisions.

Only branching prefixes take beam slots. When one is taken up, its last token and all forced tokens behind it
go to the decoder in one call; under catalog normalisation those forced tokens have probability one, and an
item is finished the moment its prefix is unique, with no call at all. Under vocabulary normalisation a unique
prefix takes a slot once more, and its whole tail is scored in one parallel pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genrec.caps import Room
from genrec.decoders.base import Decoder, Hidden
from genrec.item_scores import paths_of
from genrec.prefixes import OpenPrefixes, Prefixes, best_per_request, concatenate
from genrec.search_batch import Normalize, SearchBatch, SearchRequest, SearchResult
from genrec.values import mask_of
from index.trie import TokenTrie, ragged_positions
from index.types import BoolArray, Float64Array, Int64Array
from index.walk import Places


class LeafSearch(SearchBatch):
    """One batch's search. The frontier is a :class:`Prefixes` whose hidden rows are ``self.hidden``."""

    def __init__(
        self, decoder: Decoder, trie: TokenTrie, requests: Sequence[SearchRequest], normalize: Normalize
    ) -> None:
        super().__init__(decoder, trie, requests, normalize)
        # An exact answer and a sample are both found by following the best open values to the end.
        self.best_first = np.array([one.exact or one.sample_seed is not None for one in requests])  # [B]
        self.room = {
            b: Room(one.caps, mask_of(one.allowed, len(trie)))
            for b, one in enumerate(requests)
            if one.caps is not None
        }
        self.resumed: set[int] = set()  # capped requests whose beam ended with too few items
        self.open = OpenPrefixes([self.best_first[b] or b in self.room for b in range(self.size)])

    def run(self) -> list[SearchResult]:
        """Step until no request has a prefix left that could still matter."""
        request, rank = self.values.candidates()
        if len(rank):
            self.finish(paths_of(self, request, rank), ahead=True)
        frontier = chosen = self.root()
        while len(chosen):  # an empty frontier is no end: some requests may come back to what is open
            chosen = self._choose(*self._expand(frontier))
            frontier = self._take_up(chosen)
        return self.results(self.open.bound())

    def _expand(self, frontier: Prefixes) -> tuple[Prefixes, Float64Array]:
        """Score all children of the frontier; finish those that are items, return the others and their order."""
        self.expansions += np.bincount(frontier.request, minlength=self.size)
        children = self.walk.children(frontier.places)
        below = self.below(frontier, children)
        step = self.values.mix(self.edge_scores(self.hidden, frontier.places, children), below)
        score = frontier.score[children.row] + step
        value = self.values.of(score, frontier.value, below)
        candidates = Prefixes(below.request, children.places, score, value, frontier.parent[children.row])
        allowed = self.allowed.count(below.request, below.start, below.end)
        live = allowed > 0
        done = live & self.walk.is_leaf(children.places)
        if self.normalize == "vocabulary":
            done &= self.walk.tail_length(children.places) == 0
        self.finish(candidates.take(done))
        rest = np.flatnonzero(live & ~done)
        candidates = candidates.take(rest)
        return candidates, self._order(candidates, allowed[rest])

    def _choose(self, candidates: Prefixes, order: Float64Array) -> Prefixes:
        """The prefixes to take up next: each request's best, none that can no longer win.

        Values only fall along a path, so a prefix below the k-th finished item is never expanded. A beam
        chooses among the newest candidates only; a best-first request among all that are still open.
        """
        newest = candidates
        if self.best_first.any():
            by_beam = ~self.best_first[candidates.request]
            self.open.add(candidates.take(~by_beam))
            newest, order = candidates.take(by_beam), order[by_beam]
        kept = best_per_request(newest.request, order, self.beam)
        floors = self._floors(newest.request)[newest.request[kept]]
        kept = kept[(newest.value[kept] >= floors) & (order[kept] > -np.inf)]
        left_out = np.ones(len(newest), bool)
        left_out[kept] = False
        self.open.add(newest.take(left_out))
        beams = newest.take(kept)
        chosen = [beams]
        chosen.extend(self._best_open(b) for b in np.flatnonzero(self.best_first).tolist())
        ended = (b for b in self.room if not self.best_first[b] and b not in beams.request)
        chosen.extend(self._resume(b) for b in ended)
        return concatenate(chosen).sorted_by_request()

    def _order(self, prefixes: Prefixes, allowed: Int64Array) -> Float64Array:
        """float64[R]: what a beam chooses by: value, and under a filter the log share of allowed items below.

        A prefix most of whose items are filtered away has most of its probability there too. The share by
        count (``allowed`` int64[R] of all) is the best guess that costs O(1); see ``benchmarks/look_ahead.py``.
        A beam that came back to fill up an answer under caps takes nothing (-inf) where all labels are full.
        """
        if not self.looking_ahead and not self.resumed:
            return prefixes.value
        order = prefixes.value.copy()
        for b in self.looking_ahead:
            rows = slice(*np.searchsorted(prefixes.request, (b, b + 1)))
            of_b = prefixes.places.take(rows)
            order[rows] += np.log(allowed[rows] / (of_b.end - self.walk.start(of_b)))
        for b in self.resumed:
            rows = slice(*np.searchsorted(prefixes.request, (b, b + 1)))
            order[rows][~self._has_room(b, prefixes.take(rows))] = -np.inf
        return order

    def _floors(self, request: Int64Array) -> Float64Array:
        """float64[B]: the value of the k-th best finished item, for the requests named."""
        floors = np.full(self.size, -np.inf)
        for b in np.unique(request).tolist():
            floors[b] = self.finished[b].floor()
        return floors

    def _best_open(self, b: int) -> Prefixes:
        """What a best-first request takes up next: its best open prefixes, while its budget lasts.

        When the budget ends with fewer than k answers, a beam goes down to the next ones, the deepest first.
        """
        floor = self.finished[b].floor()
        if b not in self.room:
            self.open.forget(b, floor)
        everything = self.open.of(b)
        matters = everything.value >= floor
        if b in self.room and floor == -np.inf:
            worst = self.finished[b].best().value.min(initial=np.inf)
            matters &= (everything.value >= worst) | self._has_room(b, everything)
        budget = self.requests[b].max_expansions
        left = np.inf if budget is None else budget - self.expansions[b]
        if left > 0:
            return self._take_back(b, np.where(matters, everything.value, -np.inf), min(self.beam[b], left))
        if floor > -np.inf or not len(everything):
            return everything.take(slice(0))
        if b in self.room:
            matters = self._has_room(b, everything)
        depth = everything.places.depth
        order = everything.value - (depth.max() - depth) * (np.ptp(everything.value) + 1)
        return self._take_back(b, np.where(matters, order, -np.inf), self.k[b])

    def _resume(self, b: int) -> Prefixes:
        """Where caps left a beam with fewer than k items: the best open prefixes with an item that fits."""
        everything = self.open.of(b)
        if self.finished[b].floor() > -np.inf:
            return everything.take(slice(0))
        self.resumed.add(b)
        order = np.where(self._has_room(b, everything), everything.value, -np.inf)
        return self._take_back(b, order, self.beam[b])

    def _has_room(self, b: int, prefixes: Prefixes) -> BoolArray:
        """bool[R]: prefixes of a capped request with an item below that fits beside the best so far."""
        return self.room[b].below(
            self.finished[b].best().rank, self.walk.start(prefixes.places), prefixes.places.end
        )

    def _take_back(self, b: int, order: Float64Array, most: float) -> Prefixes:
        """The best ``most`` open prefixes of a request by ``order`` float64[R], none at -inf."""
        best = best_per_request(np.zeros(len(order), np.int64), order, np.array([int(most)]))
        return self.open.take_back(b, best[order[best] > -np.inf])

    def _take_up(self, chosen: Prefixes) -> Prefixes:
        """Feed each prefix's last token and the forced tokens behind it; return the new frontier."""
        if not len(chosen):
            return chosen
        leaf = self.walk.is_leaf(chosen.places)
        target = self.walk.forced(chosen.places)
        start = self.walk.start(chosen.places)
        # Tokens depth - 1 (the prefix's own last) .. fed_end - 1 are fed. A tail's last token decides nothing.
        fed_end = np.where(leaf, self.trie.path_length(start) - 1, target.depth)
        count = fed_end - chosen.places.depth + 1
        last = np.cumsum(count) - 1
        request = np.repeat(chosen.request, count)
        token = self.walk.path_slices(start, chosen.places.depth - 1, fed_end)
        before = np.searchsorted(request, request)  # where each row's request begins
        parent = self.slots[request] + np.arange(len(request)) - before - 1
        parent[last - count + 1] = chosen.parent
        hidden, slot = self.feed(request, token, parent)

        score = chosen.score
        if self.normalize == "vocabulary":
            score = score + self._forced_scores(chosen.places, start, count - ~leaf, hidden, last - count + 1)
        value = score if chosen.value is chosen.score else chosen.value + (score - chosen.score)
        fed = Prefixes(chosen.request, target, score, value, slot[last])
        self.finish(fed.take(leaf))
        self.hidden = hidden[last[~leaf]]
        return fed.take(~leaf)

    def _forced_scores(
        self, places: Places, start: Int64Array, count: Int64Array, hidden: Hidden, first_row: Int64Array
    ) -> Float64Array:
        """float64[R]: log-probability of the ``count`` tokens behind each prefix, scored in one pass."""
        row = ragged_positions(first_row, count)
        if not len(row):
            return np.zeros(len(places))
        owner = np.repeat(np.arange(len(places)), count)
        token = self.walk.path_slices(start, places.depth, places.depth + count)
        behind = hidden[row]
        depth = places.depth[owner] + np.arange(len(row)) - np.searchsorted(owner, owner)
        logits = self.decoder.edge_logits(behind, np.arange(len(row)), token)
        steps = np.minimum(logits.astype(np.float64) - self.decoder.log_normalizer(behind, depth), 0.0)
        return np.bincount(owner, weights=steps, minlength=len(places)).astype(np.float64)
