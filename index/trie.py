"""TokenTrie: the token paths of a catalog, frozen into a handful of flat arrays.

Items are sorted by their token path; an item's *rank* is its place in that order. Nodes are numbered
breadth-first, so a node's children are one contiguous range of node ids, and every node covers one contiguous
range of ranks. A node is a *leaf* as soon as one distinct path remains below it: the tokens after it are the
path's *forced tail* and live only in the path array. This module builds and stores; walking is
:mod:`index.walk`. It knows no model and no scores.

::

    paths  a b x        rank 0      node   0: root          first_child 1
           a b y             1             1: a  ranks 0-2  first_child 3     2: c  rank 3, leaf, tail "d e"
           a c               2             3: ab ranks 0-1  first_child 5     4: ac rank 2, leaf
           c d e             3             5: abx leaf      6: aby leaf

An item path may occur several times (two items with one title): those items have consecutive ranks and share
a leaf. No path may be a proper prefix of another; text paths therefore end in a terminator token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from index.errors import IdentifierError
from index.types import BoolArray, Int64Array, IntArray


@dataclass(frozen=True, eq=False)
class TokenTrie:
    """The frozen trie. All arrays may be memory-mapped; nothing here is ever written after building."""

    token: IntArray  # [nodes] token on the edge into a node; the root's is 0
    first_child: IntArray  # [nodes + 1] children of n are first_child[n] .. first_child[n + 1] - 1
    span_start: IntArray  # [nodes] first rank below a node
    path_tokens: IntArray  # [T] all paths, concatenated in rank order
    path_offsets: IntArray  # [N + 1], or [1] holding the common length where all paths have the same one
    item_at_rank: IntArray  # [N] catalog row of the item at a rank
    rank_of_item: IntArray  # [N] the inverse

    def __len__(self) -> int:
        return len(self.item_at_rank)

    @property
    def nodes(self) -> int:
        """Number of nodes, root and leaves included."""
        return len(self.token)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(array.nbytes for array in self.arrays().values())

    @property
    def fixed_length(self) -> int | None:
        """The common length of all paths, or None where they differ."""
        return int(self.path_offsets[0]) if self.path_offsets.shape == (1,) else None

    @cached_property
    def longest_path(self) -> int:
        """Tokens of the longest path."""
        if self.fixed_length is not None:
            return self.fixed_length
        return int(np.diff(self.path_offsets).max(initial=0))

    def path_start(self, rank: IntArray) -> Int64Array:
        """int64[...]: where the path of each rank starts in ``path_tokens``."""
        length = self.fixed_length
        if length is not None:
            return np.asarray(rank, np.int64) * length
        return self.path_offsets[rank].astype(np.int64)

    def path_length(self, rank: IntArray) -> Int64Array:
        """int64[...]: number of tokens of the path of each rank."""
        length = self.fixed_length
        if length is not None:
            return np.full(np.shape(rank), length, np.int64)
        return self.path_offsets[np.asarray(rank) + 1].astype(np.int64) - self.path_offsets[rank]

    def path(self, rank: int) -> list[int]:
        """The whole path of one rank, as a plain list."""
        start = int(self.path_start(np.array(rank)))
        return [int(t) for t in self.path_tokens[start : start + int(self.path_length(np.array(rank)))]]

    def arrays(self) -> dict[str, IntArray]:
        """Name to array, as stored in an index directory."""
        return {name: getattr(self, name) for name in ARRAY_NAMES}


ARRAY_NAMES = (
    "token",
    "first_child",
    "span_start",
    "path_tokens",
    "path_offsets",
    "item_at_rank",
    "rank_of_item",
)


def build_trie(paths: Sequence[Sequence[int]] | IntArray) -> TokenTrie:
    """Freeze one token path per catalog row into a :class:`TokenTrie`.

    Args:
        paths: N paths in row order: int[N, L] for codes of one length, or N sequences of any lengths.

    Raises:
        IdentifierError: a path is empty, holds a negative token, or is a proper prefix of another.
    """
    tokens, offsets = _flatten(paths)
    return build_trie_from_flat(tokens, offsets)


def build_trie_from_flat(tokens: IntArray, offsets: Int64Array) -> TokenTrie:
    """:func:`build_trie` for paths already concatenated: ``tokens`` int[T], ``offsets`` int[N + 1]."""
    lengths = np.diff(offsets)
    _check_paths(tokens, lengths)
    order = _sort_paths(tokens, offsets, lengths)
    start, length = offsets[:-1][order], lengths[order]
    shared = _shared_with_previous(tokens, start, length)
    if len(order):
        _check_prefix_free(shared, length, order)

    # One entry per distinct path from here on: `first` is its first rank.
    is_new = np.ones(len(order), bool)
    is_new[1:] = shared[1:] < length[1:]
    first = np.flatnonzero(is_new)
    node_depth, node_path = _nodes(shared[first])
    node_order = np.argsort(node_depth, kind="stable")  # breadth-first: by depth, then by path
    node_depth, node_path = node_depth[node_order], node_path[node_order]
    span_start = first[node_path] if len(first) else np.zeros(1, np.int64)
    token = np.zeros(len(node_depth), tokens.dtype)
    inner = node_depth > 0
    token[inner] = tokens[start[span_start[inner]] + node_depth[inner] - 1]

    fixed = len(length) > 0 and bool((length == length[0]).all())
    item_at_rank = _narrow(order, len(order))
    rank_of_item = np.empty_like(item_at_rank)
    rank_of_item[order] = np.arange(len(order), dtype=item_at_rank.dtype)
    sorted_tokens = _gather_ragged(tokens, start, length)
    return TokenTrie(
        token=_narrow(token, int(tokens.max(initial=0))),
        first_child=_first_children(node_depth, span_start),
        span_start=_narrow(span_start, len(order)),
        path_tokens=_narrow(sorted_tokens, int(tokens.max(initial=0))),
        path_offsets=np.array([length[0]], np.int64) if fixed else _offsets(length),
        item_at_rank=item_at_rank,
        rank_of_item=rank_of_item,
    )


def _flatten(paths: Sequence[Sequence[int]] | IntArray) -> tuple[IntArray, Int64Array]:
    """Paths as one flat token array and its offsets[N + 1]."""
    if isinstance(paths, np.ndarray):
        if paths.ndim != 2 or not np.issubdtype(paths.dtype, np.integer):
            raise IdentifierError(f"expected an integer array [N, L], got {paths.dtype}{list(paths.shape)}")
        count, length = paths.shape
        return np.ascontiguousarray(paths).reshape(-1), np.arange(count + 1, dtype=np.int64) * length
    lengths = np.fromiter((len(path) for path in paths), np.int64, len(paths))
    flat = np.fromiter((token for path in paths for token in path), np.int64, int(lengths.sum()))
    offsets = np.zeros(len(paths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return flat, offsets


def _check_paths(tokens: IntArray, lengths: Int64Array) -> None:
    if len(lengths) and int(lengths.min()) == 0:
        row = int(np.argmin(lengths))
        raise IdentifierError(f"expected at least one token per path, got an empty path at row {row}")
    if len(tokens) and int(tokens.min()) < 0:
        raise IdentifierError(f"expected token ids >= 0, got {int(tokens.min())}")


def _sort_paths(tokens: IntArray, offsets: Int64Array, lengths: Int64Array) -> Int64Array:
    """int64[N]: rows in the order of their paths, equal paths in row order.

    Tokens are packed, several to one 64-bit key; after each key only rows that are still tied with a
    neighbour are sorted further, so real titles cost little more than their first key.
    """
    bits = int(tokens.max(initial=0) + 1).bit_length()  # + 1: zero marks the end of a path
    per_key = max(1, 63 // bits)
    longest = int(lengths.max(initial=0))
    order = np.arange(len(lengths))
    tied = np.arange(len(lengths))  # positions in `order` that still need sorting
    group = np.zeros(len(order), np.int64)  # [len(tied)] which run of ties a position belongs to
    for column in range(0, longest, per_key):
        row = order[tied]
        key = np.zeros(len(row), np.int64)
        for offset in range(column, min(column + per_key, longest)):
            inside = lengths[row] > offset
            key <<= bits
            key[inside] += tokens[offsets[row[inside]] + offset].astype(np.int64) + 1
        inner = np.argsort(key, kind="stable") if column == 0 else np.lexsort((key, group))
        order[tied] = row[inner]
        key, group = key[inner], group[inner]
        is_first = np.ones(len(key), bool)
        is_first[1:] = (key[1:] != key[:-1]) | (group[1:] != group[:-1])
        run = np.cumsum(is_first) - 1
        still = np.bincount(run, minlength=1)[run] > 1
        still &= lengths[order[tied]] > column + per_key
        tied, group = tied[still], run[still]
        if not len(tied):
            break
    return order


def _shared_with_previous(tokens: IntArray, start: Int64Array, length: Int64Array) -> Int64Array:
    """int64[N]: leading tokens a sorted path has in common with the one before it (-1 for the first)."""
    shared = np.zeros(len(start), np.int64)
    if not len(start):
        return shared
    shared[0] = -1
    alive = np.arange(1, len(start))
    depth = 0
    while len(alive):
        alive = alive[(length[alive] > depth) & (length[alive - 1] > depth)]
        alive = alive[tokens[start[alive] + depth] == tokens[start[alive - 1] + depth]]
        depth += 1
        shared[alive] = depth
    return shared


def _check_prefix_free(shared: Int64Array, length: Int64Array, order: Int64Array) -> None:
    bad = np.flatnonzero((shared[1:] == length[:-1]) & (length[1:] > length[:-1])) + 1
    if len(bad):
        short, long = int(order[bad[0] - 1]), int(order[bad[0]])
        raise IdentifierError(
            f"expected no path to be a prefix of another, got row {short} as a prefix of row {long} "
            f"({len(bad)} such pairs); end every path in a terminator token"
        )


def _nodes(shared: Int64Array) -> tuple[IntArray, Int64Array]:
    """Depth and path index of every node, path by path, from what each distinct path shares with the last.

    A path opens the nodes deeper than what it shares with the path before it, down to the depth at which it
    is alone: one more than what it shares with either neighbour. (At least 1, so the root is never a leaf.)
    """
    count = len(shared)
    if not count:
        return np.zeros(1, np.int64), np.zeros(1, np.int64)  # an empty catalog is a root with nothing below
    lcp = np.append(shared, -1)
    leaf_depth = np.maximum(np.maximum(lcp[:-1], lcp[1:]), 0) + 1
    opened = leaf_depth - lcp[:-1]
    path = np.repeat(np.arange(count), opened)
    begin = np.cumsum(opened) - opened
    depth = np.arange(len(path)) - begin[path] + lcp[path] + 1
    return depth.astype(np.int16 if depth.max() < 2**15 else np.int64), path  # int16 sorts by radix


def _first_children(depth: IntArray, span_start: Int64Array) -> IntArray:
    """int[nodes + 1]: within a level both nodes and their children are ordered by first rank."""
    levels = np.searchsorted(depth, np.arange(int(depth[-1]) + 3))
    result = np.empty(len(depth) + 1, np.int64)
    result[-1] = len(depth)
    for level in range(int(depth[-1]) + 1):
        here = slice(levels[level], levels[level + 1])
        below = slice(levels[level + 1], levels[level + 2])
        result[here] = levels[level + 1] + np.searchsorted(span_start[below], span_start[here])
    return _narrow(result, len(depth))


def _gather_ragged(values: IntArray, start: Int64Array, length: Int64Array) -> IntArray:
    """Concatenate ``values[start[i] : start[i] + length[i]]`` for all i."""
    return values[ragged_positions(start, length)]


def ragged_positions(start: IntArray, length: IntArray) -> Int64Array:
    """int64[sum(length)]: the positions ``start[i] .. start[i] + length[i] - 1`` for all i, in order."""
    begin = np.cumsum(length) - length
    shift: Int64Array = np.repeat(np.asarray(start, np.int64) - begin, length)
    return np.arange(len(shift)) + shift


def _offsets(length: Int64Array) -> IntArray:
    offsets = np.zeros(len(length) + 1, np.int64)
    np.cumsum(length, out=offsets[1:])
    return _narrow(offsets, int(offsets[-1]))


def _narrow(array: IntArray, largest: int) -> IntArray:
    """The same numbers in the narrowest unsigned dtype that holds ``largest``."""
    return array.astype(np.min_scalar_type(largest), copy=False)


def is_leaf(trie: TokenTrie, node: IntArray) -> BoolArray:
    """bool[...]: nodes below which one distinct path remains."""
    leaf: BoolArray = trie.first_child[np.asarray(node) + 1] == trie.first_child[node]
    return leaf
