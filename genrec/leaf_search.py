"""Leaf-synchronous beam search: one step is one decision, however many tokens lie between two decisions.

Only branching prefixes take beam slots. When one is taken up, its last token and all forced tokens behind it
go to the decoder in one call; under catalog normalisation those forced tokens have probability one, and an
item is finished the moment its prefix is unique, with no call at all. Under vocabulary normalisation a unique
prefix takes a slot once more, and its whole tail is scored in one parallel pass.
"""

from __future__ import annotations

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

    def take(self, index: IntArray | BoolArray) -> Prefixes:
        """The prefixes at ``index``."""
        return Prefixes(self.request[index], self.places.take(index), self.score[index], self.parent[index])


class LeafSearch(SearchBatch):
    """One batch's search. The frontier is a :class:`Prefixes` whose hidden rows are ``self.hidden``."""

    def run(self) -> list[SearchResult]:
        """Step until no request has a prefix left that could still matter."""
        bound = np.full(self.size, -np.inf)  # [B] best score among all that was left out
        frontier = Prefixes(
            np.arange(self.size), self.walk.root(self.size), np.zeros(self.size), np.full(self.size, -1)
        )
        while len(frontier):
            candidates = self._expand(frontier)
            chosen = self._choose(candidates)
            left_out = np.ones(len(candidates), bool)
            left_out[chosen] = False
            np.maximum.at(bound, candidates.request[left_out], candidates.score[left_out])
            frontier = self._take_up(candidates.take(chosen))
        return self.results(bound)

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

    def _choose(self, candidates: Prefixes) -> IntArray:
        """Positions of the candidates to take up: each request's best, none that can no longer win.

        Scores only fall along a path, so a prefix below the k-th finished item is dropped unexpanded.
        """
        best = best_per_request(candidates.request, candidates.score, self.beam)
        present = np.unique(candidates.request)
        floor = np.full(self.size, -np.inf)
        floor[present] = [self.finished.kth_best(b, self.k[b]) for b in present]
        return best[candidates.score[best] >= floor[candidates.request[best]]]

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
        total: Float64Array = np.bincount(owner, weights=steps, minlength=len(places))
        return total
