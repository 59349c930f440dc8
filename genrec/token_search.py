"""Token-synchronous beam search: every live prefix grows by one token a step, as in Hugging Face's.

It exists for parity. The rule (transformers 5.23, ``GenerationMixin._beam_search`` with ``length_penalty=0``
and ``early_stopping=False``): of a request's best 2K candidates the finished ones count only among the first
K; the best K unfinished ones run on; a request stops when K items are finished and its best running prefix is
not above the worst of them. A prefix inside a forced stretch keeps its slot and competes at every token.
"""

from __future__ import annotations

import numpy as np

from genrec.prefixes import Prefixes, best_per_request
from genrec.search_batch import SearchBatch, SearchResult
from index.types import BoolArray, Float64Array, Int64Array
from index.walk import Children, Places


class TokenSearch(SearchBatch):
    """One batch's search. The frontier is a :class:`Prefixes` whose hidden rows are ``self.hidden``."""

    def run(self) -> list[SearchResult]:
        """Step until every request has stopped."""
        bound = np.full(self.size, -np.inf)
        finished_paths: list[list[float]] = [[] for _ in range(self.size)]
        frontier = self.root()
        while len(frontier):
            candidates, token = self._expand(frontier)
            length = self.trie.path_length(self.walk.start(candidates.places))
            done = candidates.places.depth == length
            wide = best_per_request(candidates.request, candidates.score, 2 * self.beam)
            narrow = best_per_request(candidates.request, candidates.score, self.beam)
            ending = narrow[done[narrow]]
            running = wide[~done[wide]]
            running = running[
                best_per_request(candidates.request[running], candidates.score[running], self.beam)
            ]
            self._finish_paths(candidates.take(ending), finished_paths)
            running = running[
                ~self._stopped(candidates.take(running), finished_paths)[candidates.request[running]]
            ]
            kept = np.union1d(ending, running)
            left_out = np.ones(len(candidates), bool)
            left_out[kept] = False
            np.maximum.at(bound, candidates.request[left_out], candidates.score[left_out])
            chosen = candidates.take(running)
            if not len(chosen):
                break
            self.hidden, slot = self.feed(chosen.request, token[running], chosen.parent)
            frontier = Prefixes(chosen.request, chosen.places, chosen.score, chosen.score, slot)
        return self.results(bound)

    def _expand(self, frontier: Prefixes) -> tuple[Prefixes, Int64Array]:
        """All next tokens of the frontier that lead to an allowed item, and those tokens."""
        self.expansions += np.bincount(frontier.request, minlength=self.size)
        children = self._children(frontier.places)
        score = frontier.score[children.row] + self.edge_scores(self.hidden, frontier.places, children)
        request = frontier.request[children.row]
        start = self.walk.start(children.places)
        live = self.allowed.count(request, start, children.places.end) > 0
        parent = frontier.parent[children.row[live]]
        score = score[live]
        candidates = Prefixes(request[live], children.places.take(live), score, score, parent)
        return candidates, np.asarray(children.token[live], np.int64)

    def _children(self, places: Places) -> Children:
        """As :meth:`TrieWalk.children`, and below a leaf the one next token of its tail."""
        inner = self.walk.children(places)
        tail = np.flatnonzero(self.walk.is_leaf(places))
        at_leaf = places.take(tail)
        token = self.walk.path_slices(self.walk.start(at_leaf), at_leaf.depth, at_leaf.depth + 1)
        row = np.concatenate([inner.row, tail])
        order = np.argsort(row, kind="stable")
        below = Places(
            np.concatenate([inner.places.node, at_leaf.node])[order],
            np.concatenate([inner.places.end, at_leaf.end])[order],
            np.concatenate([inner.places.depth, at_leaf.depth + 1])[order],
        )
        return Children(row[order], np.concatenate([inner.token, token])[order], below)

    def _finish_paths(self, ending: Prefixes, finished_paths: list[list[float]]) -> None:
        self.finish(ending)
        for b, score in zip(ending.request.tolist(), ending.score.tolist(), strict=True):
            finished_paths[b] = sorted([*finished_paths[b], score], reverse=True)[: self.beam[b]]

    def _stopped(self, running: Prefixes, finished_paths: list[list[float]]) -> BoolArray:
        """bool[B]: requests whose K finished paths no running prefix is above."""
        best: Float64Array = np.full(self.size, -np.inf)
        np.maximum.at(best, running.request, running.score)
        worst = [
            paths[-1] if len(paths) == self.beam[b] else -np.inf for b, paths in enumerate(finished_paths)
        ]
        return np.asarray(best <= np.array(worst))
