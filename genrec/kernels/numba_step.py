"""The fused step compiled by numba: binds a trie and a batch's rules to :mod:`genrec.kernels.numba_loops`.

The first call on a machine compiles for some seconds and keeps the result beside that file (or in numba's user
cache); later processes load it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from genrec.kernels.numba_loops import edges_below, fused_step
from genrec.kernels.step import Edges, StepResult, StepRules
from index.errors import IdentifierError
from index.item_filter import RankBitmap
from index.trie import TokenTrie
from index.types import Float32Array, Float64Array, Int64Array, IntArray
from index.walk import Places

T = TypeVar("T", np.uint32, np.uint64)

_NO_SCORES = np.zeros(0, np.float32)


class NumbaStep:
    """:class:`~genrec.kernels.step.StepKernel` in machine code. May be shared between threads.

    Raises:
        IdentifierError: the trie has 2³² nodes or tokens or more.
    """

    def __init__(self, trie: TokenTrie, rules: StepRules) -> None:
        # Two token widths and one index width, all read-only: few variants to compile. Of a large trie
        # nothing is copied, its indices are uint32 already.
        token_type = np.uint16 if trie.token.dtype.itemsize <= 2 else np.uint32
        self._token = _frozen(trie.token, token_type)
        self._first_child = _frozen(trie.first_child, np.uint32)
        indices = (
            self._first_child,
            _frozen(trie.span_start, np.uint32),
            _frozen(trie.path_offsets, np.uint32),
        )
        distinct: dict[int, RankBitmap] = {
            id(rule.bitmap): rule.bitmap for rule in rules.allowed if rule.bitmap is not None
        }
        place = {key: number for number, key in enumerate(distinct)}
        excluded = [rule.excluded for rule in rules.allowed]
        filters = (
            _stacked([bitmap.words for bitmap in distinct.values()], np.uint64),
            _stacked([bitmap.before for bitmap in distinct.values()], np.uint32),
            np.array([place.get(id(rule.bitmap), -1) for rule in rules.allowed], np.int64),
            np.concatenate([*excluded, np.zeros(0, np.int64)]),
            np.cumsum([0, *(len(ranks) for ranks in excluded)], dtype=np.int64),
        )
        limits = (
            np.ascontiguousarray(rules.beam, np.int64),
            np.ascontiguousarray(rules.items, np.int64),
            np.ascontiguousarray(rules.look_ahead, np.bool_),
            bool(rules.catalog),
        )
        step: Callable[..., Any] = fused_step
        self._step = partial(step, self._token, *indices, *filters, *limits)

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
        return StepResult(
            *self._step(
                request,
                places.node,
                places.end,
                places.depth,
                score,
                logits,
                _NO_SCORES if normalizer is None else normalizer,
            )
        )


def _frozen(array: IntArray, dtype: type[np.unsignedinteger]) -> IntArray:
    """A read-only view in one dtype; a copy only where the dtype is another."""
    if array.dtype.itemsize > np.dtype(dtype).itemsize and int(array.max(initial=0)) > np.iinfo(dtype).max:
        raise IdentifierError(f"expected a trie of fewer than 2**32 nodes and tokens, got {int(array.max())}")
    view = np.ascontiguousarray(array, dtype).view()
    view.flags.writeable = False
    return view


def _stacked(rows: list[npt.NDArray[T]], dtype: type[T]) -> npt.NDArray[T]:
    """[F, W]; of a single row a view."""
    if not rows:
        return np.zeros((0, 0), dtype)
    return rows[0].reshape(1, -1) if len(rows) == 1 else np.stack(rows)
