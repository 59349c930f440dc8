"""Which items' texts are nearest to an item's: lists for all items, or for new ones.

Near is the cosine of text vectors, plus that of words where there are some (:mod:`genrec.item_words`).

Nothing of size [N, N] is ever held: texts are compared a block at a time, in a large catalog only with the texts of
the nearest cells of a k-means. It knows vectors and rows, no text and no history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from genrec.item_words import ItemWords
from index.trie import ragged_positions
from index.types import Float32Array, Int32Array, Int64Array, IntArray

ALL_PAIRS = 65_536  # items up to which every text is compared with every other: a minute on one core
_PROBED = 8  # cells a text is compared with in a larger catalog
_BLOCK = 1 << 24  # similarities held at a time: 64 MB


def text_neighbours(
    text: Float32Array, most: int, words: ItemWords | None = None, seed: int = 0
) -> tuple[Int64Array, Int32Array]:
    """Offsets [N + 1] and rows [M]: the ``most`` nearest texts of each item, best first.

    Items without text (a row of zeros) have none and are nobody's, whatever their words. Above :data:`ALL_PAIRS`
    items only those of the nearest cells are compared, which misses a few of the farther ones.

    Args:
        text: float32[N, D], rows of length 1 or 0.
        most: neighbours of an item; fewer where the catalog has fewer.
        words: of the same items.
        seed: of the k-means, which looks at text vectors alone.
    """
    rows = np.flatnonzero(text.any(axis=1))
    near = np.zeros((len(rows), max(0, min(most, len(rows) - 1))), np.int32)
    if near.size:
        known = _Texts.of(text, rows, words)
        if len(rows) <= ALL_PAIRS:
            near[:] = _nearest(known, known, np.arange(len(rows)), near.shape[1])
        else:
            _fill_by_cells(near, known, seed)
    count = np.zeros(len(text), np.int64)
    count[rows] = near.shape[1]
    return offsets_of(count), rows[near].astype(np.int32).ravel()


def neighbours_of(
    text: Float32Array, items: IntArray, most: int, words: ItemWords | None = None
) -> list[Int32Array]:
    """The neighbours of some items (catalog rows) among all: exact in a catalog of any size.

    ``text``, ``most`` and ``words`` are those of :func:`text_neighbours`.
    """
    rows = np.flatnonzero(text.any(axis=1))
    has_text = np.isin(items, rows)
    asked = np.asarray(items, np.int64)[has_text]
    most = max(0, min(most, len(rows) - 1))
    near = np.zeros((len(asked), 0), np.int32)
    if most and len(asked):
        known = _Texts.of(text, rows, words)
        near = _nearest(_Texts.of(text, asked, words), known, np.searchsorted(rows, asked), most)
    lists = iter(rows[near].astype(np.int32))
    return [next(lists) if one else np.zeros(0, np.int32) for one in has_text.tolist()]


def offsets_of(count: Int64Array) -> Int64Array:
    """int64[N + 1]: where the lists of so many entries begin."""
    return np.concatenate([[0], np.cumsum(count)]).astype(np.int64)


@dataclass(frozen=True, eq=False)
class _Texts:
    """What Q items say, both ways."""

    vectors: Float32Array  # [Q, D]
    words: sparse.csr_array | None  # [Q, size]

    @classmethod
    def of(cls, text: Float32Array, rows: IntArray, words: ItemWords | None) -> _Texts:
        return cls(np.ascontiguousarray(text[rows]), None if words is None else words.matrix(rows))

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: slice | IntArray) -> _Texts:
        return _Texts(self.vectors[rows], None if self.words is None else self.words[rows])

    def likeness(self, other: _Texts) -> Float32Array:
        """float32[Q, R]."""
        cosine: Float32Array = self.vectors @ other.vectors.T
        if self.words is not None and other.words is not None:
            cosine += (self.words @ other.words.T).toarray()
        return cosine


def _nearest(query: _Texts, known: _Texts, itself: IntArray, most: int) -> Int32Array:
    """int32[Q, most]: rows of ``known`` nearest to each query, best first, but for ``itself`` [Q]."""
    near = np.empty((len(query), most), np.int32)
    step = max(1, _BLOCK // len(known))
    for begin in range(0, len(query), step):
        rows = slice(begin, begin + step)
        cosine = query[rows].likeness(known)
        cosine[np.arange(len(cosine)), itself[rows]] = -np.inf
        best = np.argpartition(-cosine, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(cosine, best, axis=1), axis=1, kind="stable")
        near[rows] = np.take_along_axis(best, order, axis=1)
    return near


def _fill_by_cells(near: Int32Array, known: _Texts, seed: int) -> None:
    from sklearn.cluster import MiniBatchKMeans  # a second to import, and a server never comes here

    cells = int(np.sqrt(len(known)))
    clusters = MiniBatchKMeans(cells, batch_size=8_192, n_init=1, random_state=seed).fit(known.vectors)
    centres = clusters.cluster_centers_.astype(np.float32)
    order = np.argsort(clusters.labels_, kind="stable")
    bounds = np.searchsorted(clusters.labels_[order], np.arange(cells + 1))
    size = np.diff(bounds)
    for cell in np.flatnonzero(size).tolist():
        probed = np.argsort(((centres - centres[cell]) ** 2).sum(axis=1), kind="stable")
        probed = np.concatenate([[cell], probed[probed != cell]])  # its own first: there it finds itself
        enough = int(np.searchsorted(np.cumsum(size[probed]), near.shape[1] + 1)) + 1
        probed = probed[: max(_PROBED, enough)]
        among = order[ragged_positions(bounds[probed], size[probed])]
        own = among[: size[cell]]
        near[own] = among[_nearest(known[own], known[among], np.arange(len(own)), near.shape[1])]
