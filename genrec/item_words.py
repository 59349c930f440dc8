"""Item words: the texts of items as sparse TF-IDF rows, for what words say to the letter and sentence vectors blur.

A brand, a shade, a product line: two items that share such a word are alike in a way that 384 numbers forget.
Rows are compared with each other and with nothing else, so words are numbers here and no vocabulary is kept. It
knows texts and rows, no history and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from scipy import sparse

from index.bm25.analyzer import analyze
from index.trie import ragged_positions
from index.types import Float32Array, Int32Array, Int64Array, IntArray


@dataclass(frozen=True, eq=False)
class ItemWords:
    """A sparse matrix of N items, by rows."""

    offsets: Int64Array  # [N + 1] item i's words are at offsets[i] .. offsets[i + 1]
    words: Int32Array  # [W] rising within an item
    weights: Float32Array  # [W] above 0; an item's have length 1 with the words that it alone has, which are left out

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of_texts(cls, texts: Sequence[str]) -> ItemWords:
        """Words as BM25 reads them, weighted by (1 + log tf) · (log((1 + N) / (1 + df)) + 1), as scikit-learn's
        sublinear and smoothed TF-IDF. A word of one item alone makes it less like all others.

        Args:
            texts: of N items.
        """
        terms = analyze(texts)
        number = {term: place for place, term in enumerate(sorted(set(chain.from_iterable(terms))))}
        item = np.repeat(np.arange(len(terms)), [len(own) for own in terms])
        word = np.array([number[term] for own in terms for term in own], np.int64)
        key, count = np.unique(item * max(len(number), 1) + word, return_counts=True)
        item, word = np.divmod(key, max(len(number), 1))
        items = np.bincount(word, minlength=len(number))  # that have each word
        weight = (1 + np.log(count)) * (np.log((1 + len(terms)) / (1 + items[word])) + 1)
        length = np.sqrt(np.bincount(item, weights=weight**2, minlength=len(terms)))
        weight /= length[item]
        shared = items[word] > 1
        item, word, weight = item[shared], word[shared], weight[shared]
        offsets = np.searchsorted(item, np.arange(len(terms) + 1)).astype(np.int64)
        _, word = np.unique(word, return_inverse=True)
        return cls(offsets, word.astype(np.int32), weight.astype(np.float32))

    @cached_property
    def size(self) -> int:
        """How many words there are."""
        return int(self.words.max(initial=-1)) + 1

    def matrix(self, rows: IntArray) -> sparse.csr_array:
        """float32[R, size]: the rows of R items."""
        place, count = self._places(rows)
        bounds = np.concatenate([[0], np.cumsum(count)])
        return sparse.csr_array(
            (self.weights[place], self.words[place], bounds), shape=(len(rows), self.size)
        )

    def profile(self, rows: IntArray, weight: Float32Array) -> Float32Array:
        """float32[size]: the sum of items' rows, int[R] and a weight each."""
        place, count = self._places(rows)
        summed = np.bincount(
            self.words[place], weights=self.weights[place] * np.repeat(weight, count), minlength=self.size
        )
        return summed.astype(np.float32)

    def products(self, profile: Float32Array, rows: IntArray) -> Float32Array:
        """float32[R]: a profile float32[size] times the row of each of R items."""
        place, count = self._places(rows)
        product = profile[self.words[place]] * self.weights[place]
        summed = np.bincount(np.repeat(np.arange(len(rows)), count), weights=product, minlength=len(rows))
        return summed.astype(np.float32)

    def _places(self, rows: IntArray) -> tuple[Int64Array, Int64Array]:
        begin = self.offsets[rows]
        count = self.offsets[np.asarray(rows) + 1] - begin
        return ragged_positions(begin, count), count
