"""How arrays that stay the same over a whole search reach compiled code: as addresses, in one integer array.

Each array argument costs a call into numba some 50 ns, a read-only one 90; a step over the last codes of twenty
beams takes no more than 2,000. So the trie's arrays and the filters' cross as numbers, and are made arrays again
on the other side. Whoever packs an address keeps the array alive: :class:`~genrec.kernels.numba_step.NumbaStep` does.

numba's cache looks only at the file of the function called, which is :mod:`genrec.kernels.numba_loops`: after a
change here, change that file too or delete the cache.
"""

# mypy: disable-error-code="attr-defined,call-arg"
# numba's decorators change what a function takes, and its stubs lack carray.
from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic

from index.types import Int64Array, UInt32Array, UInt64Array

# Places in the array that describes a trie,
FIRST_CHILD, SPAN_START, NODES = 0, 1, 2  # two addresses; how many nodes there are
PATH_OFFSETS, PATHS = 3, 4  # address; 0 where all paths have one length,
PATH_LENGTH = 5  # which is this
CATALOG = 6  # 1 to normalise over the children
TRIE_FIELDS = 7
# and in the row that describes a request.
BEAM, ITEMS, LOOK_AHEAD = 0, 1, 2
WORDS, BEFORE, WORD_COUNT = 3, 4, 5  # two addresses and the length of a RankBitmap; 0 for none
EXCLUDED, EXCLUDED_COUNT = 6, 7
RULE_FIELDS = 8


@intrinsic
def _pointer(_context: Any, address: Any) -> Any:
    """The address as a pointer to anything."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from numba.core import cgutils

        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@njit(cache=True, nogil=True, inline="always")
def uint32_at(address: int, length: int) -> UInt32Array:
    """The uint32[length] that lies there."""
    return carray(_pointer(address), (length,), np.uint32)


@njit(cache=True, nogil=True, inline="always")
def uint64_at(address: int, length: int) -> UInt64Array:
    """The uint64[length] that lies there."""
    return carray(_pointer(address), (length,), np.uint64)


@njit(cache=True, nogil=True, inline="always")
def int64_at(address: int, length: int) -> Int64Array:
    """The int64[length] that lies there."""
    return carray(_pointer(address), (length,), np.int64)
