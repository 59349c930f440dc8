"""OutputHead: from hidden rows to logits, only those asked for, and to their sum over the vocabulary.

The matrix product of few rows with a large head is what a step with ``normalize="vocabulary"`` mostly
costs, so this is where it is made cheap. It knows no model body, no trie and no scores.
"""

from __future__ import annotations

import numpy as np
import torch

from index.types import Float32Array, Int64Array

# Floats that one temporary may take: 32 MB, small enough for the allocator to reuse.
_CHUNK_FLOATS = 2**23
# Gathering a row of the head costs as much as multiplying it with this many hidden rows. Measured: one CPU
# thread, hidden 256 and 768, vocabulary 4k and 32k; 20 rows of 256 shared children take 0.1 ms instead of 0.9.
_GATHER_COST = 20
# A head of this many weights is packed. `linear` brings the matrix into its kernel's layout on every call,
# which for few rows costs more than the product. Measured, one thread, 20 rows, hidden 256: 12.1 ms against
# 4.4 packed at vocabulary 32k, 0.80 against 0.44 at 4k; a head of a few thousand weights loses.
_PACKED_FROM = 2**20
# Rows the packed layout is laid out for. From 16 to 256 it makes no difference for 1 to 100 rows.
_PACKED_ROWS = 64


class OutputHead:
    """``hidden @ weight.T + bias``.

    Args:
        weight: [V, H], not copied. On a CPU in float32 the first :meth:`log_normalizer` keeps a second copy
            of a large one, packed for the product.
        bias: [V], or None.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight = weight
        self._bias = bias
        self._packed: torch.Tensor | None = None
        self._packed_version = -1

    @property
    def vocabulary(self) -> int:
        """V, the rows of the head."""
        return len(self.weight)

    def edge_logits(self, hidden: torch.Tensor, row: Int64Array, ids: Int64Array) -> Float32Array:
        """float32[E]: the logit of ``ids[e]`` after hidden row ``row[e]``, computing no others."""
        result = np.empty(len(ids), np.float32)
        step = max(1, _CHUNK_FLOATS // self.weight.shape[1])
        for begin in range(0, len(ids), step):
            chunk = slice(begin, begin + step)
            result[chunk] = numpy_of(self._edge_logits(hidden, row[chunk], ids[chunk]))
        return result

    def log_normalizer(self, hidden: torch.Tensor) -> Float32Array:
        """float32[R]: log of the sum of exp(logit) over the vocabulary."""
        result = np.empty(len(hidden), np.float32)
        step = max(1, _CHUNK_FLOATS // self.vocabulary)
        for begin in range(0, len(hidden), step):
            chunk = slice(begin, begin + step)
            logits = self._many_logits(hidden[chunk]).float()
            # What log_softmax takes off any column, here the first. Its kernel is one pass over the logits;
            # logsumexp takes several: 0.36 ms against 0.66 for 20 rows of 32k.
            result[chunk] = numpy_of(logits[:, 0] - torch.log_softmax(logits, dim=-1)[:, 0])
        return result

    def all_logits(self, hidden: torch.Tensor) -> Float32Array:
        """float32[R, V]: as :meth:`logits`, over the packed matrix where that pays."""
        return numpy_of(self._many_logits(hidden))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[R, V], all of them."""
        return torch.nn.functional.linear(hidden, self.weight, self._bias)

    def _edge_logits(self, hidden: torch.Tensor, row: Int64Array, ids: Int64Array) -> torch.Tensor:
        """One dot product per edge, or, where many rows share tokens, one product of all rows and tokens."""
        needed = np.zeros(self.vocabulary, bool)
        needed[ids] = True
        distinct = np.flatnonzero(needed)
        first, end = int(row.min()), int(row.max()) + 1
        edges = torch.from_numpy(ids).to(hidden.device)
        rows = torch.from_numpy(row - first).to(hidden.device)
        hidden = hidden[first:end]
        if len(distinct) * (end - first + _GATHER_COST) > _GATHER_COST * len(ids):
            logits: torch.Tensor = torch.linalg.vecdot(
                hidden.index_select(0, rows), self.weight.index_select(0, edges)
            )
        else:
            place = np.empty(self.vocabulary, np.int64)
            place[distinct] = np.arange(len(distinct))
            head = self.weight.index_select(0, torch.from_numpy(distinct).to(hidden.device))
            logits = (hidden @ head.T)[rows, torch.from_numpy(place[ids]).to(hidden.device)]
        return logits if self._bias is None else logits + self._bias[edges]

    def _many_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """:meth:`logits` over the packed matrix, where packing pays."""
        if self.weight.numel() < _PACKED_FROM or not self._can_pack():
            return self.logits(hidden)
        # Training changes weights in place, which torch counts.
        version = 0 if self.weight.is_inference() else self.weight._version
        if self._packed is None or self._packed_version != version:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, _PACKED_ROWS)
            self._packed_version = version
        logits: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            hidden, self._packed, self._bias, "none", [], ""
        )
        return logits

    def _can_pack(self) -> bool:
        """These two operators have no public name; a torch built without oneDNN lacks them."""
        return (
            self.weight.device.type == "cpu"
            and self.weight.dtype == torch.float32
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
            and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
            and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        )


def numpy_of(tensor: torch.Tensor) -> Float32Array:
    """The same numbers for numpy; on a CPU in float32 the same memory."""
    array: Float32Array = tensor.float().cpu().numpy()
    return array
