"""Lucene's BM25 to the last bit: what each term gives to each item that has it.

Two engines that differ in the last bit of a score order near ties differently, so the order of a search can
agree between engines only if the arithmetic does. It knows numbers, no term and no engine.
"""

from __future__ import annotations

import numpy as np

from index.types import Float32Array, Int64Array, IntArray

_EXACT = 24  # Lucene's SmallFloat: lengths below are stored as they are, of what is above 4 bits are kept


def stored_lengths(lengths: IntArray) -> Int64Array:
    """int64[N]: document lengths as Lucene stores them, in one byte.

    Exact to 40 terms; above, what exceeds 24 is rounded down to 4 significant bits (63 becomes 60).
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    above = np.maximum(lengths - _EXACT, 0)
    dropped_bits = np.maximum(np.frexp(above.astype(np.float64))[1] - 4, 0)
    rounded = (above >> dropped_bits) << dropped_bits
    return np.where(lengths < _EXACT, lengths, _EXACT + rounded)


def inverse_document_frequencies(holders: IntArray, documents: int) -> Float32Array:
    """float32[...]: ``log(1 + (D − df + ½) / (df + ½))`` for terms that ``holders`` of D documents have."""
    held = np.asarray(holders, dtype=np.float64)
    return np.log(1 + (documents - held + 0.5) / (held + 0.5)).astype(np.float32)


def posting_scores(
    idf: Float32Array, frequency: IntArray, length: IntArray, mean_length: float, k1: float, b: float
) -> Float32Array:
    """float32[T]: ``idf · tf / (tf + k1 · (1 − b + b · length / mean length))``, one per posting.

    Written and rounded as in Lucene's ``BM25Similarity.BM25Scorer``, single precision throughout.

    Args:
        idf: [T] of the posting's term.
        frequency: [T] occurrences of the term in the item.
        length: [T] terms of the item, as counted; rounded here.
        mean_length: over the documents that have a term, not rounded.
        k1: see ``Bm25Settings``.
        b: see there.
    """
    one, k1_, b_ = np.float32(1), np.float32(k1), np.float32(b)
    relative = b_ * stored_lengths(length).astype(np.float32) / np.float32(mean_length)
    with np.errstate(divide="ignore"):  # k1 = 0: the frequency does not count, and idf / inf is 0
        inverse = one / (k1_ * ((one - b_) + relative))
    saturation = (one + frequency.astype(np.float32) * inverse).astype(np.float32)
    return idf - idf / saturation
