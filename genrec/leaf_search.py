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
from genrec.kernels import StepKernel, StepRules, step_kernel
from genrec.prefixes import OpenPrefixes, Prefixes, best_per_request, concatenate
from genrec.search_batch import Normalize, SearchBatch, SearchRequest, SearchResult
from genrec.values import mask_of
from index.trie import TokenTrie, ragged_positions
from index.types import BoolArray, Float64Array, Int64Array
from index.walk import Places

_ALL = np.iinfo(np.int32).max  # a beam that keeps every prefix


class LeafSearch(SearchBatch):
    """One batch's search, a decision at a time. The frontier's hidden rows are ``self.hidden``.

    :meth:`run` takes it to its end. A server steps it instead, and between two steps takes finished requests
    out, drops those nobody waits for, and lets others :meth:`join`.
    """

    def __init__(
        self, decoder: Decoder, trie: TokenTrie, requests: Sequence[SearchRequest], normalize: Normalize
    ) -> None:
        super().__init__(decoder, trie, requests, normalize)
        self.room = {
            b: Room(one.caps, mask_of(one.allowed, len(trie)))
            for b, one in enumerate(requests)
            if one.caps is not None
        }
        self.resumed: set[int] = set()  # capped requests whose beam ended with too few items
        self.open = OpenPrefixes([self.best_first[b] or b in self.room for b in range(self.size)])
        self.frontier = self.root()
        self.going = np.ones(self.size, bool)
        """[B] whether a request still has a prefix that could matter; False for good once it has none."""
        request, rank = self.values.candidates()
        if len(rank):
            self.finish(paths_of(self, request, rank), ahead=True)

    def bind(self, requests: Sequence[SearchRequest]) -> None:
        """See :meth:`SearchBatch.bind`."""
        super().bind(requests)
        # An exact answer and a sample are both found by following the best open values to the end.
        self.best_first = np.array(
            [one.exact or one.sample_seed is not None for one in requests], bool
        )  # [B]
        self.looking_ahead = [
            b for b, one in enumerate(requests) if one.look_ahead and one.allowed.bitmap is not None
        ]
        self.kernel: StepKernel | None = None
        if self.values.are_scores and all(one.caps is None for one in requests):
            look_ahead = np.zeros(len(requests), bool)
            look_ahead[self.looking_ahead] = True
            rules = StepRules(
                beam=np.where(self.best_first, _ALL, self.beam),
                # Of ended paths with a share that is not scored yet the k best by the model may not be the best.
                items=np.where(self.values.leaves_a_rest(len(requests)), _ALL, self.k),
                allowed=[one.allowed for one in requests],
                look_ahead=look_ahead & ~self.best_first,
                catalog=self.normalize == "catalog",
            )
            self.kernel = step_kernel(self.trie, rules)

    def run(self) -> list[SearchResult]:
        """Step until no request has a prefix left that could still matter."""
        while self.going.any():
            self.step()
        return self.results(self.open.bound())

    def step(self) -> None:
        """One decision of every request that is still going: one call of the model at most."""
        if not len(self.frontier):
            newest = self.frontier
        elif self.kernel is None:
            newest = self._expand_with_values(self.frontier)
        else:
            newest = self._expand(self.kernel, self.frontier)
        chosen = self._choose(newest)
        self.going = np.bincount(chosen.request, minlength=self.size) > 0
        self.frontier = self._take_up(chosen)

    def join(self, other: LeafSearch) -> None:
        """Take in another search between two steps; its requests come behind these, and it is used up."""
        number = self.size + np.arange(other.size)
        self.frontier = concatenate([self.frontier, other.frontier.renumbered(number)])
        self.hidden = np.concatenate([self.hidden, other.hidden])
        self.going = np.concatenate([self.going, other.going])
        self.states += other.states
        self.slots = np.concatenate([self.slots, other.slots])
        self.expansions = np.concatenate([self.expansions, other.expansions])
        self.model_calls = np.concatenate([self.model_calls, other.model_calls])
        self.finished += other.finished
        self.open.join(other.open)
        self.values.join(other.values, self.size)
        self.room |= {int(number[b]): room for b, room in other.room.items()}
        self.resumed |= {int(number[b]) for b in other.resumed}
        self.bind([*self.requests, *other.requests])

    def keep(self, requests: Int64Array) -> None:
        """Go on with these requests (ascending) only; they are renumbered from 0."""
        number = np.full(self.size, -1)
        number[requests] = np.arange(len(requests))
        rows = number[self.frontier.request] >= 0
        self.frontier, self.hidden = self.frontier.take(rows).renumbered(number), self.hidden[rows]
        self.going = self.going[requests]
        self.states = [self.states[b] for b in requests]
        self.slots, self.expansions = self.slots[requests], self.expansions[requests]
        self.model_calls = self.model_calls[requests]
        self.finished = [self.finished[b] for b in requests]
        self.open.keep(requests)
        self.values.keep(requests)
        self.room = {int(number[b]): room for b, room in self.room.items() if number[b] >= 0}
        self.resumed = {int(number[b]) for b in self.resumed if number[b] >= 0}
        self.bind([self.requests[b] for b in requests])

    def result_now(self, b: int) -> SearchResult:
        """What is known of one request after the last step: its answer, once it is not going any more."""
        bound = self.open.bound()[b]
        of_frontier = self.frontier.of(b).value
        return self.result(b, float(max(bound, of_frontier.max(initial=-np.inf))))

    def _expand(self, kernel: StepKernel, frontier: Prefixes) -> Prefixes:
        """Score all children of the frontier; finish those that are items, return those to choose among.

        Of a beam these are its best; what falls behind is left out here. Of a best-first request all are.
        """
        self.expansions += np.bincount(frontier.request, minlength=self.size)
        edges = kernel.edges(frontier.places.node)
        logits = np.zeros(0, np.float32)
        if len(edges.row):
            logits = self.decoder.edge_logits(self.hidden, edges.row, edges.token)
        normalizer = None
        if self.normalize == "vocabulary":
            normalizer = self.decoder.log_normalizer(self.hidden, frontier.places.depth)
        best = kernel.step(frontier.request, frontier.places, frontier.score, logits, normalizer)
        children = Prefixes(
            frontier.request[best.row],
            Places(best.node, best.end, frontier.places.depth[best.row] + 1),
            best.score,
            best.score,
            frontier.parent[best.row],
        )
        self.finish(children.take(slice(best.prefixes, None)))
        self.open.add_bound(best.bound)
        return children.take(slice(best.prefixes))

    def _expand_with_values(self, frontier: Prefixes) -> Prefixes:
        """:meth:`_expand` for batches in which a request has a prior, caps or a sample."""
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
        order = self._order(candidates, allowed[rest])
        limit = np.where(self.best_first, _ALL, self.beam)
        kept = best_per_request(candidates.request, order, limit)
        kept = kept[order[kept] > -np.inf]
        left_out = np.ones(len(candidates), bool)
        left_out[kept] = False
        self.open.add(candidates.take(left_out))
        return candidates.take(kept)

    def _choose(self, newest: Prefixes) -> Prefixes:
        """The prefixes to take up next: none that can no longer win.

        Values only fall along a path, so a prefix below the k-th finished item is never expanded. A beam goes
        on with its newest prefixes only; a best-first request chooses among all that are still open.
        """
        floors = self._floors(newest.request)[newest.request]
        goes_on = (newest.value >= floors) & ~self.best_first[newest.request]
        beams = newest
        if not goes_on.all():
            self.open.add(newest.take(~goes_on))
            beams = newest.take(goes_on)
        if not self.best_first.any() and not self.room:
            return beams
        chosen = [beams]
        chosen.extend(self._best_open(b) for b in np.flatnonzero(self.best_first & self.going).tolist())
        ended = (b for b in self.room if not self.best_first[b] and b not in beams.request)
        chosen.extend(self._resume(b) for b in ended if self.going[b])
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
        """float64[B]: the least that a prefix must be worth to matter still, for the requests named."""
        floors = np.full(self.size, -np.inf)
        for b in np.unique(request).tolist():
            floors[b] = self._floor(b)
        return floors

    def _floor(self, b: int) -> float:
        """What a prefix must be worth for an item below it to come among the k best found so far."""
        return self.values.open_floor(b, self.finished[b].floor())

    def _best_open(self, b: int) -> Prefixes:
        """What a best-first request takes up next: its best open prefixes, while its budget lasts.

        When the budget ends with fewer than k answers, a beam goes down to the next ones, the deepest first.
        """
        is_full = self.finished[b].floor() > -np.inf
        floor = self._floor(b)
        if b not in self.room:
            self.open.forget(b, floor)
        everything = self.open.of(b)
        matters = everything.value >= floor
        if b in self.room and not is_full:
            worst = self.values.open_floor(b, self.finished[b].best().value.min(initial=np.inf))
            matters &= (everything.value >= worst) | self._has_room(b, everything)
        budget = self.requests[b].max_expansions
        left = np.inf if budget is None else budget - self.expansions[b]
        if left > 0:
            return self._take_back(b, np.where(matters, everything.value, -np.inf), min(self.beam[b], left))
        if is_full or not len(everything):
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
