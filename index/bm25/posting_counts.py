"""What BM25 scores are computed from, kept beside them: so that k1 and b can be chosen anew without reading a text.

It knows numbers, no term and no engine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from index.bm25.lucene_scores import posting_scores
from index.errors import IndexFormatError
from index.types import BoolArray, Float32Array, IntArray

_FREQUENCY, _LENGTH, _IDF = "frequencies.npy", "lengths.npy", "idf.npy"


@dataclass(frozen=True, eq=False)
class PostingCounts:
    """Occurrences and lengths behind T postings of N items. Statistics are those of the build: they stay when
    items are removed, as the scores of the others do."""

    frequency: IntArray  # [T] occurrences of the posting's term in its item, fields repeated by their weight
    length: IntArray  # [N] terms of each item, counted the same way
    idf: Float32Array  # [terms]
    mean_length: float  # over the items that had a term

    def scores(self, rows: IntArray, indptr: IntArray, k1: float, b: float) -> Float32Array:
        """float32[T]: what each posting gives, to the last bit as a build with these settings would say.

        Args:
            rows: [T] the postings' items.
            indptr: [terms + 1] where each term's postings begin.
            k1: see ``Bm25Settings``.
            b: see there.
        """
        return posting_scores(
            idf=np.repeat(self.idf, np.diff(indptr)),
            frequency=self.frequency,
            length=self.length[rows],
            mean_length=self.mean_length,
            k1=k1,
            b=b,
        )

    def of_postings(self, keep: BoolArray) -> PostingCounts:
        """The counts of the postings that are kept, bool[T]."""
        return replace(self, frequency=self.frequency[keep])

    def save(self, directory: Path) -> None:
        """Write three arrays; the mean length is the caller's to keep."""
        for name, array in ((_FREQUENCY, self.frequency), (_LENGTH, self.length), (_IDF, self.idf)):
            np.save(directory / name, array, allow_pickle=False)

    @classmethod
    def load(
        cls, directory: Path, mean_length: float, *, postings: int, items: int, terms: int
    ) -> PostingCounts:
        """Map the arrays into memory.

        Raises:
            IndexFormatError: a file is missing or broken, or they do not fit the index they lie beside.
        """
        try:
            frequency, length, idf = (
                np.asarray(np.load(directory / name, mmap_mode="r", allow_pickle=False))
                for name in (_FREQUENCY, _LENGTH, _IDF)
            )
        except (OSError, ValueError) as error:
            raise IndexFormatError(
                f"expected the counts of a BM25 index in {directory}, got {type(error).__name__}: {error}; "
                "build the index again"
            ) from error
        if (len(frequency), len(length), len(idf)) != (postings, items, terms) or not mean_length > 0:
            raise IndexFormatError(
                f"expected counts of {postings} postings, {items} items and {terms} terms in {directory}, got "
                f"{len(frequency)}, {len(length)} and {len(idf)} of mean length {mean_length}; build the index again"
            )
        return cls(frequency, length, idf, mean_length)


def narrow(counts: IntArray) -> IntArray:
    """The same counts in the narrowest dtype."""
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))))
