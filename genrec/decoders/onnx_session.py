"""Running an exported body with onnxruntime: arrays in, arrays out. No torch, no tokens, no trees, no heads.

Measured (SERVING): threads are set explicitly, since onnxruntime counts the host's cores and not those a
process may use; spinning is off, since a waiting thread that spins takes the core of a neighbour; IO binding
gains nothing on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genrec.decoders.body_shape import BodyShape
from genrec.decoders.key_values import KeyValues
from genrec.decoders.tree_mask import RaggedRows, prompt_mask
from index.errors import IndexFormatError, require
from index.types import BoolArray, Float32Array, Int64Array

_MASKED = np.finfo(np.float32).min
# Prompts are sorted by length and run together up to so many positions, padding included.
_GROUP_POSITIONS = 2048


class Session:
    """One graph, ready to run.

    Args:
        path: the ``.onnx`` file.
        threads: CPU threads of one call.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        IndexFormatError: the file is missing or is no graph this onnxruntime can run.
    """

    def __init__(self, path: Path, threads: int) -> None:
        runtime: Any = require("onnxruntime", extra="serve", purpose="Running an exported model")
        if not path.is_file():
            raise IndexFormatError(f"expected the file {path}, got none; export the bundle again")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; they are raised besides
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own that share no base but this
            raise IndexFormatError(
                f"expected a graph that onnxruntime {runtime.__version__} can run in {path}, got: {error}; "
                "export the bundle again"
            ) from error

    def run(self, inputs: dict[str, Float32Array | Int64Array]) -> list[Float32Array]:
        """All outputs, in the order of the graph."""
        outputs: list[Float32Array] = self._session.run(None, inputs)
        return outputs


class BodySession:
    """A body graph of :mod:`genrec.decoders.body_graph` over the keys and values of B requests."""

    def __init__(self, path: Path, threads: int, shape: BodyShape) -> None:
        self._session = Session(path, threads)
        self._shape = shape
        self._past = [f"past_{kind}_{number}" for number in range(shape.layers) for kind in ("key", "value")]

    def memory(self, *, grows: bool) -> KeyValues:
        """What a new request remembers: nothing. ``grows`` where positions will follow those of the prompt."""
        shape = self._shape
        return KeyValues(2 * shape.layers, shape.key_heads, shape.head_size, grows=grows)

    def prefill(
        self,
        embedded: Sequence[Float32Array],
        memories: Sequence[KeyValues],
        first: Int64Array | None = None,
    ) -> Float32Array:
        """float32[B, H], the hidden row of every prompt's last position.

        Args:
            embedded: for each of B prompts float32[n, H], n >= 1: the positions its memory does not hold yet.
            memories: B of them; they are appended to.
            first: int64[B], the number of each first position; they count on from the memory where not given.
        """
        count = np.array([len(vectors) for vectors in embedded], np.int64)
        hidden = np.empty((len(count), self._shape.hidden_size), np.float32)
        order = np.argsort(count, kind="stable")
        for group in _groups(count[order]):
            chosen = order[group]
            rows = RaggedRows(np.repeat(np.arange(len(chosen)), count[chosen]))
            known = np.array([memories[b].length for b in chosen])
            vectors = np.zeros((len(chosen), rows.width, self._shape.hidden_size), np.float32)
            for place, b in enumerate(chosen.tolist()):
                vectors[place, : count[b]] = embedded[b]
            begin = known if first is None else first[chosen]
            position = rows.pad(begin[rows.request] + rows.column)
            hidden[chosen] = self.run(
                vectors,
                position,
                prompt_mask(rows, known),
                [memories[b] for b in chosen],
                rows,
                (count[chosen] - 1)[:, None],
            )[:, 0]
        return hidden

    def run(
        self,
        embedded: Float32Array,
        position: Int64Array,
        sees: BoolArray,
        memories: Sequence[KeyValues],
        rows: RaggedRows,
        wanted: Int64Array,
    ) -> Float32Array:
        """Run new positions behind what each request remembers, and remember them.

        Args:
            embedded: float32[B, Q, H], left-aligned.
            position: int64[B, Q].
            sees: bool[B, Q, past + Q], past being the longest memory.
            memories: B of them; the rows that are no padding are appended.
            rows: which places of [B, Q] are rows.
            wanted: int64[B, W], the places whose hidden row is returned.

        Returns:
            float32[B, W, H].
        """
        inputs: dict[str, Float32Array | Int64Array] = {
            "embedded": embedded,
            "position": position,
            "mask": np.where(sees, np.float32(0), _MASKED)[:, None],
            "wanted": wanted,
        }
        inputs.update(zip(self._past, padded_past(memories), strict=True))
        *new, hidden = self._session.run(inputs)
        for b, (memory, count) in enumerate(zip(memories, rows.count.tolist(), strict=True)):
            memory.append(new, b, count)
        return hidden


def _groups(count: Int64Array) -> Iterator[slice]:
    """Stretches of ascending int64[B] whose padded size is at most ``_GROUP_POSITIONS``, or of one prompt."""
    first = 0
    for end in range(1, len(count) + 1):
        if end == len(count) or count[end] * (end + 1 - first) > _GROUP_POSITIONS:
            yield slice(first, end)
            first = end


def padded_past(memories: Sequence[KeyValues]) -> Float32Array:
    """float32[2 x layers, B, Hkv, past, D]: what is remembered, left-aligned. Padding is zero, since a masked
    column still meets the softmax's weight of zero, and zero times what happens to be in memory may be no number."""
    if len(memories) == 1:
        return np.ascontiguousarray(memories[0].view())[:, None]
    past = max(memory.length for memory in memories)
    parts, heads, _, size = memories[0].view().shape
    padded = np.zeros((parts, len(memories), heads, past, size), np.float32)
    for b, memory in enumerate(memories):
        padded[:, b, :, : memory.length] = memory.view()
    return padded
