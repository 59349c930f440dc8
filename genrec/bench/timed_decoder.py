"""TimedDecoder: any decoder, and what the calls of one search cost it.

The search is measured by wrapping what it calls, not by writing into it, so what is measured is what runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, ParamSpec, TypeAlias, TypeVar

from genrec.decoders.base import Decoder, Hidden, Prefilled, Prompt, State
from index.types import Float32Array, IntArray

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

DecoderPhase: TypeAlias = Literal["prefill", "model", "head"]
DECODER_PHASES: tuple[DecoderPhase, ...] = ("prefill", "model", "head")


@dataclass(slots=True)
class Spent:
    """What the calls of one phase took."""

    wall: float = 0.0  # seconds
    cpu: float = 0.0  # seconds
    calls: int = 0


class TimedDecoder:
    """Implements :class:`genrec.decoders.base.Decoder` around another one; results pass through unchanged.

    ``prefill`` is the phase of that name, ``extend`` is ``model``, ``edge_logits`` and ``log_normalizer`` are
    ``head``.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.restart()

    def restart(self) -> None:
        """Forget what was measured."""
        self.spent = {phase: Spent() for phase in DECODER_PHASES}
        self._states: list[State] = []

    def forget_states(self) -> None:
        """Let go of the states made so far: a batch job must not hold those of every batch."""
        self._states.clear()

    @property
    def state_bytes(self) -> int:
        """Memory of all states made since the last restart, as they are now."""
        return sum(state.nbytes for state in self._states)

    def prefill(self, prompts: Sequence[Prompt]) -> Prefilled:
        """See the contract."""
        prefilled = self._timed("prefill", self.decoder.prefill, prompts)
        self._states += prefilled.states
        return prefilled

    def extend(self, states: Sequence[State], request: IntArray, token: IntArray, parent: IntArray) -> Hidden:
        """See the contract."""
        return self._timed("model", self.decoder.extend, states, request, token, parent)

    def edge_logits(self, hidden: Hidden, row: IntArray, token: IntArray) -> Float32Array:
        """See the contract."""
        return self._timed("head", self.decoder.edge_logits, hidden, row, token)

    def log_normalizer(self, hidden: Hidden, depth: IntArray) -> Float32Array:
        """See the contract."""
        return self._timed("head", self.decoder.log_normalizer, hidden, depth)

    def _timed(
        self,
        phase: DecoderPhase,
        call: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        spent = self.spent[phase]
        cpu, wall = time.process_time(), time.perf_counter()
        result = call(*args, **kwargs)
        spent.wall += time.perf_counter() - wall
        spent.cpu += time.process_time() - cpu
        spent.calls += 1
        return result
