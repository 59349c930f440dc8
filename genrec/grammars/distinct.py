"""Distinct: several answers of one closed set, none twice: a ranking, a slate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from genrec.grammars.base import Edges, End, GrammarState, Vocabulary
from genrec.grammars.closed import ClosedSet
from genrec.grammars.paths import Paths, Place, Span
from index.errors import RequestError


@dataclass(frozen=True, slots=True)
class Distinct:
    """``count`` different answers of a closed set, one behind the other; its value is the list of theirs.

    ::

        session.say("Best first:").pick(Distinct(Choice(titles), 5, separator="\\n{number}. "))
    """

    of: ClosedSet
    count: int | None = None  # None: all of them, a ranking
    separator: str = ","
    """What stands between two; ``{number}`` in it is the number of the second."""

    def compile(self, vocabulary: Vocabulary) -> Several:
        """A whole answer."""
        paths = self.of.paths(vocabulary)
        return self._several(vocabulary, paths, (vocabulary.end,) if paths.terminated else ())

    def part(self, vocabulary: Vocabulary, ending: Sequence[int]) -> Several:
        """The answers before ``ending``."""
        return self._several(vocabulary, self.of.paths(vocabulary), tuple(ending))

    def _several(self, vocabulary: Vocabulary, paths: Paths, ending: tuple[int, ...]) -> Several:
        count = paths.count if self.count is None else self.count
        if not 1 <= count <= paths.count:
            raise RequestError(f"expected a count of 1 .. {paths.count}, as many as differ, got {count}")
        if not self.separator:
            raise RequestError(
                "expected a separator, got ''; without one nobody could tell the answers apart"
            )
        endings = [
            tuple(vocabulary.literal(self.separator.replace("{number}", str(number))))
            for number in range(2, count + 1)
        ]
        return Several(self.of, paths, (*endings, ending))


class Listed(NamedTuple):
    """Where a list stands."""

    taken: tuple[Span, ...]  # in their order
    place: Place  # on the path of the next


class Several:
    """The automaton of :class:`Distinct`.

    Args:
        grammar: the closed set.
        paths: its paths.
        endings: what follows each answer.
    """

    def __init__(self, grammar: ClosedSet, paths: Paths, endings: Sequence[tuple[int, ...]]) -> None:
        self._grammar = grammar
        self._paths = paths
        self._endings = endings
        self.start: GrammarState = Listed((), paths.root)
        self.needs = sum(paths.shortest(len(endings))) + self._endings_from(0)

    def edges(self, state: GrammarState, room: int) -> Edges:
        """The next tokens of an answer not taken yet; see the contract.

        Whatever is chosen now, the shortest of the others have to fit behind it: all but one of the shortest that
        are left, the shortest of all left aside for now, are the most that can cost.
        """
        assert isinstance(state, Listed)
        number = len(state.taken)
        rest = sum(self._paths.shortest(len(self._endings) - number, state.taken)[1:])
        rest += self._endings_from(number + 1)
        rule = self._paths.rule(tuple(sorted(state.taken)))

        def behind(after: GrammarState) -> GrammarState:
            if isinstance(after, Place):
                return Listed(state.taken, after)
            assert isinstance(after, Span)
            taken = (*state.taken, after)
            return End(taken) if len(taken) == len(self._endings) else Listed(taken, self._paths.root)

        edges = self._paths.edges(state.place, self._endings[number], rule, room - rest)
        return edges.then(behind, more=rest)

    def may_stop(self, state: GrammarState) -> bool:
        """Never: a list is whole."""
        return False

    def read(self, tokens: Sequence[int], states: Sequence[GrammarState]) -> Any:
        """The values, in their order."""
        last = states[-1]
        assert isinstance(last, End)
        assert isinstance(last.said, tuple)
        return [self._grammar.value(self._paths, span) for span in last.said]

    def _endings_from(self, number: int) -> int:
        """What the endings of the answers from this one on add to their paths."""
        return sum(self._paths.extra(ending) for ending in self._endings[number:])
