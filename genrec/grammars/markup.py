"""Markup: free text in which every mention is an item of the catalog."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from genrec.grammars.base import FREELY, Edges, End, GrammarState, Vocabulary
from genrec.grammars.paths import NEVER, Paths, Place, Span
from genrec.grammars.words import first_character, forbidden_tokens, text_behind
from index.errors import RequestError
from index.item_filter import Allowed
from index.trie import TokenTrie
from index.types import BoolArray, Int64Array


@dataclass(frozen=True, slots=True)
class Mention:
    """An item named in a text."""

    rows: tuple[int, ...]  # catalog rows; several where items share the title
    title: str
    start: int  # where the title begins in the text
    end: int  # one past its last character


@dataclass(frozen=True, slots=True)
class Marked:
    """A text and its mentions, in their order."""

    text: str
    mentions: tuple[Mention, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Markup:
    """Free text with mentions; its value is a :class:`Marked`.

    ::

        session.pick(Markup(titles, Titles.of(titles, slate).allowed, must_cite=slate, cite_once=True))

    Text flows freely until the opening mark; then only titles can follow, then the closing mark. Free text cannot
    hold the opening mark: no token with its first character can be written there, in whatever piece it comes.
    """

    trie: TokenTrie
    """The catalog's titles, as tokens of the model."""
    allowed: Allowed = field(default_factory=Allowed)
    """The items that may be named."""
    must_cite: Collection[int] = ()
    """Catalog rows; the text does not end before all are named."""
    cite_once: bool = False
    """Name no title twice."""
    opening: str = " ["
    closing: str = "]"

    def compile(self, vocabulary: Vocabulary) -> MarkedText:
        """A whole answer."""
        return self.part(vocabulary, [vocabulary.end])

    def part(self, vocabulary: Vocabulary, ending: Sequence[int]) -> MarkedText:
        """The text before ``ending``."""
        return MarkedText(self, vocabulary, tuple(ending))


class _Free(NamedTuple):
    """In free text."""

    cited: tuple[Span, ...]  # ascending, none twice; kept where it matters
    named: Span | None = None  # the mention that has just ended


class _Opening(NamedTuple):
    """In the opening mark."""

    cited: tuple[Span, ...]
    written: int


class _Naming(NamedTuple):
    """In a mention, closing mark included."""

    cited: tuple[Span, ...]
    place: Place


class _Ending(NamedTuple):
    """In what stands behind."""

    written: int


