"""A decoder with no weights: every prefix of every prompt has its own reproducible random logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from genrec.decoders.base import PROMPT_SLOT, Items, Prefilled, Prompt, Tokens
from index.types import Float32Array, IntArray


@dataclass
class FakeState:
    """The prompt's seed and, per slot, the tokens from the prompt to it."""

    seed: int
    paths: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def slots(self) -> int:
        return len(self.paths)

    @property
    def nbytes(self) -> int:
        return sum(8 * len(path) for path in self.paths)

    def fork(self) -> FakeState:
        return FakeState(self.seed, list(self.paths))

    def compact(self, live: IntArray) -> None:
        self.paths = [self.paths[i] for i in live]


class FakeDecoder:
    """Logits are drawn from a generator seeded by (decoder seed, prompt, prefix), scaled by ``spread``."""

    def __init__(self, vocabulary: int, seed: int = 0, spread: float = 2.0) -> None:
        self.vocabulary = vocabulary
        self.seed = seed
        self.spread = spread
        self.calls = 0
        self.tokens_fed = 0
        self._rows: list[Float32Array] = []  # logits by hidden id

    def prompt_seed(self, prompt: Prompt) -> int:
        values = [int(v) for part in prompt for v in (part.ids if isinstance(part, Tokens) else part.rows)]
        return hash(tuple(values)) % 2**31

    def logits_after(self, prompt_seed: int, path: Sequence[int]) -> Float32Array:
        """float32[V]: the model itself."""
        rng = np.random.default_rng([self.seed, prompt_seed, *path, len(path)])
        return (self.spread * rng.standard_normal(self.vocabulary)).astype(np.float32)

    def _hidden(self, prompt_seed: int, path: Sequence[int]) -> int:
        self._rows.append(self.logits_after(prompt_seed, path))
        return len(self._rows) - 1

    def prefill(self, prompts: Sequence[Prompt]) -> Prefilled:
        self.calls += 1
        states = [FakeState(self.prompt_seed(prompt)) for prompt in prompts]
        ids = [self._hidden(state.seed, ()) for state in states]
        return Prefilled(list(states), np.array(ids, np.float32)[:, None])

    def extend(
        self, states: Sequence[FakeState], request: IntArray, token: IntArray, parent: IntArray
    ) -> Float32Array:
        assert len(request) == len(token) == len(parent)
        assert (np.diff(request) >= 0).all()
        self.calls += 1
        self.tokens_fed += len(token)
        ids = []
        for r, t, p in zip(request.tolist(), token.tolist(), parent.tolist(), strict=True):
            state = states[r]
            assert PROMPT_SLOT <= p < state.slots
            path = (*state.paths[p], t) if p >= 0 else (t,)
            state.paths.append(path)
            ids.append(self._hidden(state.seed, path))
        return np.array(ids, np.float32).reshape(-1, 1)

    def edge_logits(self, hidden: Float32Array, row: IntArray, token: IntArray) -> Float32Array:
        ids = hidden[:, 0].astype(int)
        return np.array(
            [self._rows[ids[r]][t] for r, t in zip(row.tolist(), token.tolist(), strict=True)], np.float32
        )

    def log_normalizer(self, hidden: Float32Array, depth: IntArray) -> Float32Array:
        assert len(hidden) == len(depth)
        rows = [self._rows[int(i)] for i in hidden[:, 0]]
        return np.array([np.log(np.exp(row.astype(np.float64)).sum()) for row in rows], np.float32)


class FakeTextDecoder(FakeDecoder):
    """The same model, which also gives all logits of a row at once."""

    def logits(self, hidden: Float32Array) -> Float32Array:
        """float32[R, V]."""
        return np.stack([self._rows[int(i)] for i in hidden[:, 0]])


def item_prompt(*rows: int) -> Prompt:
    """A prompt of catalog rows."""
    return (Items(np.array(rows, np.int64)),)
