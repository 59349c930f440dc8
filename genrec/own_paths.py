"""Own paths: the beginnings of code paths that have a vector of their own when the model reads and speaks.

A code's embedding says the same behind every prefix, so a head has to work out from sums of embeddings that one
pair of codes is popular and another is not. A path seen often enough in training gets a vector, which is added
to the embedding of its last code: what is known of just these items, beside what codes share. The same vectors are
part of an item's when it is read. A path without one, such as a new item's, is read and spoken of by its codes alone.

Paths are numbered by *places*, parents before children and children of one parent side by side::

    place 0   the root, and every path that is not kept
    1 …       (0) (3) (0, 2) (0, 7) (3, 1) (0, 2, 5) …

A child is found by one binary search. A token belongs to one level, so nothing is ever found behind place 0 but a
first code. numpy only: it serves the model in torch and its export. It knows no vectors, histories or scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.errors import IndexFormatError
from index.types import Int32Array, Int64Array, IntArray

NONE = -1
"""What stands behind the last code of a path shorter than the longest."""


class OwnPaths:
    """M paths and how to walk them.

    Args:
        paths: int32[M, L], as :func:`choose_paths` orders them, :data:`NONE` behind a path's end.
        code_sizes: codes at each of L levels.

    Raises:
        IndexFormatError: a path's beginning is missing, or the paths stand in another order.
    """

    def __init__(self, paths: Int32Array, code_sizes: Sequence[int]) -> None:
        self.paths = paths
        self._offsets = np.concatenate([[0], np.cumsum(code_sizes)]).astype(np.int64)
        levels = len(code_sizes)
        if paths.ndim != 2 or paths.shape[1] != levels:
            raise IndexFormatError(
                f"expected own paths of shape [M, {levels}], got {list(paths.shape)}; train the bundle again"
            )
        length = (paths != NONE).sum(1)
        parent, token = np.zeros(len(paths), np.int64), np.zeros(len(paths), np.int64)
        self._key: Int64Array = np.zeros(0, np.int64)  # [places known so far] parent * V + token, rising
        for level in range(levels):
            rows = np.flatnonzero(length == level + 1)
            parent[rows] = self._walk(paths[rows, :level])
            token[rows] = paths[rows, level] + self._offsets[level]
            known = len(self._key) + len(rows)
            if (level and not parent[rows].all()) or (len(rows) and int(rows[-1]) != known - 1):
                raise IndexFormatError(
                    "expected own paths with their beginnings before them, got one without; train the bundle again"
                )
            self._key = parent[:known] * self._offsets[-1] + token[:known]
        if (np.diff(self._key) <= 0).any():
            raise IndexFormatError("expected own paths in rising order, got others; train the bundle again")
        self.code: Int64Array = np.append(0, paths[np.arange(len(paths)), length - 1]).astype(np.int64)
        """[M + 1] the last code of each place's path; 0 for the root."""
        self.first: Int64Array = np.searchsorted(parent, np.arange(len(paths) + 2)) + 1
        """[M + 2] the children of place p are the places first[p] .. first[p + 1] - 1."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def roots(self) -> int:
        """How many paths have one code. They stand first, and the code's embedding is vector enough for them."""
        return int(self.first[1]) - 1

    def step(self, place: IntArray, token: IntArray) -> Int64Array:
        """int64[T]: the place behind ``place`` and a token; 0 where that path is not kept."""
        if not len(self._key):
            return np.zeros(np.shape(token), np.int64)
        key = np.asarray(place, np.int64) * self._offsets[-1] + token
        at = np.minimum(np.searchsorted(self._key, key), len(self._key) - 1)
        found: Int64Array = np.where(self._key[at] == key, at + 1, 0)
        return found

    def places(self, codes: IntArray) -> Int64Array:
        """int64[N, L + 1]: the places that items pass on their way, from the root to their last code."""
        at = np.zeros((len(codes), codes.shape[1] + 1), np.int64)
        for level in range(codes.shape[1]):
            at[:, level + 1] = self.step(at[:, level], codes[:, level] + self._offsets[level])
        return at

    def own_rows(self, place: IntArray) -> Int64Array:
        """The row of the table of vectors that stands for each place: 0, nobody's, for the root and first codes."""
        return np.maximum(np.asarray(place, np.int64) - self.roots, 0)

    def children(self, place: Int64Array) -> tuple[Int64Array, Int64Array]:
        """All children of R places, flat: the row each belongs to, int64[T], and its place, int64[T]."""
        count = self.first[place + 1] - self.first[place]
        row = np.repeat(np.arange(len(place)), count)
        start = self.first[place] - (np.cumsum(count) - count)
        return row, np.arange(len(row)) + start[row]

    def _walk(self, codes: IntArray) -> Int64Array:
        at = np.zeros(len(codes), np.int64)
        for level in range(codes.shape[1]):
            at = self.step(at, codes[:, level] + self._offsets[level])
        return at


def no_paths(levels: int) -> Int32Array:
    """int32[0, L]."""
    return np.zeros((0, levels), np.int32)


def choose_paths(codes: Int32Array, events: IntArray, *, fewest: int, most: int) -> Int32Array:
    """int32[M, L]: the paths that get a vector, with the beginnings they need.

    A code that stands alone behind its prefix is certain, so a vector would say nothing there: such a path is kept
    only where something below it is.

    Args:
        codes: int32[N, L] of the catalog, distinct rows.
        events: int[N], how often training saw each row.
        fewest: a path seen less often has none.
        most: how many there are at most; those seen most often are kept.
    """
    levels = codes.shape[1]
    node = np.zeros(len(codes), np.int64)
    found, seen, parents, needed = [], [], [], []
    for level in range(levels):
        size = int(codes[:, level].max(initial=0)) + 1
        edges, first, below = np.unique(node * size + codes[:, level], return_index=True, return_inverse=True)
        below = below.reshape(-1)  # numpy 2.0 keeps the axis
        paths = np.full((len(edges), levels), NONE, np.int32)
        paths[:, : level + 1] = codes[first, : level + 1]
        found.append(paths)
        seen.append(np.bincount(below, weights=events, minlength=len(edges)).astype(np.int64))
        parents.append(edges // size)
        needed.append(np.bincount(edges // size)[edges // size] > 1)
        node = below
    for level in range(levels - 1, 0, -1):
        needed[level - 1][parents[level][needed[level] & (seen[level] >= fewest)]] = True
    keep = np.concatenate(needed) & (np.concatenate(seen) >= max(fewest, 1))
    paths, count = np.concatenate(found)[keep], np.concatenate(seen)[keep]
    # A beginning is seen at least as often as what it begins, and stands before it: its rank is never worse.
    best = np.argsort(-count, kind="stable")[:most]
    return paths[np.sort(best)]