class MarkedText:
    """The automaton of :class:`Markup`."""

    def __init__(self, grammar: Markup, vocabulary: Vocabulary, ending: tuple[int, ...]) -> None:
        self._grammar = grammar
        self._vocabulary = vocabulary
        self._paths = Paths(grammar.trie, vocabulary.end, grammar.allowed)
        self._ending = np.array(ending, np.int64)
        self._is_whole = list(ending) == [vocabulary.end]
        self._opening = _mark(vocabulary, grammar.opening)
        self._closing = _mark(vocabulary, grammar.closing).tolist()
        stop = "" if self._is_whole else first_character(text_behind(vocabulary, ending))
        self._forbidden: BoolArray = forbidden_tokens(vocabulary, first_character(grammar.opening) + stop)
        self._must = frozenset(self._span(row) for row in grammar.must_cite)
        self._price = len(self._opening) + self._paths.extra(self._closing)  # of a mention beside its path
        self._costs = lru_cache(maxsize=64)(self._costs_now)
        self.start: GrammarState = _Free(())
        self.needs = self._required(()) + self._end_needs

    @property
    def _end_needs(self) -> int:
        return 0 if self._is_whole else len(self._ending)

    def edges(self, state: GrammarState, room: int) -> Edges:
        """Any token that holds no mark, an opening mark, the end; or the next token of a mention."""
        if isinstance(state, _Opening):
            after = state.written + 1
            return self._given(self._opening, state.written, self._opened(state.cited, after))
        if isinstance(state, _Ending):
            after = state.written + 1
            return self._given(self._ending, state.written, self._ended(after))
        if isinstance(state, _Naming):
            return self._name(state, room)
        assert isinstance(state, _Free)
        return self._write_freely(state, room)

    def may_stop(self, state: GrammarState) -> bool:
        """In the free text of a whole answer, once all that must be cited is."""
        return self._is_whole and isinstance(state, _Free) and not self._required(state.cited)

    def read(self, tokens: Sequence[int], states: Sequence[GrammarState]) -> Marked:
        """The text with its mentions."""
        text = ""
        mentions: list[Mention] = []
        free: list[int] = []
        for token, state in zip(tokens, states, strict=True):
            if isinstance(state, _Free) and state.named is None:
                free.append(token)
            elif isinstance(state, _Free):
                text += text_behind(self._vocabulary, free) + self._grammar.opening
                free = []
                assert state.named is not None
                title = text_behind(self._vocabulary, self._paths.tokens(state.named)).strip()
                rows = self._paths.rows(state.named)
                mentions.append(Mention(rows, title, len(text), len(text) + len(title)))
                text += title + self._grammar.closing
        text += text_behind(self._vocabulary, free)
        return _stripped(text, mentions)

    def _write_freely(self, state: _Free, room: int) -> Edges:
        required = self._required(state.cited)
        least = required + self._end_needs
        cheapest = self._cheapest(state.cited)
        may_open = cheapest + self._end_needs <= room
        may_end = not required and len(self._ending) <= room
        ample = max(least, cheapest + self._end_needs if cheapest < NEVER else 0, len(self._ending)) + 1
        opened, ended = self._opened(state.cited, 1), self._ended(1)
        plain = _Free(state.cited)
        return Edges(
            np.array([self._opening[0], self._ending[0]], np.int64),
            lambda edge: plain if edge == FREELY else (opened, ended)[edge],
            allowed=np.array([may_open, may_end]),
            forbidden=self._forbidden if room > least else None,
            is_text=True,
            ample=ample,
        )

    def _name(self, state: _Naming, room: int) -> Edges:
        """The next tokens of titles with which all that must be cited still fits into the room."""
        rule = self._paths.rule(self._taken(state.cited))
        longest = self._grammar.trie.longest_path + self._paths.extra(self._closing)
        most = longest + self._required(state.cited) + self._end_needs
        cost = None if room >= most else self._costs(state.cited)
        edges = self._paths.edges(state.place, self._closing, rule, room, cost)
        return edges.then(lambda after: self._named(state.cited, after), more=most - edges.ample)

    def _named(self, cited: tuple[Span, ...], after: GrammarState) -> GrammarState:
        if isinstance(after, Place):
            return _Naming(cited, after)
        assert isinstance(after, Span)
        if self._grammar.cite_once or after in self._must:
            cited = tuple(sorted({*cited, after}))
        return _Free(cited, after)

    def _required(self, cited: tuple[Span, ...]) -> int:
        """Tokens of all mentions that are still owed."""
        return sum(self._paths.length(span) + self._price for span in self._must.difference(cited))

    def _cheapest(self, cited: tuple[Span, ...]) -> int:
        """The fewest tokens of one more mention and of all that is owed; NEVER where there is nothing to name."""
        required = self._required(cited)
        if required:
            return required  # one of those that are owed
        shortest = self._paths.shortest(1, self._taken(cited))
        return shortest[0] + self._price if shortest else NEVER

    def _costs_now(self, cited: tuple[Span, ...]) -> Int64Array:
        """int64[N]: tokens of each mention, its opening mark left out, and of all that is owed behind it."""
        extra = self._paths.extra(self._closing)
        behind = self._required(cited) + self._end_needs
        costs = self._paths.rule(self._taken(cited)).lengths + extra + behind
        for span in self._must.difference(cited):
            costs[span.first : span.end] -= self._paths.length(span) + self._price
        return costs

    def _taken(self, cited: tuple[Span, ...]) -> tuple[Span, ...]:
        return cited if self._grammar.cite_once else ()

    def _span(self, row: int) -> Span:
        span = self._paths.span_of_row(row)
        if row not in self._paths.rows(span):
            raise RequestError(
                f"expected items to cite among those that may be named, got row {row}, which the filter forbids "
                "or which has no title"
            )
        return span

    def _given(self, tokens: Int64Array, place: int, after: GrammarState) -> Edges:
        return Edges(tokens[place : place + 1], lambda _: after, is_given=True)

    def _opened(self, cited: tuple[Span, ...], written: int) -> GrammarState:
        return _Naming(cited, self._paths.root) if written == len(self._opening) else _Opening(cited, written)

    def _ended(self, written: int) -> GrammarState:
        return End() if written == len(self._ending) else _Ending(written)


def _mark(vocabulary: Vocabulary, mark: str) -> Int64Array:
    """int64: the tokens of a mark.

    Raises:
        RequestError: the vocabulary cannot write it, or its first character is none of ASCII's.
    """
    ids = vocabulary.literal(mark)
    if not first_character(mark).isascii() or not mark.strip() or text_behind(vocabulary, ids) != mark:
        raise RequestError(
            f"expected a mark that begins with an ASCII character and that the vocabulary can write, got {mark!r}"
        )
    return np.array(ids, np.int64)


def _stripped(text: str, mentions: Sequence[Mention]) -> Marked:
    """Without white space around the text."""
    gone = len(text) - len(text.lstrip())
    moved = (Mention(one.rows, one.title, one.start - gone, one.end - gone) for one in mentions)
    return Marked(text.strip(), tuple(moved))
