"""The keys and values of one request in numpy: one buffer for all layers, with room to grow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.types import Float32Array, Int64Array, IntArray

# As for the torch states: a search of 20 beams over 4 codes feeds 60 tokens and grows no buffer.
_SPARE_POSITIONS = 64


class KeyValues:
    """Keys and values of every position so far.

    Args:
        parts: 2 x layers: keys and values of layer 0, of layer 1, …
        heads: key heads.
        size: of one head.
    """

    __slots__ = ("_buffer", "length")

    def __init__(self, parts: int, heads: int, size: int) -> None:
        self._buffer: Float32Array = np.empty((parts, heads, 0, size), np.float32)
        self.length = 0

    @property
    def nbytes(self) -> int:
        """Memory held, spare room included."""
        return self._buffer.nbytes

    def view(self) -> Float32Array:
        """float32[parts, heads, length, size], not a copy."""
        return self._buffer[:, :, : self.length]

    def copy(self, length: int | None = None) -> KeyValues:
        """The first ``length`` positions (all where not given), with memory of their own and no spare room."""
        parts, heads, _, size = self._buffer.shape
        other = KeyValues(parts, heads, size)
        other.length = self.length if length is None else length
        other._buffer = self._buffer[:, :, : other.length].copy()
        return other

    def append(self, new: Sequence[Float32Array], b: int, count: int) -> None:
        """Remember the first ``count`` positions of request ``b``: one float32[B, heads, Q, size] per part."""
        end = self.length + count
        if end > self._buffer.shape[2]:
            parts, heads, _, size = self._buffer.shape
            grown = np.empty((parts, heads, end + max(_SPARE_POSITIONS, end // 4), size), np.float32)
            grown[:, :, : self.length] = self.view()
            self._buffer = grown
        for part, values in zip(self._buffer, new, strict=True):
            part[:, self.length : end] = values[b, :, :count]
        self.length = end

    def keep(self, positions: IntArray) -> None:
        """Forget all positions but these, in this order."""
        self._buffer = self._buffer[:, :, positions]
        self.length = len(positions)


def common_length(left: Int64Array, right: Int64Array) -> int:
    """How many numbers two sequences begin with alike."""
    shorter = min(len(left), len(right))
    differs = left[:shorter] != right[:shorter]
    return int(np.argmax(differs)) if differs.any() else shorter
