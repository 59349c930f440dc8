"""Leaf-synchronous beam search: one step is one decision, however many tokens lie between two decisions.

Only branching prefixes take beam slots. When one is taken up, its last token and all forced tokens behind it
go to the decoder in one call; under catalog normalisation those forced tokens have probability one, and an
item is finished the moment its prefix is unique, with no call at all. Under vocabulary normalisation a unique
prefix takes a slot once more, and its whole tail is scored in one parallel pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.decoders.base import Hidden
from genrec.search_batch import SearchBatch, SearchResult, best_per_request
from index.trie import ragged_positions
from index.types import BoolArray, Float64Array, Int64Array, IntArray
from index.walk import Places


@dataclass(frozen=True, slots=True)
class Prefixes:
    """R prefixes known by score but not (yet) taken up: their last token has not been fed."""

    request: Int64Array  # [R] non-decreasing
    places: Places  # [R]
    score: Float64Array  # [R]
    parent: Int64Array  # [R] slot of the token before the last

    def __len__(self) -> int:
        return len(self.request)

    def take(self, index: IntArray | BoolArray | slice) -> Prefixes:
        """The prefixes at ``index``."""
        return Prefixes(self.request[index], self.places.take(index), self.score[index], self.parent[index])


def concatenate(parts: Sequence[Prefixes]) -> Prefixes:
    """Prefixes one after another."""
    if not parts:
        nothing = np.zeros(0, np.int64)
        return Prefixes(nothing, Places(nothing, nothing, nothing), np.zeros(0), nothing)
    places = [part.places for part in parts]
    return Prefixes(
        np.concatenate([part.request for part in parts]),
        Places(
            np.concatenate([place.node for place in places]),
            np.concatenate([place.end for place in places]),
            np.concatenate([place.depth for place in places]),
        ),
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.parent for part in parts]),
    )


class OpenPrefixes:
    """What the search has left out: all of it for exact requests, who may come back to it, its best score
    for the others."""

    def __init__(self, exact: Sequence[bool]) -> None:
        self._bound = np.full(len(exact), -np.inf)
        self._kept: dict[int, list[Prefixes]] = {b: [] for b, wanted in enumerate(exact) if wanted}

    def add(self, prefixes: Prefixes) -> None:
        """Leave prefixes out; ``request`` is non-decreasing."""
        np.maximum.at(self._bound, prefixes.request, prefixes.score)
        for b, kept in self._kept.items():
            kept.append(prefixes.take(slice(*np.searchsorted(prefixes.request, (b, b + 1)))))

    def pop(self, b: int, floor: float, most: int, *, deepest: bool = False) -> Prefixes:
        """Take back the best ``most`` prefixes of an exact request that reach ``floor``.

        ``deepest`` takes the deepest first, and the best among those.
        """
        everything = concatenate(self._kept[b])
        order = everything.score.copy()
        if deepest and len(order):
            order -= (everything.places.depth.max() - everything.places.depth) * (np.ptp(order) + 1)
        best = best_per_request(np.zeros(len(everything), np.int64), order, np.array([most]))
        best = best[everything.score[best] >= floor]
        rest = np.ones(len(everything), bool)
        rest[best] = False
        self._kept[b] = [everything.take(rest)]
        return everything.take(best)

    def bound(self) -> Float64Array:
        """float64[B]: the best score among all that was left out."""
        for b, kept in self._kept.items():
            self._bound[b] = concatenate(kept).score.max(initial=-np.inf)
        return self._bound


class LeafSearch(SearchBatch):
    """One batch's search. The frontier is a :class:`Prefixes` whose hidden rows are ``self.hidden``."""

    def run(self) -> list[SearchResult]:
        """Step until no request has a prefix left that could still matter."""
        frontier = Prefixes(
            np.arange(self.size), self.walk.root(self.size), np.zeros(self.size), np.full(self.size, -1)
        )
        open_prefixes = OpenPrefixes([request.exact for request in self.requests])
        chosen = frontier
        while len(chosen):  # an empty frontier is no end: an exact request may come back to what is open
            chosen = self._choose(self._expand(frontier), open_prefixes)
            frontier = self._take_up(chosen)
        return self.results(open_prefixes.bound())

    def _expand(self, frontier: Prefixes) -> Prefixes:
        """Score all children of the frontier; finish those that are items, return the others."""
        self.expansions += np.bincount(frontier.request, minlength=self.size)
        children = self.walk.children(frontier.places)
        score = frontier.score[children.row] + self.edge_scores(frontier.places, children)
        request = frontier.request[children.row]
        start = self.walk.start(children.places)
        live = self.allowed.count(request, start, children.places.end) > 0
        done = live & self.walk.is_leaf(children.places)
        if self.normalize == "vocabulary":
            done &= self.walk.tail_length(children.places) == 0
        self.finish(request[done], children.places.take(done), score[done])
        rest = live & ~done
        return Prefixes(
            request[rest], children.places.take(rest), score[rest], frontier.parent[children.row[rest]]
        )

    def _choose(self, candidates: Prefixes, open_prefixes: OpenPrefixes) -> Prefixes:
        """The prefixes to take up next: each request's best, none that can no longer win.

        Scores only fall along a path, so a prefix below the k-th finished item is never expanded. A beam
        request chooses among the newest candidates only; an exact one among all that are still open.
        """
        by_beam = ~self.exact[candidates.request]
        newest = candidates.take(by_beam)
        kept = best_per_request(newest.request, newest.score, self.beam)
        kept = kept[newest.score[kept] >= self._floor(newest.request)[newest.request[kept]]]
        left_out = np.ones(len(newest), bool)
        left_out[kept] = False
        open_prefixes.add(newest.take(left_out))
        open_prefixes.add(candidates.take(~by_beam))
        chosen = [newest.take(kept)]
        for b in np.flatnonzero(self.exact).tolist():
            chosen.append(self._go_on(b, open_prefixes))
        return _sorted_by_request(concatenate(chosen))

    def _floor(self, request: Int64Array) -> Float64Array:
        """float64[B]: the score of the k-th best finished item, for the requests named."""
        floor = np.full(self.size, -np.inf)
        for b in np.unique(request):
            floor[b] = self.finished.kth_best(int(b), int(self.k[b]))
        return floor

    def _go_on(self, b: int, open_prefixes: OpenPrefixes) -> Prefixes:
        """What an exact request takes up next: its best open prefixes, while its budget lasts.

        When the budget ends with fewer than k answers, a beam goes down to the next ones.
        """
        floor = self._floor(np.array([b]))[b]
        budget = self.requests[b].max_expansions
        left = np.inf if budget is None else budget - self.expansions[b]
        if left > 0:
            return open_prefixes.pop(b, floor, int(min(self.beam[b], left)))
        return open_prefixes.pop(b, floor, int(self.k[b]) if floor == -np.inf else 0, deepest=True)

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
            self.finish(chosen.request[leaf], chosen.places.take(leaf), score[leaf])
        ahead = ~leaf
        self.hidden = hidden[last[ahead]]
        return Prefixes(chosen.request[ahead], target.take(ahead), score[ahead], slot[last[ahead]])

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


def _sorted_by_request(prefixes: Prefixes) -> Prefixes:
    return prefixes.take(np.argsort(prefixes.request, kind="stable"))
