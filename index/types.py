"""Names every other module uses, and the shape alphabet, written once.

Shapes in docstrings and at line ends:

====  =====================================================================
B     requests in a batch
K     beams of one request
P     prompt positions (tokens, or history items for the native model)
R     rows of a ragged batch: one row per prefix that is alive somewhere
E     edges: (row, child) pairs under the trie
V     vocabulary of a decoder
N     items of the catalog
L     codes of a semantic ID
H     hidden size
T     flat length of a ragged array
====  =====================================================================

An item's *row* is its place in the catalog. Its *rank* is its place in the order of token paths, which is
the order the trie, the filters and the priors work in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

ItemId: TypeAlias = str
TokenId: TypeAlias = int
Tokenize: TypeAlias = Callable[[Sequence[str]], list[list[TokenId]]]

IntArray: TypeAlias = npt.NDArray[np.integer[Any]]
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
Float32Array: TypeAlias = npt.NDArray[np.float32]
Float64Array: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Int32Array: TypeAlias = npt.NDArray[np.int32]
Int64Array: TypeAlias = npt.NDArray[np.int64]
UInt32Array: TypeAlias = npt.NDArray[np.uint32]
UInt64Array: TypeAlias = npt.NDArray[np.uint64]
