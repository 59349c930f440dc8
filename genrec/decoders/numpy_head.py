"""NumpyHead: from hidden rows to logits in numpy, only those asked for, and to their sum over the vocabulary.

The twin of :class:`genrec.decoders.output_head.OutputHead` where torch is not installed. A large head also comes
as a graph, for the sums alone: onnxruntime lays its matrix out for the product once, numpy at every call.
"""

from __future__ import annotations

import numpy as np

from genrec.decoders.onnx_session import Session
from index.types import Float32Array, Int64Array

# Floats that one temporary may take: 32 MB, small enough for the allocator to reuse.
_CHUNK_FLOATS = 2**23
# Gathering a row of the head costs as much as multiplying it with this many hidden rows; as in the torch twin.
_GATHER_COST = 20


class NumpyHead:
    """``hidden @ weight.T + bias``.

    Args:
        weight: float32[V, H], not copied.
        bias: float32[V], or None.
        sums: the head as a graph from hidden rows to :meth:`log_normalizer`, or None where it is small.
    """

    def __init__(self, weight: Float32Array, bias: Float32Array | None, sums: Session | None = None) -> None:
        self.weight = weight
        self._bias = bias
        self._sums = sums

    @property
    def vocabulary(self) -> int:
        """V, the rows of the head."""
        return len(self.weight)

    def edge_logits(self, hidden: Float32Array, row: Int64Array, ids: Int64Array) -> Float32Array:
        """float32[E]: the logit of ``ids[e]`` after hidden row ``row[e]``, computing no others."""
        result = np.empty(len(ids), np.float32)
        step = max(1, _CHUNK_FLOATS // self.weight.shape[1])
        for begin in range(0, len(ids), step):
            chunk = slice(begin, begin + step)
            result[chunk] = self._edge_logits(hidden, row[chunk], ids[chunk])
        return result

    def log_normalizer(self, hidden: Float32Array) -> Float32Array:
        """float32[R]: log of the sum of exp(logit) over the vocabulary."""
        result = np.empty(len(hidden), np.float32)
        step = max(1, _CHUNK_FLOATS // self.vocabulary)
        for begin in range(0, len(hidden), step):
            chunk = slice(begin, begin + step)
            if self._sums is not None:
                (result[chunk],) = self._sums.run({"hidden": hidden[chunk]})
                continue
            logits = self.all_logits(hidden[chunk])
            top = logits.max(1, keepdims=True)
            logits -= top
            result[chunk] = top[:, 0] + np.log(np.exp(logits, out=logits).sum(1))
        return result

    def all_logits(self, hidden: Float32Array) -> Float32Array:
        """float32[R, V]: every logit of every row."""
        logits: Float32Array = hidden @ self.weight.T
        if self._bias is not None:
            logits += self._bias
        return logits

    def _edge_logits(self, hidden: Float32Array, row: Int64Array, ids: Int64Array) -> Float32Array:
        """One dot product per edge, or, where many rows share tokens, one product of all rows and tokens."""
        needed = np.zeros(self.vocabulary, bool)
        needed[ids] = True
        distinct = np.flatnonzero(needed)
        first, end = int(row.min()), int(row.max()) + 1
        hidden = hidden[first:end]
        if len(distinct) * (end - first + _GATHER_COST) > _GATHER_COST * len(ids):
            logits: Float32Array = np.einsum("eh,eh->e", hidden[row - first], self.weight[ids])
        else:
            place = np.empty(self.vocabulary, np.int64)
            place[distinct] = np.arange(len(distinct))
            logits = (hidden @ self.weight[distinct].T)[row - first, place[ids]]
        return logits if self._bias is None else logits + self._bias[ids]
