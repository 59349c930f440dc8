"""NgramWalk: one request's steps through an :class:`~index.ngram_trie.NgramTrie`, under what it may get.

It is here that a query may end where a word does, and that nothing is entered below which no allowed item lies. It
knows no model and no scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from index.item_filter import Allowed, AllowedBatch
from index.ngram_trie import NgramTrie
from index.types import BoolArray, Int64Array, IntArray


class NgramPlace(NamedTuple):
    """A place in the trie: a run of tokens that some text holds."""

    node: int
    end: int  # one past the last rank below
    depth: int  # tokens from the root


@dataclass(frozen=True, slots=True, eq=False)
class NgramSteps:
    """The E ways on from a place. Those not allowed are there for a normaliser alone."""

    token: Int64Array  # [E] each once
    allowed: BoolArray  # [E]
    ends: int  # which of them ends the query; -1 where none does
    _nodes: IntArray  # [E] and so on, without what ends the query virtually
    _span_ends: IntArray
    _depth: int

    def behind(self, step: int) -> NgramPlace:
        """The place behind a step that does not end the query."""
        return NgramPlace(int(self._nodes[step]), int(self._span_ends[step]), self._depth + 1)


class NgramWalk:
    """Walks for one request.

    Args:
        ngrams: the trie.
        allowed: occurrences; :meth:`NgramTrie.allowed` makes them.
    """

    def __init__(self, ngrams: NgramTrie, allowed: Allowed | None = None) -> None:
        self._ngrams = ngrams
        allowed = allowed or Allowed()
        self._is_open = allowed.bitmap is None and not len(allowed.excluded)
        self._allowed = AllowedBatch([allowed], len(ngrams))
        self.root = NgramPlace(0, len(ngrams), 0)

    @property
    def is_empty(self) -> bool:
        """Whether there is no query at all."""
        return not self._live(np.zeros(1, np.int64), np.array([len(self._ngrams)]))[0]

    def steps(self, place: NgramPlace) -> NgramSteps:
        """The ways on from a place below which something is allowed: one at least is."""
        trie, end = self._ngrams.trie, self._ngrams.end
        first, stop = int(trie.first_child[place.node]), int(trie.first_child[place.node + 1])
        rank = int(trie.span_start[place.node])
        if first == stop:  # one path remains: its next token
            token = trie.path_tokens[trie.path_start(np.array([rank])) + place.depth].astype(np.int64)
            node, starts, span_ends = np.array([place.node]), np.array([rank]), np.array([place.end])
        else:
            token = trie.token[first:stop].astype(np.int64)
            node, starts = np.arange(first, stop), trie.span_start[first:stop].astype(np.int64)
            span_ends = np.append(starts[1:], place.end)
        allowed = self._live(starts, span_ends)
        at = np.flatnonzero(token == end)
        ends = int(at[0]) if len(at) else -1
        next_word = np.flatnonzero(self._ngrams.starts_word[token])  # in their texts a word ends here
        if len(next_word) and place.depth >= int(self._ngrams.first_end[starts[next_word[0]]]):
            if ends < 0:
                ends, token = len(token), np.append(token, end)
                allowed = np.append(allowed, False)
            allowed[ends] |= bool(allowed[next_word].any())
        return NgramSteps(token, allowed, ends, node, span_ends, place.depth)

    def _live(self, start: IntArray, end: IntArray) -> BoolArray:
        """bool[E]: whether an allowed occurrence lies among ranks ``start .. end - 1``."""
        if self._is_open:
            return np.asarray(end > start)
        live: BoolArray = self._allowed.count(np.zeros(len(start), np.int64), start, end) > 0
        return live
