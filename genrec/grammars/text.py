"""Free text: any token may follow any other, until the text ends or its budget does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.grammars.base import FREELY, Edges, End, GrammarState, Vocabulary
from genrec.grammars.words import first_character, forbidden_tokens, text_behind
from index.errors import RequestError
from index.types import BoolArray


@dataclass(frozen=True, slots=True)
class Text:
    """Free text; its value is a string.

    As a whole answer it ends in the vocabulary's terminator or is cut by the budget. Within another grammar
    it ends where the text behind it begins, and cannot contain that text's first character.
    """

    max_tokens: int | None = None
    """Most tokens, without what ends it; None leaves it to the budget of the whole."""
    without: str = ""
    """Characters it may not contain, such as ``"\\n"`` for one line."""

    def compile(self, vocabulary: Vocabulary) -> FreeText:
        """A whole answer."""
        return self.part(vocabulary, [vocabulary.end])

    def part(self, vocabulary: Vocabulary, ending: Sequence[int]) -> FreeText:
        """A stretch of free text before ``ending``."""
        if self.max_tokens is not None and self.max_tokens < 0:
            raise RequestError(f"expected max_tokens >= 0 or None, got {self.max_tokens}")
        is_whole = list(ending) == [vocabulary.end]
        stop = "" if is_whole else first_character(text_behind(vocabulary, ending))
        forbidden = forbidden_tokens(vocabulary, self.without + stop)
        return FreeText(vocabulary, tuple(ending), forbidden, self.max_tokens, is_whole)


class FreeText:
    """The automaton of :class:`Text`. States: tokens written (0 where nobody counts), or ``("end", tokens of the
    ending)``."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        ending: tuple[int, ...],
        forbidden: BoolArray,
        max_tokens: int | None,
        can_be_cut: bool,
    ) -> None:
        self._vocabulary = vocabulary
        self._ending = np.array(ending, np.int64)
        self._forbidden = forbidden
        self._max_tokens = max_tokens
        self._can_be_cut = can_be_cut
        self.start: GrammarState = 0
        self.needs = 0 if can_be_cut else len(ending)

    def edges(self, state: GrammarState, room: int) -> Edges:
        """Any token, or the first of the ending; see the contract."""
        if isinstance(state, tuple):
            return Edges(
                self._ending[state[1] : state[1] + 1], lambda _: self._ended(state[1] + 1), is_given=True
            )
        assert isinstance(state, int)
        ample = 1 + self.needs
        is_full = state == self._max_tokens or room < ample
        after = state if self._max_tokens is None else state + 1
        return Edges(
            self._ending[:1],
            lambda edge: after if edge == FREELY else self._ended(1),
            forbidden=None if is_full else self._forbidden,
            is_text=True,
            ample=ample,
        )

    def may_stop(self, state: GrammarState) -> bool:
        """Anywhere, where it is the whole answer."""
        return self._can_be_cut

    def read(self, tokens: Sequence[int], states: Sequence[GrammarState]) -> Any:
        """The text, without what ends it."""
        free = [token for token, state in zip(tokens, states, strict=True) if isinstance(state, int)]
        return text_behind(self._vocabulary, free).strip()

    def _ended(self, count: int) -> GrammarState:
        return End() if count == len(self._ending) else ("end", count)
