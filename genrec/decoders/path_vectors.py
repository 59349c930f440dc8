"""The vectors of own paths beside a decoder's logits, in numpy, whatever runs the matrices.

What a native decoder's hidden row holds is the query of its level and, in one more column, the place of its prefix
among the own paths: that is all it takes to add what is the paths' own. float32 counts to 2**24 exactly, far above
the number of paths there may be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec.decoders.base import Hidden
from genrec.own_paths import OwnPaths
from index.types import Float32Array, Int32Array, Int64Array, IntArray


@dataclass(frozen=True, eq=False)
class PathVectors:
    """Own paths and their vectors."""

    paths: OwnPaths
    vector: Float32Array  # [1 + M - roots, H]: row p - roots is that of place p; the first is nobody's
    bias: Float32Array  # [1 + M - roots]

    def of_items(self, codes: Int32Array) -> Int64Array:
        """int64[N, L - 1]: the rows of ``vector`` that are part of each item's, by a catalog's codes int32[N, L]; a
        first code has none.
        """
        return self.paths.own_rows(self.paths.places(codes)[:, 2:])

    def add_to_edges(
        self, logits: Float32Array, query: Float32Array, place: Int64Array, row: IntArray, token: IntArray
    ) -> None:
        """Change ``logits`` float32[E] of tokens behind rows of queries float32[R, H] at own places int64[R]."""
        edge = np.flatnonzero(place[row] > 0)
        child = self.paths.step(place[row[edge]], token[edge])
        edge, own = edge[child > 0], child[child > 0] - self.paths.roots
        logits[edge] += np.einsum("eh,eh->e", query[row[edge]], self.vector[own]) + self.bias[own]

    def add_to_level(self, logits: Float32Array, query: Float32Array, place: Int64Array) -> None:
        """Change ``logits`` float32[R, C] of all codes of the level that stands behind own places int64[R]."""
        known = np.flatnonzero(place > 0)
        row, child = self.paths.children(place[known])
        row, own = known[row], child - self.paths.roots
        added = np.einsum("eh,eh->e", query[row], self.vector[own]) + self.bias[own]
        logits[row, self.paths.code[child]] += added


def with_places(query: Float32Array, place: Int64Array) -> Hidden:
    """float32[R, H + 1] from queries float32[R, H] and the own places int64[R] of their prefixes."""
    return np.concatenate([query, place[:, None].astype(np.float32)], axis=1)


def query_and_place(hidden: Hidden) -> tuple[Float32Array, Int64Array]:
    """Queries float32[R, H] and own places int64[R] again."""
    return hidden[:, :-1], hidden[:, -1].astype(np.int64)
