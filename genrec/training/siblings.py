"""Which codes may follow a prefix in the catalog: what the catalog-normalised training loss divides by.

The same sets the trie holds, kept per level so that a training batch can look up its targets' siblings. It
knows codes only: no model, no histories.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from index.types import Int32Array


class Siblings:
    """Per level: the prefix node of every item, and the codes below every node."""

    def __init__(self, codes: Int32Array) -> None:
        """From the catalog's codes int32[N, L]; about 12 bytes per item and level."""
        self._node: list[Tensor] = []  # [N] node of the item's first `level` codes
        self._first: list[Tensor] = []  # [nodes + 1] a node's codes are code[first[n]:first[n + 1]]
        self._code: list[Tensor] = []
        node = np.zeros(len(codes), np.int64)
        for level in range(codes.shape[1]):
            size = int(codes[:, level].max()) + 1
            edges, below = np.unique(node * size + codes[:, level], return_inverse=True)
            first = np.searchsorted(edges // size, np.arange(int(node.max()) + 2))
            self._node.append(torch.from_numpy(node.astype(np.int32)))
            self._first.append(torch.from_numpy(first.astype(np.int64)))
            self._code.append(torch.from_numpy((edges % size).astype(np.int32)))
            node = below

    def count(self, level: int, items: Tensor) -> Tensor:
        """int64[T]: the codes that may stand at ``level`` behind each item's codes before it; at least 1."""
        first, node = self._first[level], self._node[level][items].long()
        return first[node + 1] - first[node]

    def absent(self, level: int, items: Tensor, size: int) -> Tensor:
        """bool[T, size]: the codes that no catalog item has at ``level`` behind each item's codes before it."""
        count = self.count(level, items)
        row = torch.repeat_interleave(torch.arange(len(items)), count)
        start = self._first[level][self._node[level][items].long()] - (count.cumsum(0) - count)
        place = torch.arange(len(row)) + start[row]
        mask = torch.ones(len(items), size, dtype=torch.bool)
        mask[row, self._code[level][place].long()] = False
        return mask
