"""Lexicon: from what a person types to items: exact titles, completion, and other spellings.

Titles are *folded* (case, accents and punctuation do not matter). Folded titles and their words are kept in
marisa tries, which hold a million titles in some twenty megabytes; beside each lies the order of its keys, so
that a prefix is one range of ranks found by bisection, and the items below it are one slice of an array. This
module knows titles and rows, no model and no file.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import numpy as np
import polars as pl

from index.errors import require
from index.spelling import WordList
from index.types import FloatArray, Int32Array, Int64Array, IntArray

_WORD = re.compile(r"[^\W_]+")
_HIGHEST = "\U0010ffff"
_MOST_CORRECTED = 4  # misspelt words in one text that are corrected; beyond that a guess is worth nothing


def folded(text: str) -> str:
    """The text as it is compared: words without case and accents, one space between them.

    Unicode's compatibility decomposition, without combining marks, case-folded; ``"Amélie!"`` is ``"amelie"``
    and ``"Spider-Man"`` is ``"spider man"``. A text of punctuation alone stays what it is.
    """
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
        marked = "".join(one for one in decomposed if unicodedata.category(one) != "Mn")
    else:
        marked = text.casefold()
    words = " ".join(_WORD.findall(marked))
    # A lone surrogate can stand in a Python string, but in no trie.
    return words or " ".join(marked.encode("utf-8", "replace").decode().split())


@dataclass(frozen=True, eq=False)
class _Postings:
    """Keys in order of their code points, each with the rows it stands for."""

    trie: Any  # marisa_trie.Trie: key ↔ its own id
    id_at_rank: Int32Array  # [K] trie id of the key at each rank
    rank_of_id: Int32Array  # [K]
    offsets: Int64Array  # [K + 1] into rows
    rows: Int32Array

    @classmethod
    def build(cls, pairs: pl.DataFrame) -> _Postings:
        """From columns ``key`` and ``row``, in any order."""
        pairs = pairs.sort("key", "row")  # polars compares bytes of UTF-8: the order of code points
        lengths = pairs["key"].rle().struct.unnest()
        keys = lengths["value"].to_list()
        marisa_trie = require("marisa_trie", extra="serve", purpose="Finding items by title")
        trie = marisa_trie.Trie(keys)
        id_at_rank = np.fromiter((trie[key] for key in keys), np.int32, len(keys))
        rank_of_id = np.empty_like(id_at_rank)
        rank_of_id[id_at_rank] = np.arange(len(keys), dtype=np.int32)
        offsets = np.concatenate([[0], np.cumsum(lengths["len"].to_numpy(), dtype=np.int64)])
        return cls(trie, id_at_rank, rank_of_id, offsets, pairs["row"].to_numpy())

    def __len__(self) -> int:
        return len(self.id_at_rank)

    def key(self, rank: int) -> str:
        """The key at a rank."""
        key: str = self.trie.restore_key(int(self.id_at_rank[rank]))
        return key

    def keys(self) -> list[str]:
        """All keys, in order."""
        return [self.key(rank) for rank in range(len(self))]

    def of(self, key: str) -> slice:
        """Where the rows of one key lie."""
        number = self.trie.get(key)
        if number is None:
            return slice(0, 0)
        rank = int(self.rank_of_id[number])
        return slice(int(self.offsets[rank]), int(self.offsets[rank + 1]))

    def below(self, prefix: str) -> slice:
        """Where the rows of all keys with this prefix lie."""
        ranks = range(len(self))
        low = bisect_left(ranks, prefix, key=self.key)
        high = bisect_left(ranks, prefix + _HIGHEST, lo=low, key=self.key)
        return slice(int(self.offsets[low]), int(self.offsets[high]))


class Lexicon:
    """Titles ↔ catalog rows. Make one with :meth:`build`; it never changes and threads may share it.

    Example::

        lexicon = Lexicon.build(catalog.titles)
        lexicon.complete("blade ru")  # rows of "Blade Runner", "Blade Runner 2049"
        lexicon.did_you_mean("blede runer")  # ["blade runner"]
    """

    def __init__(
        self, titles: _Postings, words: _Postings, popularity: FloatArray | None, count: int
    ) -> None:
        self._titles = titles
        self._words = words
        self._popularity = popularity  # [N] by row
        self._place = np.zeros(count, np.int64)  # [N] of every row in the order of titles
        self._place[titles.rows] = np.arange(len(titles.rows))
        spelled = words.keys()
        self._spelling = WordList(spelled, np.diff(words.offsets))

    @classmethod
    def build(
        cls, titles: Sequence[str], popularity: FloatArray | None = None, skip: IntArray | None = None
    ) -> Lexicon:
        """Compile a catalog's titles.

        Args:
            titles: N titles by row; an empty one is found by nothing.
            popularity: float[N], how completions are ordered, most popular first; by title where not given.
            skip: rows to leave out, such as removed items.

        Raises:
            MissingDependencyError: marisa-trie is not installed.
        """
        entries = pl.DataFrame(
            {"key": [folded(title) for title in titles], "row": np.arange(len(titles), dtype=np.int32)},
            schema_overrides={"key": pl.String},
        )
        if skip is not None:
            entries = entries.filter(~np.isin(np.arange(len(titles)), skip))
        entries = entries.filter(pl.col("key") != "")
        words = entries.with_columns(pl.col("key").str.split(" ")).explode("key").unique()
        return cls(_Postings.build(entries), _Postings.build(words), popularity, len(titles))

    def rows_of(self, title: str) -> list[int]:
        """Rows of the items with this title, up to folding, ascending."""
        rows: list[int] = self._titles.rows[self._titles.of(folded(title))].tolist()
        return rows

    def complete(self, text: str, limit: int = 10) -> list[int]:
        """Rows of items for a text that is still being typed, at most ``limit``.

        First the titles that begin with it, then titles with its words anywhere (the last one may be cut
        short). Within both the most popular first, then by title, then by row.
        """
        wanted = folded(text)
        first = self._titles.rows[self._titles.below(wanted)]
        found = self._best(first, limit)
        if len(found) < limit and wanted:
            others = np.setdiff1d(self._with_words(wanted.split()), first)
            found += self._best(others[np.argsort(self._place[others])], limit - len(found))
        return found

    def did_you_mean(self, text: str, limit: int = 3) -> list[str]:
        """Other spellings of a text, folded, that complete to something; likely ones first.

        Words that no title has are replaced by words within one slip of the hand (two for words of six letters
        and more): a letter too many, too few, wrong, or two swapped. Nothing where every word is known.
        """
        words = folded(text).split()
        last = len(words) - 1
        known = [self._is_known(word, is_last=place == last) for place, word in enumerate(words)]
        if not 0 < known.count(False) <= _MOST_CORRECTED:
            return []
        choices = [
            [word] if is_known else self._spelling.near(word, limit)
            for word, is_known in zip(words, known, strict=True)
        ]
        # Products come with the last word changing fastest; every part is best first.
        spellings = (" ".join(choice) for choice in product(*choices))
        return [one for one in islice(spellings, limit**2) if self.complete(one, 1)][:limit]

    def _is_known(self, word: str, *, is_last: bool) -> bool:
        part = self._words.below(word) if is_last else self._words.of(word)
        return bool(part.stop > part.start)

    def _with_words(self, words: list[str]) -> Int32Array:
        """int32: rows, ascending, of titles with all words; the last may be the beginning of one."""
        rows: Int32Array = np.unique(self._words.rows[self._words.below(words[-1])])
        for word in words[:-1]:
            rows = np.intersect1d(rows, self._words.rows[self._words.of(word)], assume_unique=True)
        return rows

    def _best(self, rows: Int32Array, limit: int) -> list[int]:
        """The most popular of ``rows``, which come in the order of titles."""
        if self._popularity is not None and len(rows):
            by = -np.asarray(self._popularity[rows], np.float64)
            if len(rows) > limit:  # keep what ties with the limit-th, so that titles decide among them
                kept = np.flatnonzero(by <= np.partition(by, limit - 1)[limit - 1])
                rows, by = rows[kept], by[kept]
            rows = rows[np.argsort(by, kind="stable")]
        best: list[int] = rows[:limit].tolist()
        return best
