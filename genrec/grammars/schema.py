"""Schema: fields between literal text, each with a grammar of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, NamedTuple

import numpy as np

from genrec.grammars.base import Automaton, Edges, End, GrammarState, Part, Vocabulary
from index.errors import RequestError


@dataclass(frozen=True, slots=True, init=False)
class Schema:
    """A form to be filled in; its value is a dict of the fields' values.

    ::

        Schema("Mood: {mood}\\nGenre: {genre}", mood=Text(), genre=Choice(["comedy", "drama"]))

    Braces are doubled to stand for themselves. Between two fields there must be some text: it ends the one before.
    A space in front of a field is left to the field where answers bring their own, as white space at the end of what
    a session says is.
    """

    template: str
    fields: dict[str, Part]

    def __init__(self, template: str, **fields: Part) -> None:
        object.__setattr__(self, "template", template)
        object.__setattr__(self, "fields", fields)
        pieces = list(Formatter().parse(template))
        names = [name for _, name, _, _ in pieces if name is not None]
        formatted = [name for _, name, form, conversion in pieces if form or conversion]
        if formatted:
            raise RequestError(
                f"expected fields without a format, such as {{{formatted[0]}}}, got {template!r}"
            )
        if not names or sorted(names) != sorted(fields):
            raise RequestError(
                f"expected a template with each of the fields {sorted(fields)} once, got {template!r}"
            )
        behind = [literal for literal, _, _, _ in pieces][1 : len(names)]
        if not all(behind):
            raise RequestError(f"expected text between any two fields, got {template!r}")

    def compile(self, vocabulary: Vocabulary) -> Form:
        """A whole answer."""
        return self.part(vocabulary, [vocabulary.end])

    def part(self, vocabulary: Vocabulary, ending: Sequence[int]) -> Form:
        """The form before ``ending``."""
        pieces = list(Formatter().parse(self.template))
        texts = [
            literal if name is None else _before_answer(literal, vocabulary) for literal, name, _, _ in pieces
        ]
        literals = [vocabulary.literal(text) if text else [] for text in texts]
        names = [name for _, name, _, _ in pieces if name is not None]
        behind = [*literals[1 : len(names)], [*(literals[-1] if len(pieces) > len(names) else []), *ending]]
        if not all(behind[:-1]):
            raise RequestError(f"expected more than spaces between any two fields, got {self.template!r}")
        parts = {
            name: self.fields[name].part(vocabulary, tokens)
            for name, tokens in zip(names, behind, strict=True)
        }
        return Form(literals[0], parts)


def _before_answer(literal: str, vocabulary: Vocabulary) -> str:
    """The text in front of a field: without the space at its end where answers bring one, or there would be two."""
    mark = literal.rstrip(" ")[-1:] or "a"
    if not literal.endswith(" "):
        return literal
    both = vocabulary.decoded([*vocabulary.literal(mark), *vocabulary.answers([mark])[0]])
    return literal.rstrip(" ") if " " in both else literal


class Filled(NamedTuple):
    """Where a form stands."""

    field: int  # -1 in the text before the first
    inner: GrammarState  # in the field; in the text before the first, its tokens written
    ended: End | None = None  # how the field before ended, where it has just done so


class Form:
    """The automaton of :class:`Schema`.

    Args:
        lead: the text before the first field.
        parts: each field with what stands behind it.
    """

    def __init__(self, lead: Sequence[int], parts: dict[str, Automaton]) -> None:
        self._lead = np.array(lead, np.int64)
        self._names = list(parts)
        self._parts = list(parts.values())
        self._needs = [part.needs for part in self._parts]
        self.start: GrammarState = Filled(-1, 0) if len(lead) else Filled(0, self._parts[0].start)
        self.needs = len(lead) + sum(self._needs)

    def edges(self, state: GrammarState, room: int) -> Edges:
        """What may follow in the field, as long as there is room for the others; see the contract."""
        assert isinstance(state, Filled)
        if state.field < 0:
            assert isinstance(state.inner, int)
            after = state.inner + 1
            behind = Filled(-1, after) if after < len(self._lead) else Filled(0, self._parts[0].start)
            return Edges(self._lead[state.inner : after], lambda _: behind, is_given=True)
        rest = sum(self._needs[state.field + 1 :])

        def next_state(inner: GrammarState) -> GrammarState:
            if not isinstance(inner, End):
                return Filled(state.field, inner)
            following = state.field + 1
            if following == len(self._parts):
                return inner
            return Filled(following, self._parts[following].start, inner)

        return self._parts[state.field].edges(state.inner, room - rest).then(next_state, more=rest)

    def may_stop(self, state: GrammarState) -> bool:
        """In the last field, where that one may."""
        assert isinstance(state, Filled)
        return state.field == len(self._parts) - 1 and self._parts[-1].may_stop(state.inner)

    def read(self, tokens: Sequence[int], states: Sequence[GrammarState]) -> Any:
        """A dict of the fields' values."""
        written: list[list[int]] = [[] for _ in self._parts]
        inside: list[list[GrammarState]] = [[] for _ in self._parts]
        now = self.start
        for token, state in zip(tokens, states, strict=True):
            assert isinstance(now, Filled)
            if now.field >= 0:
                written[now.field].append(token)
                if isinstance(state, Filled):
                    inside[now.field].append(state.inner if state.field == now.field else state.ended)
                else:
                    inside[now.field].append(state)
            now = state
        return {
            name: part.read(*said)
            for name, part, said in zip(
                self._names, self._parts, zip(written, inside, strict=True), strict=True
            )
        }
