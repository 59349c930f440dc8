"""Planned texts: the codes of an item, then whatever another grammar holds the words to.

What a native model writes begins so (:mod:`genrec.decoders.planned_text`). Held to the codes of the items that a
request may get, every text is about one of them, and may be held to what that one is called; left free, a model may
name codes that no item has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genrec.grammars.base import Automaton, Edges, End, Grammar, GrammarState, Vocabulary
from genrec.vocabulary import TextVocabulary
from index.errors import RequestError
from index.item_filter import Allowed, AllowedBatch
from index.trie import TokenTrie
from index.types import Int64Array
from index.walk import Places, TrieWalk


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A plan, and words behind it; its value is that of the words."""

    words: Grammar
    codes: TokenTrie | None = None
    """Of the catalog: the plan is held to the codes of one of its items. None leaves it free."""
    allowed: Allowed = field(default_factory=Allowed)
    """Which of them, by rank."""
    words_of: Callable[[int], Grammar] | None = None
    """By rank, what the words about an item are held to, where that is not the same for all; then ``words`` is what
    it comes to for all of them together."""

    def compile(self, vocabulary: Vocabulary) -> Automaton:
        """A whole answer.

        Raises:
            RequestError: the vocabulary's answers have no plan, or no item may be planned.
        """
        if not isinstance(vocabulary, TextVocabulary) or not vocabulary.facts.plan:
            raise RequestError(
                "expected a vocabulary whose answers begin with codes, got another; write the words alone"
            )
        return PlannedAutomaton(self, self.words.compile(vocabulary), vocabulary)


def freely(words: Grammar, vocabulary: TextVocabulary) -> Grammar:
    """An answer whose words are held to ``words`` alone, its plan free where the vocabulary's answers have one."""
    return Planned(words) if vocabulary.facts.plan else words


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a plan stands: in the trie of codes, or, where it is free, at a depth alone."""

    node: int
    end: int
    depth: int


@dataclass(frozen=True, slots=True)
class _About:
    """A state of the words about one item."""

    rank: int
    said: GrammarState


class PlannedAutomaton:
    """The automaton of :class:`Planned`. States: places of the plan, then those of the words."""

    def __init__(self, grammar: Planned, words: Automaton, vocabulary: TextVocabulary) -> None:
        self._grammar = grammar
        self._vocabulary = vocabulary
        self._words = words
        self._about: dict[int, Automaton] = {}
        sizes = vocabulary.facts.plan
        self._levels = len(sizes)
        self._first = vocabulary.words
        self._offsets = np.concatenate([[0], np.cumsum(sizes)])
        self._walk = None if grammar.codes is None else TrieWalk(grammar.codes)
        items = 0 if grammar.codes is None else len(grammar.codes)
        self._allowed = AllowedBatch([grammar.allowed], items)
        self.start: GrammarState = _Place(0, items, 0)
        self.needs = self._levels + words.needs
        if grammar.codes is not None and grammar.allowed.is_empty(items):
            raise RequestError("expected at least one item that may be named, got none; widen the filter")

    def edges(self, state: GrammarState, room: int) -> Edges:
        """The codes that may follow, or what the words say; see the contract."""
        if isinstance(state, _About):
            rank = state.rank
            return self._of(rank).edges(state.said, room).then(lambda said: self._about_state(rank, said))
        if not isinstance(state, _Place):
            return self._words.edges(state, room)
        depth = state.depth
        if self._walk is None:
            token = np.arange(self._offsets[depth], self._offsets[depth + 1]) + self._first
            return Edges(token, lambda _: self._behind(0, 0, depth))
        here = Places(np.array([state.node]), np.array([state.end]), np.array([depth]))
        below = self._walk.children(here)
        token, node, end = below.token.astype(np.int64), below.places.node, below.places.end
        start = self._walk.start(below.places)
        if not len(token):  # one path remains: its next code
            start = self._walk.start(here)
            token = self._walk.path_slices(start, here.depth, here.depth + 1).astype(np.int64)
            node, end = here.node, here.end
        live = self._live(start, end)
        return Edges(
            token + self._first,
            lambda edge: self._behind(int(node[edge]), int(end[edge]), depth),
            None if live.all() else live,
        )

    def may_stop(self, state: GrammarState) -> bool:
        """Never in a plan."""
        if isinstance(state, _About):
            return self._of(state.rank).may_stop(state.said)
        return not isinstance(state, _Place) and self._words.may_stop(state)

    def read(self, tokens: Sequence[int], states: Sequence[GrammarState]) -> Any:
        """What the words say."""
        said = [state.said if isinstance(state, _About) else state for state in states[self._levels :]]
        return self._words.read(tokens[self._levels :], said)

    def _behind(self, node: int, end: int, depth: int) -> GrammarState:
        """The state behind a code of a level."""
        if depth + 1 < self._levels:
            return _Place(node, end, depth + 1)
        if self._grammar.words_of is None or self._grammar.codes is None:
            return self._words.start
        rank = int(self._grammar.codes.span_start[node])
        return _About(rank, self._of(rank).start)

    def _about_state(self, rank: int, said: GrammarState) -> GrammarState:
        return said if isinstance(said, End) else _About(rank, said)

    def _of(self, rank: int) -> Automaton:
        """The automaton of the words about an item."""
        assert self._grammar.words_of is not None
        found = self._about.get(rank)
        if found is None:
            found = self._about[rank] = self._grammar.words_of(rank).compile(self._vocabulary)
        return found

    def _live(self, start: Int64Array, end: Int64Array) -> np.ndarray:
        """bool[E]: whether an allowed item lies among ranks ``start .. end - 1``."""
        return np.asarray(self._allowed.count(np.zeros(len(start), np.int64), start, end) > 0)
