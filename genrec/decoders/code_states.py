"""What a native model remembers of its requests, in numpy: prefixes of codes, whatever runs the matrices.

A prefix is the running sum of its code embeddings, its depth and its place among the model's own paths; feeding a
code is one addition and one look-up. Nothing here knows the model's body, its heads or scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.decoders.base import Items, Prompt
from genrec.decoders.key_values import KeyValues
from genrec.decoders.prompt_reader import cut_in_blocks
from genrec.own_paths import OwnPaths
from index.errors import DecoderError
from index.types import Float32Array, Int64Array, IntArray


@dataclass(frozen=True, slots=True)
class KeptHistory:
    """A history and what the body remembers of it."""

    rows: Int64Array  # [P]
    memory: KeyValues  # of P + 1 positions: the start, then the items

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.rows.nbytes + self.memory.nbytes


class NativeState:
    """One request: its prompt as the heads see it, and the prefixes fed since."""

    __slots__ = ("depth", "kept", "place", "prefix", "projected")

    def __init__(
        self,
        projected: Float32Array,
        prefix: Float32Array,
        depth: Int64Array,
        place: Int64Array,
        kept: KeptHistory | None = None,
    ) -> None:
        self.projected = projected  # [L, F] the body's output after each level's first layer; never written
        self.prefix = prefix  # [S, H] sum of the code embeddings up to each slot
        self.depth = depth  # [S] codes up to each slot
        self.place = place  # [S] place of each slot's prefix among the own paths
        self.kept = kept  # what a longer history can start from; never written

    @property
    def slots(self) -> int:
        """Tokens fed after the prompt."""
        return len(self.depth)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        held = self.projected.nbytes + self.prefix.nbytes + self.depth.nbytes + self.place.nbytes
        return held if self.kept is None else held + self.kept.nbytes

    def fork(self) -> NativeState:
        """An independent copy. Arrays are replaced, never written, so sharing them is safe."""
        return NativeState(self.projected, self.prefix, self.depth, self.place, self.kept)

    def compact(self, live: IntArray) -> None:
        """Keep the slots ``live``, renumbered in their order."""
        self.prefix, self.depth, self.place = self.prefix[live], self.depth[live], self.place[live]


BLOCKS = 5
"""A history too long is cut by a fifth of what the body reads: the next items then find a kept prompt."""


def history_rows(prompt: Prompt, max_items: int, items: int) -> Int64Array:
    """The item rows int64[P] a body reads: at most the last ``max_items`` of a history, cut in blocks.

    Raises:
        DecoderError: the prompt is not one Items segment, or names a row outside 0 .. ``items`` - 1.
    """
    if len(prompt) != 1 or not isinstance(prompt[0], Items):
        kinds = [type(segment).__name__ for segment in prompt]
        raise DecoderError(
            f"expected a prompt of one Items segment, got {kinds}; the native model reads items"
        )
    rows = cut_in_blocks(np.asarray(prompt[0].rows, np.int64), max_items, max(1, max_items // BLOCKS))
    if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= items):
        raise DecoderError(
            f"expected item rows in [0, {items}), got {int(rows.min())} to {int(rows.max())}; "
            "map items to catalog rows first"
        )
    return rows


@dataclass(frozen=True, slots=True)
class FedPrefixes:
    """R prefixes that codes have just been fed to."""

    total: Float32Array  # [R, H] running sum of the code embeddings
    depth: Int64Array  # [R] codes
    place: Int64Array  # [R] among the own paths


class CodeTable:
    """The codes of every level and their embeddings.

    Args:
        code_sizes: codes at each level.
        embedding: [V, H], the embedding of every code, level by level.
        paths: those that have a vector of their own.
    """

    def __init__(self, code_sizes: Sequence[int], embedding: Float32Array, paths: OwnPaths) -> None:
        self.levels = len(code_sizes)
        self.offsets: Int64Array = np.concatenate([[0], np.cumsum(code_sizes)]).astype(np.int64)  # [L + 1]
        self.level_of: Int64Array = np.repeat(np.arange(self.levels), code_sizes)  # [V]
        self.embedding = embedding
        self.paths = paths

    def feed(
        self, states: Sequence[NativeState], request: IntArray, token: IntArray, parent: IntArray
    ) -> FedPrefixes:
        """Add one code to each of R prefixes.

        Raises:
            DecoderError: a token is no code of the level its prefix stands at. No state has changed then.
        """
        fed = self._advance(states, request, token, parent)
        first = np.searchsorted(request, np.arange(len(states) + 1))
        for state, begin, end in zip(states, first[:-1], first[1:], strict=True):
            if begin < end:
                state.prefix = np.concatenate([state.prefix, fed.total[begin:end]])
                state.depth = np.concatenate([state.depth, fed.depth[begin:end]])
                state.place = np.concatenate([state.place, fed.place[begin:end]])
        return fed

    def check_depths(self, depth: IntArray) -> None:
        """Refuse rows that stand behind the last level.

        Raises:
            DecoderError: one does.
        """
        if len(depth) and int(depth.max()) >= self.levels:
            raise DecoderError(
                f"expected depths below {self.levels}, got {int(depth.max())}; "
                "use the index the model was trained on"
            )

    def _advance(
        self, states: Sequence[NativeState], request: IntArray, token: IntArray, parent: IntArray
    ) -> FedPrefixes:
        """Each row's prefix, its own token included."""
        before = np.array([state.slots for state in states], np.int64)
        # One table of all predecessors there are already: row 0 is every request's empty prefix.
        nothing = np.zeros((1, self.embedding.shape[1]), np.float32)
        known_prefix = np.concatenate([nothing, *(state.prefix for state in states)])
        known_depth = np.concatenate([np.zeros(1, np.int64), *(state.depth for state in states)])
        known_place = np.concatenate([np.zeros(1, np.int64), *(state.place for state in states)])
        base = 1 + np.cumsum(before) - before
        in_call = parent >= before[request]
        place = np.where(parent < 0, 0, base[request] + parent)
        place[in_call] = 0
        prefix, depth = known_prefix[place], known_depth[place] + 1
        own_place = self.paths.step(known_place[place], token)
        own = self.embedding[token]
        prefix += own
        # Chains: a row whose predecessor is in this call waits for it; as many rounds as a chain is long.
        caller = np.searchsorted(request, request) + parent - before[request]
        waiting = np.flatnonzero(in_call)
        while len(waiting):
            blocked = np.zeros(len(request), bool)
            blocked[waiting] = True
            free = waiting[~blocked[caller[waiting]]]
            prefix[free] = prefix[caller[free]] + own[free]
            depth[free] = depth[caller[free]] + 1
            own_place[free] = self.paths.step(own_place[caller[free]], token[free])
            waiting = waiting[blocked[caller[waiting]]]
        if len(depth) and int(depth.max()) > self.levels:
            raise DecoderError(
                f"expected nothing after the last code of a path, got {int(depth.max())} codes; "
                "use the index the model was trained on"
            )
        if not np.array_equal(self.level_of[token], depth - 1):
            wrong = int(np.flatnonzero(self.level_of[token] != depth - 1)[0])
            raise DecoderError(
                f"expected a code of level {int(depth[wrong]) - 1}, got token {int(token[wrong])}, "
                f"which is of level {int(self.level_of[token[wrong]])}; feed codes in their order"
            )
        return FedPrefixes(prefix, depth, own_place)
