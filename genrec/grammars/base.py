"""The contract between a grammar and the search that writes under it. It knows no model and no scores.

Two types, as everywhere: a *grammar* (:class:`Grammar`: ``Text``, ``Choice``, ``Distinct``, ``Schema``, ``Markup``
…) is what a caller says, in his own words; compiled for a vocabulary it is an *automaton* (:class:`Automaton`),
which says of any state which tokens may follow. States are small hashable values; the search interns them to
integers and asks for each state's edges once.

A text may go on in two ways. Along *edges*, each a token with a state of its own behind it: the children of a trie
node, the next token of a literal. Or *freely*: with any token of the vocabulary but a few, all of them leading to
one and the same state. An edge is known by its place, not by its token: two may carry the same token, as where a
title ends before a comma and another goes on with one.

The budget is part of the contract. Every question carries ``room``, the number of tokens that may still be written,
and an answer holds only what can be finished within it. So a text is never cut short in the middle of what it must
say, and a grammar that cannot be finished at all is refused before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

from index.types import BoolArray, Int64Array

GrammarState: TypeAlias = Hashable
"""Where a text stands in its grammar."""


@dataclass(frozen=True, slots=True)
class End:
    """The state of a complete text: nothing follows."""

    said: Hashable = None
    """What its last choices came to; for the one who reads the text."""


class Vocabulary(Protocol):
    """What a grammar needs of a tokenizer; :class:`genrec.vocabulary.TextVocabulary` is one."""

    size: int
    """Tokens it can read and write: 0 .. size - 1."""

    @property
    def end(self) -> int:
        """The terminator of every answer."""

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text as an answer, terminator included."""

    def literal(self, text: str) -> list[int]:
        """Token ids of a text as it stands, to be laid behind other tokens."""

    def prompt(self, text: str) -> Int64Array:
        """int64[P]: token ids of a prompt, with what the model wants around it."""

    def decoded(self, ids: Sequence[int]) -> str:
        """The text of tokens as it stands, white space kept, special tokens left out."""


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """What may follow one state."""

    token: Int64Array  # [E] where each edge goes is asked of `follow`
    follow: Callable[[int], GrammarState]
    """The state behind edge e; ``follow(FREELY)`` is the one behind every free token."""
    allowed: BoolArray | None = None
    """[E] which edges may be taken; None is all. The others are there for the scores alone: a filter, or a
    budget, masks and never changes a normaliser."""
    forbidden: BoolArray | None = None
    """[V] where the text may go on freely: the tokens it may not go on with. None: along the edges only."""
    is_given: bool = False
    """The one edge is no choice of the model's (the literal text of a schema): it is not scored."""
    is_text: bool = False
    """Scored as free text is, over the vocabulary; also where a budget leaves nothing but edges."""
    ample: int = 0
    """With this room or more the answer is the same."""
    open: Int64Array = field(init=False)  # the edges that may be taken

    def __post_init__(self) -> None:
        everything = np.arange(len(self.token))
        object.__setattr__(self, "open", everything if self.allowed is None else everything[self.allowed])

    def then(self, behind: Callable[[GrammarState], GrammarState], more: int = 0) -> Edges:
        """The same edges in a larger grammar: ``behind`` makes its states of these, and it needs ``more`` room."""
        return replace(
            self, follow=lambda edge: behind(self.follow(edge)), ample=self.ample + more if self.ample else 0
        )

    @property
    def only(self) -> int | None:
        """The one edge that must be taken, where there is no choice."""
        return int(self.open[0]) if len(self.open) == 1 and self.forbidden is None else None


FREELY: Final = -1
"""The number of the step that takes no edge but a free token."""


class Automaton(Protocol):
    """A grammar compiled for one vocabulary."""

    @property
    def start(self) -> GrammarState:
        """Where a text begins."""

    @property
    def needs(self) -> int:
        """The fewest tokens a whole text takes."""

    def edges(self, state: GrammarState, room: int) -> Edges:
        """What may follow a state (not an :class:`End`), such that the text can be finished within ``room`` tokens.

        There is always something: the search only reaches states with enough room.
        """

    def may_stop(self, state: GrammarState) -> bool:
        """Whether a text may be cut here when the budget is spent."""

    def read(self, tokens: Sequence[int], states: Sequence[GrammarState]) -> Any:
        """What a text says. ``states[i]`` is the state behind ``tokens[i]``."""


class Grammar(Protocol):
    """What a text may be, as a caller says it."""

    def compile(self, vocabulary: Vocabulary) -> Automaton:
        """The automaton of a whole answer, terminator included.

        Raises:
            RequestError: the grammar contradicts itself, or this vocabulary cannot write it.
        """


class Part(Protocol):
    """A grammar that can stand within another, followed by a text that ends it."""

    def part(self, vocabulary: Vocabulary, ending: Sequence[int]) -> Automaton:
        """The automaton of the part and, behind it, the tokens ``ending`` (at least one)."""
