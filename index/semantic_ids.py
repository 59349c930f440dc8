"""Semantic IDs: item vectors to short, unique code paths, by residual k-means.

Level 0 clusters the vectors, level 1 what level 0 leaves over, and so on; items that are alike share their
first codes. A last step makes every path unique. Codebooks are frozen after fitting: a new item is coded
without touching those of the others. This module does not know what the vectors mean, nor the trie.

::

    vector ── nearest centroid of level 0 ──> code 17 ── residual ──> code 203 ── residual ──> code 5
    (17, 203, 5) taken twice:   "extra"    (17, 203, 5, 0) and (17, 203, 5, 1)
                                "nearest"  (17, 203, 5)    and (17, 203, 88), the next free centroid
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

from index.artifact import load_array
from index.errors import IdentifierError, IndexFormatError
from index.types import Float32Array, Int32Array, Int64Array, IntArray

Collisions: TypeAlias = Literal["extra", "nearest"]
"""``extra``: one more code tells items of one path apart. ``nearest``: all but one get another last code."""

EXTRA_SIZE = 256
"""Default bound of the extra code, the size of the other levels. Beauty's largest group is far below it."""

CENTROIDS = "centroids"
SIZES = "codebook_sizes"

_MIN_ITEMS_PER_CODE = 10  # fewer, and a first code would name an item rather than a kind of item
_SAMPLE_PER_CODE = 256  # k-means gains nothing measurable from more points a centroid (the default of faiss)
_MAX_ITERATIONS = 50
_CHUNK = 65_536  # rows of a distance block: 65,536 x 256 centroids x 4 bytes = 67 MB


@dataclass(frozen=True, eq=False)
class Codebooks:
    """The centroids of all levels, frozen."""

    centroids: Float32Array  # [sum of sizes, D], level after level
    sizes: tuple[int, ...]  # centroids of each level

    @property
    def levels(self) -> int:
        """Codes an item gets, before paths are made unique."""
        return len(self.sizes)

    def level(self, level: int) -> Float32Array:
        """float32[size, D]: the centroids of one level."""
        start = sum(self.sizes[:level])
        return self.centroids[start : start + self.sizes[level]]

    def encode(self, vectors: Float32Array) -> Int32Array:
        """int32[N, levels]: the nearest centroid of each level in turn; the lowest code where two are equal.

        Raises:
            IdentifierError: the vectors are not [N, D] of the centroids' D, or not finite.
        """
        _check_vectors(vectors, self.centroids.shape[1])
        codes = np.empty((len(vectors), self.levels), np.int32)
        for start in range(0, len(vectors), _CHUNK):
            residual = np.array(vectors[start : start + _CHUNK], np.float32)
            for level in range(self.levels):
                nearest = _distances(residual, self.level(level)).argmin(axis=1)
                codes[start : start + _CHUNK, level] = nearest
                residual -= self.level(level)[nearest]
        return codes

    def last_distances(self, vectors: Float32Array, codes: IntArray) -> Float32Array:
        """float32[M, size]: squared distances to the last level's centroids, given the codes before it.

        Up to a constant per row, which changes no comparison within the row.
        """
        residual = np.array(vectors, np.float32)
        for level in range(self.levels - 1):
            residual -= self.level(level)[codes[:, level]]
        return _distances(residual, self.level(self.levels - 1))

    def save(self, directory: Path) -> None:
        """Write two .npy files into an existing directory."""
        np.save(directory / f"{CENTROIDS}.npy", self.centroids, allow_pickle=False)
        np.save(directory / f"{SIZES}.npy", np.array(self.sizes, np.int32), allow_pickle=False)


def load_codebooks(directory: Path) -> Codebooks:
    """Read what :meth:`Codebooks.save` wrote.

    Raises:
        IndexFormatError: a file is missing, is not an array, or the two do not fit together.
    """
    centroids = np.asarray(load_array(directory, CENTROIDS), np.float32)
    sizes = load_array(directory, SIZES)
    if centroids.ndim != 2 or sizes.ndim != 1 or int(sizes.sum()) != len(centroids):
        raise IndexFormatError(
            f"expected one centroid row per code in {directory}, got {list(centroids.shape)} centroids and "
            f"codebooks of {sizes.tolist()}; rebuild the index"
        )
    return Codebooks(centroids, tuple(int(size) for size in sizes))


