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

    node: Int64Array  # [R]; -1 where :meth:`TrieWalk.step` left the trie
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

    def step(self, places: Places, token: IntArray) -> Places:
        """Each place one token further, along the trie or down a leaf's tail; int[R] tokens, one per place.

        A place whose token leads nowhere has *left the trie*: its node is -1, and so it stays. Only this
        method takes such places; ask ``node >= 0`` before passing them on.
        """
        token = token.astype(np.int64)
        node = np.maximum(places.node, 0)  # any node will do for those that have left: masked below
        first = self.trie.first_child[node].astype(np.int64)
        stop = self.trie.first_child[node + 1].astype(np.int64)
        child = self._search_token(first, stop, token)
        inside = np.flatnonzero(child < stop)
        moved = inside[self.trie.token[child[inside]] == token[inside]]
        new_node, new_end = np.full(len(node), -1), np.zeros(len(node), np.int64)
        new_node[moved] = child[moved]
        new_end[moved] = places.end[moved]  # a last child ends where its parent ends
        sibling = moved[child[moved] + 1 < stop[moved]]
        new_end[sibling] = self.trie.span_start[child[sibling] + 1]

        start = self.trie.span_start[node].astype(np.int64)
        tail = np.flatnonzero(first == stop)
        tail = tail[places.depth[tail] < self.trie.path_length(start[tail])]
        position = self.trie.path_start(start[tail]) + places.depth[tail]
        along = tail[self.trie.path_tokens[position] == token[tail]]
        new_node[along], new_end[along] = node[along], places.end[along]
        new_node[places.node < 0] = -1
        return Places(new_node, new_end, places.depth + 1)

    def _search_token(self, low: Int64Array, high: Int64Array, token: IntArray) -> Int64Array:
        """int64[R]: the first node of ``low .. high - 1`` whose token is not below ``token``, or ``high``."""
        low, high = low.copy(), high.copy()
        open_rows = np.flatnonzero(low < high)
        while len(open_rows):
            middle = (low[open_rows] + high[open_rows]) // 2
            below = self.trie.token[middle] < token[open_rows]
            low[open_rows[below]] = middle[below] + 1
            high[open_rows[~below]] = middle[~below]
            open_rows = open_rows[low[open_rows] < high[open_rows]]
        return low

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
