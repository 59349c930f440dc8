"""WordList: the known words nearest to a misspelt one. It knows words and how often they occur, nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.types import Int64Array, IntArray, UInt32Array

LONGEST = 24  # letters; longer words are codes, which nobody misspells by one letter


class WordList:
    """Words by length, as a matrix of code points, so that one comparison step is one numpy call.

    Args:
        words: M distinct words.
        counts: int[M], how often each occurs; more frequent words come first among equally near ones.
    """

    def __init__(self, words: Sequence[str], counts: IntArray) -> None:
        lengths = np.fromiter(map(len, words), np.int64, len(words))
        kept = np.flatnonzero((lengths > 0) & (lengths <= LONGEST))
        kept = kept[np.argsort(lengths[kept], kind="stable")]
        self._words = [words[place] for place in kept.tolist()]
        self._counts = np.asarray(counts, np.int64)[kept]
        self._starts = np.searchsorted(lengths[kept], np.arange(LONGEST + 2))  # where each length begins
        self._letters = _code_points(self._words)  # [M, LONGEST]

    def near(self, word: str, limit: int) -> list[str]:
        """At most ``limit`` known words within :func:`slips_allowed` of ``word``: nearest, then most frequent."""
        most = slips_allowed(word)
        if not most or len(word) > LONGEST:
            return []
        start = int(self._starts[max(1, len(word) - most)])
        end = int(self._starts[min(LONGEST, len(word) + most) + 1])
        if start == end:
            return []
        distances = edit_distances(word, self._letters[start:end])
        near = np.flatnonzero(distances <= most)
        names = np.array(self._words[start:end], object)[near]
        order = np.lexsort((names.astype(str), -self._counts[start:end][near], distances[near]))
        return [str(name) for name in names[order[:limit]]]


def slips_allowed(word: str) -> int:
    """0 up to two letters, 1 up to five, 2 beyond: Elasticsearch's ``fuzziness: AUTO``."""
    return 0 if len(word) <= 2 else 1 if len(word) <= 5 else 2


def edit_distances(word: str, letters: UInt32Array) -> Int64Array:
    """int64[M]: from ``word`` to each row of code points (zeros behind the word's end).

    Optimal string alignment: insertions, deletions, replacements and swaps of neighbours cost one each, and no
    letter is touched twice (Damerau 1964, as restricted by Boytsov 2011).
    """
    count, width = letters.shape
    before_last = np.zeros((width + 1, count), np.int16)
    last = np.repeat(np.arange(width + 1, dtype=np.int16)[:, None], count, axis=1)  # [width + 1, M]
    columns = np.ascontiguousarray(letters.T)
    for i, letter in enumerate(word, 1):
        current = np.empty_like(last)
        current[0] = i
        for j in range(1, width + 1):
            is_other = columns[j - 1] != ord(letter)
            best = np.minimum(last[j], current[j - 1]) + 1
            np.minimum(best, last[j - 1] + is_other, out=best)
            if i > 1 and j > 1:
                swapped = (columns[j - 2] == ord(letter)) & (columns[j - 1] == ord(word[i - 2]))
                best = np.where(swapped, np.minimum(best, before_last[j - 2] + 1), best)
            current[j] = best
        before_last, last = last, current
    lengths = (letters != 0).sum(axis=1)
    distances: Int64Array = last[lengths, np.arange(count)].astype(np.int64)
    return distances


def _code_points(words: Sequence[str]) -> UInt32Array:
    """uint32[M, LONGEST], zeros behind the end of each word."""
    if not words:
        return np.zeros((0, LONGEST), np.uint32)
    return np.array(words, f"U{LONGEST}").view(np.uint32).reshape(len(words), LONGEST)
