"""Machine: an automaton at work, its states as integers and their edges asked for once."""

from __future__ import annotations

from genrec.grammars.base import Automaton, Edges, End, GrammarState

CUT = -1
"""The number of ``End()``. All numbers below zero are those of complete texts."""

_AMPLE = -1  # stands for any room that is ample


class Machine:
    """Interns the states of one automaton for the time of a search."""

    def __init__(self, automaton: Automaton) -> None:
        self.automaton = automaton
        self._states: list[GrammarState] = []
        self._ends: list[GrammarState] = [End()]
        self._number: dict[GrammarState, int] = {End(): CUT}
        self._edges: dict[tuple[int, int], Edges] = {}  # by state and room
        self.start = self.number(automaton.start)

    def number(self, state: GrammarState) -> int:
        """The number of a state."""
        found = self._number.get(state)
        if found is None:
            states = self._ends if isinstance(state, End) else self._states
            states.append(state)
            found = self._number[state] = -len(states) if isinstance(state, End) else len(states) - 1
        return found

    def state(self, number: int) -> GrammarState:
        """The state of a number."""
        return self._ends[-number - 1] if number < 0 else self._states[number]

    def edges(self, number: int, room: int) -> Edges:
        """The edges of a state; see :meth:`genrec.grammars.base.Automaton.edges`."""
        known = self._edges.get((number, _AMPLE))
        if known is not None and room >= known.ample:
            return known
        known = self._edges.get((number, room))
        if known is None:
            known = self.automaton.edges(self._states[number], room)
            assert len(known.open) or known.forbidden is not None, "the grammar has no way on"
            self._edges[number, _AMPLE if room >= known.ample else room] = known
        return known

    def follow(self, edges: Edges, edge: int) -> int:
        """The number of the state behind an edge, or behind a free token."""
        return self.number(edges.follow(edge))

    def may_stop(self, number: int) -> bool:
        """Whether a text may be cut there."""
        return number < 0 or self.automaton.may_stop(self._states[number])
