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
        grows: whether positions will be appended after the first ones; room is then left for them.
    """

    __slots__ = ("_buffer", "_grows", "length")

    def __init__(self, parts: int, heads: int, size: int, *, grows: bool = True) -> None:
        self._buffer: Float32Array = np.empty((parts, heads, 0, size), np.float32)
        self._grows = grows
        self.length = 0

    @property
    def nbytes(self) -> int:
        """Memory held, spare room included."""
        return self._buffer.nbytes

    def view(self) -> Float32Array:
        """float32[parts, heads, length, size], not a copy."""
        return self._buffer[:, :, : self.length]

    def copy(self) -> KeyValues:
        """The same, with memory of its own and no spare room."""
        return self._beginning(self.length, self.length)

    def begun(self, length: int, room: int) -> KeyValues:
        """The first ``length`` positions, with memory of their own and room for so many more."""
        return self._beginning(length, self._capacity(length + room))

    def append(self, new: Sequence[Float32Array], b: int, count: int) -> None:
        """Remember the first ``count`` positions of request ``b``: one float32[B, heads, Q, size] per part."""
        end = self.length + count
        if end > self._buffer.shape[2]:
            self._buffer = self._beginning(self.length, self._capacity(end))._buffer
        for part, values in zip(self._buffer, new, strict=True):
            part[:, self.length : end] = values[b, :, :count]
        self.length = end

    def keep(self, positions: IntArray) -> None:
        """Forget all positions but these, in this order."""
        self._buffer = self._buffer[:, :, positions]
        self.length = len(positions)

    def _capacity(self, positions: int) -> int:
        return positions + max(_SPARE_POSITIONS, positions // 4) if self._grows else positions

    def _beginning(self, length: int, capacity: int) -> KeyValues:
        parts, heads, _, size = self._buffer.shape
        other = KeyValues(parts, heads, size, grows=self._grows)
        other._buffer = np.empty((parts, heads, capacity, size), np.float32)
        other._buffer[:, :, :length] = self._buffer[:, :, :length]
        other.length = length
        return other


def common_length(left: Int64Array, right: Int64Array) -> int:
    """How many numbers two sequences begin with alike."""
    shorter = min(len(left), len(right))
    differs = left[:shorter] != right[:shorter]
    return int(np.argmax(differs)) if differs.any() else shorter