def fit_codebooks(vectors: Float32Array, *, levels: int = 3, size: int = 256, seed: int = 0) -> Codebooks:
    """Residual k-means: each level clusters what the levels before it leave over.

    A level has at most ``size`` codes and at most one per 10 items (never fewer than 2), so small catalogs
    keep codes that several items share: 12,101 items get 256 codes a level, 600 items 60, 5 items 2. Levels
    with less variety than that (equal items, residuals that are all zero) come out smaller still. Equal
    seeds and vectors give equal codebooks.

    Raises:
        IdentifierError: no vectors, or not finite ones, or levels < 1 or size < 1.
    """
    _check_vectors(vectors, vectors.shape[1] if vectors.ndim == 2 else 0)
    if levels < 1 or size < 1 or len(vectors) == 0:
        raise IdentifierError(
            f"expected levels >= 1, size >= 1 and at least one vector, got {levels}, {size}, {len(vectors)}"
        )
    size = min(size, max(2, len(vectors) // _MIN_ITEMS_PER_CODE), len(vectors))
    generator = np.random.default_rng(seed)
    sample = len(vectors)
    if sample > size * _SAMPLE_PER_CODE:
        sample = size * _SAMPLE_PER_CODE
        vectors = vectors[np.sort(generator.choice(len(vectors), sample, replace=False))]
    residual = np.array(vectors, np.float32)
    centroids = []
    for _ in range(levels):
        level = _kmeans(residual, min(size, sample), int(generator.integers(2**31)))
        residual -= level[_distances(residual, level).argmin(axis=1)]
        centroids.append(level)
    return Codebooks(np.concatenate(centroids), tuple(len(level) for level in centroids))


def unique_codes(
    codebooks: Codebooks,
    vectors: Float32Array,
    *,
    collisions: Collisions = "extra",
    extra_size: int = EXTRA_SIZE,
) -> Int32Array:
    """Code every vector so that no two rows are equal.

    ``extra`` returns int32[N, levels + 1]: the items of one path are numbered 0, 1, … in row order, below
    ``extra_size``. ``nearest`` returns int32[N, levels]: items of one path but for the last code share out
    that code's centroids so that the sum of squared distances is least.

    Raises:
        IdentifierError: more items share a path than the last code can tell apart.
    """
    nothing = np.empty((0, codebooks.levels + (collisions == "extra")), np.int32)
    return code_new_items(codebooks, vectors, nothing, collisions=collisions, extra_size=extra_size)


def code_new_items(
    codebooks: Codebooks,
    vectors: Float32Array,
    taken: IntArray,
    *,
    collisions: Collisions = "extra",
    extra_size: int = EXTRA_SIZE,
) -> Int32Array:
    """int32[M, L]: codes of M new items, distinct from each other and from the rows of ``taken`` int[N, L].

    The codebooks stay as they are and so do the codes of the items already there; a number left free by a
    removed item is given out again.

    Raises:
        IdentifierError: as :func:`unique_codes`, or ``taken`` has another number of codes.
    """
    length = codebooks.levels + (collisions == "extra")
    if taken.ndim != 2 or taken.shape[1] != length:
        raise IdentifierError(
            f"expected taken codes of shape [N, {length}] for collisions={collisions!r}, "
            f"got {list(taken.shape)}; use the setting the index was built with"
        )
    codes = codebooks.encode(vectors)
    if collisions == "extra":
        codes = np.concatenate([codes, np.zeros((len(codes), 1), np.int32)], axis=1)
    size = extra_size if collisions == "extra" else codebooks.sizes[-1]
    for new, old in _shared_prefixes(codes[:, :-1], taken[:, :-1]):
        free = np.ones(size, bool)
        free[taken[old, -1]] = False
        if free.sum() < len(new):
            raise IdentifierError(_overflow(codes[new[0], :-1], len(new) + len(old), size, collisions))
        open_codes = np.flatnonzero(free)
        if collisions == "extra":
            codes[new, -1] = open_codes[: len(new)]
        else:
            cost = codebooks.last_distances(vectors[new], codes[new])[:, open_codes]
            codes[new, -1] = open_codes[linear_sum_assignment(cost)[1]]
    return codes


def level_tokens(codes: IntArray, sizes: tuple[int, ...]) -> Int32Array:
    """int32[N, L]: code c of level l becomes token ``sizes[0] + … + sizes[l - 1] + c``.

    Tokens of different levels never coincide: this is what the trie stores and the model's vocabulary holds.

    Raises:
        IdentifierError: the codes do not have one column per size, or a code is outside its level's size.
    """
    bound = np.array(sizes, np.int64)
    if codes.ndim != 2 or codes.shape[1] != len(bound):
        raise IdentifierError(f"expected codes of shape [N, {len(bound)}], got {list(codes.shape)}")
    outside = (codes < 0) | (codes >= bound)
    if outside.any():
        row, level = (int(i) for i in np.argwhere(outside)[0])
        raise IdentifierError(
            f"expected codes of level {level} in [0, {bound[level]}), got {codes[row, level]} in row {row}"
        )
    tokens: Int32Array = (codes + np.concatenate([[0], np.cumsum(bound)[:-1]])).astype(np.int32)
    return tokens


def _kmeans(points: Float32Array, size: int, seed: int) -> Float32Array:
    """float32[≤ size, D]: centroids of k-means++ and Lloyd's algorithm; those without points are dropped."""
    # One thread: sums over threads arrive in any order, and a last bit can move a point to another code.
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        # Fewer distinct points than centroids is no fault: the centroids left empty go below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(size, n_init=1, max_iter=_MAX_ITERATIONS, random_state=seed).fit(points)
    centroids = np.asarray(model.cluster_centers_, np.float32)
    used: Float32Array = centroids[np.unique(_distances(points, centroids).argmin(axis=1))]
    return used


def _distances(points: Float32Array, centroids: Float32Array) -> Float32Array:
    """float32[N, size]: squared distances less ‖point‖², which is the same along a row."""
    distances: Float32Array = points @ centroids.T
    distances *= -2
    distances += np.einsum("kd,kd->k", centroids, centroids)
    return distances


def _shared_prefixes(new: IntArray, old: IntArray) -> list[tuple[Int64Array, Int64Array]]:
    """Rows of ``new`` and rows of ``old`` that have one prefix, for each prefix that needs care.

    A prefix with one new item and no old one needs none: the codes it has are unique already.
    """
    both = np.concatenate([new, old])
    # Stable: within a prefix new rows in row order, then old ones. One-level paths all have the empty prefix.
    order = np.lexsort(both.T[::-1]) if both.shape[1] else np.arange(len(both))
    starts = np.flatnonzero((both[order[1:]] != both[order[:-1]]).any(axis=1)) + 1
    members = np.split(order, starts)
    shared = [rows for rows in members if len(rows) > 1 and rows[0] < len(new)]
    return [(rows[rows < len(new)], rows[rows >= len(new)] - len(new)) for rows in shared]


def _overflow(prefix: IntArray, items: int, size: int, collisions: Collisions) -> str:
    remedy = {
        "extra": "raise extra_size, or use more levels",
        "nearest": "use more levels, a larger size, or collisions='extra'",
    }[collisions]
    return f"expected at most {size} items with the codes {prefix.tolist()}, got {items}; {remedy}"


def _check_vectors(vectors: Float32Array, dimension: int) -> None:
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise IdentifierError(f"expected vectors of shape [N, {dimension}], got {list(vectors.shape)}")
    finite = np.isfinite(vectors.sum(axis=1))
    if not finite.all():
        raise IdentifierError(
            f"expected finite vectors, got NaN or infinity in row {int(finite.argmin())}; check its text"
        )
