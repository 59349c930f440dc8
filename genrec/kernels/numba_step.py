"""The fused step compiled by numba: binds a trie and a batch's rules to :mod:`genrec.kernels.numba_loops`.

The first call on a machine compiles for some seconds and keeps the result beside that file (or in numba's user
cache); later processes load it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from genrec.kernels import numba_arrays as fields
from genrec.kernels.numba_loops import edges_below, fused_step
from genrec.kernels.step import Edges, StepResult, StepRules
from index.errors import IdentifierError
from index.trie import TokenTrie
from index.types import Float32Array, Float64Array, Int64Array, IntArray
from index.walk import Places

_fused_step: Callable[..., Any] = fused_step
_NO_SCORES = np.zeros(0, np.float32)


class NumbaStep:
    """:class:`~genrec.kernels.step.StepKernel` in machine code. May be shared between threads.

    Raises:
        IdentifierError: the trie has 2³² nodes or tokens or more.
    """

    def __init__(self, trie: TokenTrie, rules: StepRules) -> None:
        # Two token widths and one index width: few variants to compile. Of a large trie nothing is copied,
        # its indices are uint32 already.
        self._pointed_at: list[npt.NDArray[Any]] = []
        self._token = _as(trie.token, np.uint16 if trie.token.dtype.itemsize <= 2 else np.uint32)
        self._first_child = _as(trie.first_child, np.uint32)
        self._trie = np.zeros(fields.TRIE_FIELDS, np.int64)
        self._trie[fields.FIRST_CHILD] = self._address(self._first_child)
        self._trie[fields.SPAN_START] = self._address(_as(trie.span_start, np.uint32))
        self._trie[fields.NODES] = trie.nodes
        self._trie[fields.PATH_OFFSETS] = self._address(_as(trie.path_offsets, np.uint32))
        self._trie[fields.PATHS] = len(trie.path_offsets)
        self._trie[fields.PATH_LENGTH] = trie.fixed_length or 0
        self._trie[fields.CATALOG] = rules.catalog
        self._rules = np.zeros((len(rules.beam), fields.RULE_FIELDS), np.int64)
        self._rules[:, fields.BEAM] = rules.beam
        self._rules[:, fields.ITEMS] = rules.items
        self._rules[:, fields.LOOK_AHEAD] = rules.look_ahead
        for row, allowed in zip(self._rules, rules.allowed, strict=True):
            if allowed.bitmap is not None:
                row[fields.WORDS] = self._address(allowed.bitmap.words)
                row[fields.BEFORE] = self._address(allowed.bitmap.before)
                row[fields.WORD_COUNT] = len(allowed.bitmap.words)
            if len(allowed.excluded):
                row[fields.EXCLUDED] = self._address(allowed.excluded)
                row[fields.EXCLUDED_COUNT] = len(allowed.excluded)

    def _address(self, array: npt.NDArray[Any]) -> int:
        """Where an array's numbers lie; it is kept for as long as this kernel."""
        self._pointed_at.append(np.ascontiguousarray(array))
        return self._pointed_at[-1].ctypes.data

    def edges(self, node: Int64Array) -> Edges:
        """See :class:`~genrec.kernels.step.StepKernel`."""
        return Edges(*edges_below(self._token, self._first_child, node))

    def step(
        self,
        request: Int64Array,
        places: Places,
        score: Float64Array,
        logits: Float32Array,
        normalizer: Float32Array | None = None,
    ) -> StepResult:
        """See :class:`~genrec.kernels.step.StepKernel`."""
        chosen, path_score, prefixes, bound = _fused_step(
            self._token,
            self._trie,
            self._rules,
            request,
            places.node,
            places.end,
            places.depth,
            score,
            logits,
            _NO_SCORES if normalizer is None else normalizer,
        )
        return StepResult(chosen[0], chosen[1], chosen[2], path_score, prefixes, bound)


def _as(array: IntArray, dtype: type[np.unsignedinteger]) -> IntArray:
    """The array in one dtype; a copy only where its own is another."""
    if array.dtype.itemsize > np.dtype(dtype).itemsize and int(array.max(initial=0)) > np.iinfo(dtype).max:
        raise IdentifierError(f"expected a trie of fewer than 2**32 nodes and tokens, got {int(array.max())}")
    return np.ascontiguousarray(array, dtype)
