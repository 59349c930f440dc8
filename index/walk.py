"""TrieWalk: where a search stands in a frozen trie. Vectorised over prefixes; knows no model and no scores.

The trie is compiled and shared; a walk is three integers per prefix: the node, the end of its rank range
(its next sibling's start or its parent's end, so nothing is stored for it), and its depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from index.trie import TokenTrie, is_leaf, ragged_positions
from index.types import BoolArray, Int64Array, IntArray


@dataclass(frozen=True, slots=True)
class Places:
    """R places in a trie."""

    node: Int64Array  # [R]
    end: Int64Array  # [R] one past the last rank below the node
    depth: Int64Array  # [R] tokens from the root

    def __len__(self) -> int:
        return len(self.node)

    def take(self, index: IntArray | BoolArray | slice) -> Places:
        """The places at ``index``."""
        return Places(self.node[index], self.end[index], self.depth[index])


@dataclass(frozen=True, slots=True)
class Children:
    """The E edges below R places, row by row, children in token order."""

    row: Int64Array  # [E] which of the R places
    token: IntArray  # [E]
    places: Places  # [E]


class TrieWalk:
    """Steps over a :class:`~index.trie.TokenTrie`."""

    def __init__(self, trie: TokenTrie) -> None:
        self.trie = trie

    def root(self, count: int) -> Places:
        """``count`` walks standing at the root."""
        return Places(np.zeros(count, np.int64), np.full(count, len(self.trie)), np.zeros(count, np.int64))

    def start(self, places: Places) -> Int64Array:
        """int64[R]: first rank below each place; its items are ``start .. end - 1``."""
        return self.trie.span_start[places.node].astype(np.int64)

    def is_leaf(self, places: Places) -> BoolArray:
        """bool[R]: one distinct path remains below (possibly of several items)."""
        return is_leaf(self.trie, places.node)

    def children(self, places: Places) -> Children:
        """All edges below the places; leaves have none, their tail is :meth:`tail_length` tokens."""
        first = self.trie.first_child[places.node].astype(np.int64)
        count = self.trie.first_child[places.node + 1].astype(np.int64) - first
        row = np.repeat(np.arange(len(places)), count)
        node = ragged_positions(first, count)
        # A child ends where its next sibling starts. `node + 1` of a last child is no sibling: overwritten.
        following = np.minimum(node + 1, self.trie.nodes - 1)
        end = self.trie.span_start[following].astype(np.int64)
        has_children = count > 0
        end[np.cumsum(count)[has_children] - 1] = places.end[has_children]
        return Children(row, self.trie.token[node], Places(node, end, places.depth[row] + 1))

    def tail_length(self, places: Places) -> Int64Array:
        """int64[R]: for leaves, tokens of the path below the leaf."""
        return self.trie.path_length(self.start(places)) - places.depth

    def forced(self, places: Places) -> Places:
        """Follow single children down to the first leaf or branching node (itself, where it is one)."""
        node, depth = places.node.copy(), places.depth.copy()
        alive = np.arange(len(node))
        while len(alive):
            first = self.trie.first_child[node[alive]]
            alive = alive[self.trie.first_child[node[alive] + 1].astype(np.int64) - first == 1]
            node[alive] = self.trie.first_child[node[alive]]
            depth[alive] += 1
        return Places(node, places.end, depth)  # an only child ends where its parent ends

    def path_slices(self, rank: IntArray, begin: IntArray, end: IntArray) -> IntArray:
        """Tokens ``begin .. end - 1`` of the path of each rank, concatenated."""
        return self.trie.path_tokens[ragged_positions(self.trie.path_start(rank) + begin, end - begin)]
