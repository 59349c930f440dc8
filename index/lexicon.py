"""Lexicon: from what a person types to items: exact titles, completion, and other spellings.

Titles are *folded* (case, accents and punctuation do not matter). Folded titles and their words are kept as sorted
bytes, so that a prefix is one range of ranks found by bisection, and the items below it are one slice of an array.
Everything is a flat array: an index carries its lexicon as files that are mapped into memory, where making it of a
million titles takes ten seconds. This module knows titles and rows, no model.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise, product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from index.artifact import load_array, save_array
from index.errors import IndexFormatError
from index.spelling import WordList
from index.types import BoolArray, FloatArray, Int32Array, Int64Array, IntArray

_WORD = re.compile(r"[^\W_]+")
_HIGHEST = b"\xff"  # above every byte of UTF-8
_ARRAYS = ("text", "starts", "offsets", "rows")
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
    """K keys in order of their bytes in UTF-8, that of their code points; each with the rows it stands for."""

    text: npt.NDArray[np.uint8]  # all keys, one after the other
    starts: Int64Array  # [K + 1] into text
    offsets: Int64Array  # [K + 1] into rows
    rows: Int32Array

    @classmethod
    def build(cls, pairs: pl.DataFrame) -> _Postings:
        """From columns ``key`` and ``row``, in any order."""
        pairs = pairs.sort("key", "row")  # polars compares bytes of UTF-8
        lengths = pairs["key"].rle().struct.unnest()
        keys = lengths["value"]
        text = np.frombuffer("".join(keys.to_list()).encode(), np.uint8)
        starts = np.concatenate([[0], np.cumsum(keys.str.len_bytes().to_numpy(), dtype=np.int64)])
        offsets = np.concatenate([[0], np.cumsum(lengths["len"].to_numpy(), dtype=np.int64)])
        return cls(text, starts, offsets, pairs["row"].to_numpy())

    @classmethod
    def load(cls, directory: Path, name: str, items: int) -> _Postings:
        """What :meth:`save` wrote, mapped into memory.

        Raises:
            IndexFormatError: the arrays do not fit together or an index of ``items`` items.
        """
        text, starts, offsets, rows = (load_array(directory, f"{name}_{one}") for one in _ARRAYS)
        fits = len(starts) == len(offsets) > 0 and starts[-1] == len(text) and offsets[-1] == len(rows)
        if not fits or (len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < items):
            raise IndexFormatError(
                f"expected the {name} of {items} items in {directory}, got arrays that do not fit; rebuild the index"
            )
        return cls(
            np.asarray(text, np.uint8),
            np.asarray(starts, np.int64),
            np.asarray(offsets, np.int64),
            np.asarray(rows, np.int32),
        )

    def save(self, directory: Path, name: str) -> None:
        """Four arrays."""
        for one in _ARRAYS:
            save_array(directory, f"{name}_{one}", getattr(self, one))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def key(self, rank: int) -> bytes:
        """The key at a rank."""
        return self.text[self.starts[rank] : self.starts[rank + 1]].tobytes()

    def keys(self) -> list[str]:
        """All keys, in order."""
        text = self.text.tobytes()
        starts = self.starts.tolist()
        return [text[start:end].decode() for start, end in pairwise(starts)]

    def of(self, key: str) -> slice:
        """Where the rows of one key lie."""
        wanted = key.encode()
        rank = bisect_left(range(len(self)), wanted, key=self.key)
        if rank == len(self) or self.key(rank) != wanted:
            return slice(0, 0)
        return slice(int(self.offsets[rank]), int(self.offsets[rank + 1]))

    def below(self, prefix: str) -> slice:
        """Where the rows of all keys with this prefix lie."""
        ranks, wanted = range(len(self)), prefix.encode()
        low = bisect_left(ranks, wanted, key=self.key)
        high = bisect_left(ranks, wanted + _HIGHEST, lo=low, key=self.key)
        return slice(int(self.offsets[low]), int(self.offsets[high]))


class Lexicon:
    """Titles ↔ catalog rows. Make one with :meth:`build`; it never changes and threads may share it.

    Example::

        lexicon = Lexicon.build(catalog.titles)
        lexicon.complete("blade ru")  # rows of "Blade Runner", "Blade Runner 2049"
        lexicon.did_you_mean("blede runer")  # ["blade runner"]
    """

    def __init__(
        self,
        titles: _Postings,
        words: _Postings,
        count: int,
        popularity: FloatArray | None = None,
        hidden: BoolArray | None = None,
    ) -> None:
        self._titles = titles
        self._words = words
        self._count = count
        self._popularity = popularity  # [N] by row
        self._hidden = hidden  # [N] by row: found by nothing

    @classmethod
    def build(
        cls, titles: Sequence[str], popularity: FloatArray | None = None, skip: IntArray | None = None
    ) -> Lexicon:
        """Compile a catalog's titles.

        Args:
            titles: N titles by row; an empty one is found by nothing.
            popularity: float[N], how completions are ordered, most popular first; by title where not given.
            skip: rows to leave out.
        """
        entries = pl.DataFrame(
            {"key": [folded(title) for title in titles], "row": np.arange(len(titles), dtype=np.int32)},
            schema_overrides={"key": pl.String},
        )
        if skip is not None:
            entries = entries.filter(~np.isin(np.arange(len(titles)), skip))
        entries = entries.filter(pl.col("key") != "")
        words = entries.with_columns(pl.col("key").str.split(" ")).explode("key").unique()
        return cls(_Postings.build(entries), _Postings.build(words), len(titles), popularity)

    @classmethod
    def load(cls, directory: Path, items: int) -> Lexicon:
        """What :meth:`save` wrote, mapped into memory.

        Raises:
            IndexFormatError: the files are no lexicon of so many items.
        """
        return cls(
            _Postings.load(directory, "titles", items), _Postings.load(directory, "words", items), items
        )

    def save(self, directory: Path) -> None:
        """Write arrays into a directory; popularity and what :meth:`without` hides are the caller's."""
        self._titles.save(directory, "titles")
        self._words.save(directory, "words")

    def without(self, rows: IntArray) -> Lexicon:
        """The same lexicon where some items, such as removed ones, are found by nothing."""
        if not len(rows):
            return self
        hidden = np.zeros(self._count, bool) if self._hidden is None else self._hidden.copy()
        hidden[rows] = True
        return Lexicon(self._titles, self._words, self._count, self._popularity, hidden)

    def rows_of(self, title: str) -> list[int]:
        """Rows of the items with this title, up to folding, ascending."""
        rows: list[int] = self._shown(self._titles, self._titles.of(folded(title))).tolist()
        return rows

    def complete(self, text: str, limit: int = 10) -> list[int]:
        """Rows of items for a text that is still being typed, at most ``limit``.

        First the titles that begin with it, then titles with its words anywhere (the last one may be cut
        short). Within both the most popular first, then by title, then by row.
        """
        wanted = folded(text)
        first = self._shown(self._titles, self._titles.below(wanted))
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
        return len(self._shown(self._words, part)) > 0

    def _with_words(self, words: list[str]) -> Int32Array:
        """int32: rows, ascending, of titles with all words; the last may be the beginning of one."""
        rows: Int32Array = np.unique(self._shown(self._words, self._words.below(words[-1])))
        for word in words[:-1]:
            rows = np.intersect1d(rows, self._words.rows[self._words.of(word)], assume_unique=True)
        return rows

    def _shown(self, postings: _Postings, part: slice) -> Int32Array:
        """int32: the rows of a part that are not hidden, in their order."""
        rows = postings.rows[part]
        return rows if self._hidden is None else rows[~self._hidden[rows]]

    @cached_property
    def _place(self) -> Int64Array:
        """int64[N]: of every row in the order of titles."""
        place = np.zeros(self._count, np.int64)
        place[self._titles.rows] = np.arange(len(self._titles.rows))
        return place

    @cached_property
    def _spelling(self) -> WordList:
        return WordList(self._words.keys(), np.diff(self._words.offsets))

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
