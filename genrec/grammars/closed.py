"""Closed answers: one of some strings, or one of the catalog's titles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from genrec.grammars.base import Edges, End, GrammarState, Vocabulary
from genrec.grammars.paths import Paths, Place, Span
from index.errors import RequestError
from index.item_filter import Allowed
from index.trie import TokenTrie, build_trie


class ClosedSet(Protocol):
    """A grammar whose answers can be listed; what :class:`~genrec.grammars.distinct.Distinct` takes several of."""

    def paths(self, vocabulary: Vocabulary) -> Paths:
        """The answers as token paths."""

    def value(self, paths: Paths, span: Span) -> Any:
        """What a path says."""


@dataclass(frozen=True, slots=True, init=False)
class Choice:
    """One of some strings; its value is the string.

    ::

        session.pick(Choice(["comedy", "drama"])).value
    """

    options: tuple[str, ...]

    def __init__(self, options: Iterable[str]) -> None:
        object.__setattr__(self, "options", tuple(options))
        if not self.options or not all(option.strip() for option in self.options):
            raise RequestError(
                f"expected at least one option and none that is empty, got {list(self.options)}"
            )

    def compile(self, vocabulary: Vocabulary) -> OneOf:
        """A whole answer."""
        return self.part(vocabulary, [vocabulary.end])

    def part(self, vocabulary: Vocabulary, ending: Sequence[int]) -> OneOf:
        """A choice before ``ending``."""
        return OneOf(self, self.paths(vocabulary), tuple(ending))

    def paths(self, vocabulary: Vocabulary) -> Paths:
        """The options as token paths.

        Raises:
            RequestError: two options are the same to the vocabulary.
        """
        trie = build_trie(vocabulary.answers(self.options))
        paths = Paths(trie, vocabulary.end, Allowed())
        if paths.count < len(self.options):
            raise RequestError(
                f"expected options that the vocabulary can tell apart, got {list(self.options)}; "
                "are two alike, or alike in their first tokens?"
            )
        return paths

    def value(self, paths: Paths, span: Span) -> str:
        """The option."""
        return self.options[paths.rows(span)[0]]


@dataclass(frozen=True, slots=True, eq=False)
class Titles:
    """One item of the catalog, named by its path in a trie of titles (or of any other identifiers).

    Its value is the tuple of catalog rows that the path names and that may be named: one, but where items share a
    title. Items without a title cannot be named.
    """

    trie: TokenTrie
    allowed: Allowed = field(default_factory=Allowed)

    @classmethod
    def of(cls, trie: TokenTrie, rows: Iterable[int]) -> Titles:
        """One of these catalog rows.

        Raises:
            RequestError: one is no row of the catalog.
        """
        wanted = np.fromiter(rows, np.int64)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(trie):
            raise RequestError(
                f"expected catalog rows in 0 .. {len(trie) - 1}, got {wanted.min()} .. {wanted.max()}; "
                "leave out ids that are not in the catalog"
            )
        mask = np.zeros(len(trie), bool)
        mask[trie.rank_of_item[wanted]] = True
        return cls(trie, Allowed.build(mask))

    def compile(self, vocabulary: Vocabulary) -> OneOf:
        """A whole answer."""
        paths = self.paths(vocabulary)
        return OneOf(self, paths, (vocabulary.end,) if paths.terminated else ())

    def part(self, vocabulary: Vocabulary, ending: Sequence[int]) -> OneOf:
        """A title before ``ending``."""
        return OneOf(self, self.paths(vocabulary), tuple(ending))

    def paths(self, vocabulary: Vocabulary) -> Paths:
        """The titles as token paths."""
        return Paths(self.trie, vocabulary.end, self.allowed)

    def value(self, paths: Paths, span: Span) -> tuple[int, ...]:
        """The catalog rows of the items of that title."""
        return paths.rows(span)


class OneOf:
    """The automaton of a closed set: states are places on a path."""

    def __init__(self, grammar: ClosedSet, paths: Paths, ending: tuple[int, ...]) -> None:
        self._grammar = grammar
        self._paths = paths
        self._ending = ending
        self.start: GrammarState = paths.root
        self.needs = paths.shortest(1)[0] + paths.extra(ending)

    def edges(self, state: GrammarState, room: int) -> Edges:
        """The next tokens of the paths; see the contract."""
        assert isinstance(state, Place)
        return self._paths.edges(state, self._ending, self._paths.everything, room).then(
            lambda after: End(after) if isinstance(after, Span) else after
        )

    def may_stop(self, state: GrammarState) -> bool:
        """Never: an answer is whole."""
        return False

    def read(self, tokens: Sequence[int], states: Sequence[GrammarState]) -> Any:
        """What the path says."""
        last = states[-1]
        assert isinstance(last, End)
        assert isinstance(last.said, Span)
        return self._grammar.value(self._paths, last.said)
