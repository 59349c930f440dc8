"""NgramTrie: every run of words that some item's text holds, as token paths. What constrained queries walk.

A path starts at a word and goes on to the end of the text, or for so many words; it ends in the terminator. So the
trie is one of suffixes, and its "items" are *occurrences*: a rank is a place in a text, and every node covers the
occurrences of its run of words as one contiguous range. A query may end where any word ends, not only where paths
do: that *virtual* terminator is no node, it is read off the node's children (one that starts a word says that the
word before it has ended there). As a unique prefix may end early too, a walk goes down a leaf's tail token by token.

A run is a query only once it has an indexed term: stop words are indexed only in texts that have nothing else, and
there they end a query only at the end of the text.

::

    "Night Cream"   paths  night cream .      queries  night · night cream · cream
    "The Night"            the night .                 the night · night          ("the" alone finds nothing)
                           night .
                           cream .

It knows texts, token ids and items. It knows no tokenizer (words become tokens by a function) and no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from index.bm25.analyzer import CONTENT, NOTHING, STOP_ONLY, word_kinds
from index.bm25.base import Bm25Settings
from index.bm25.documents import catalog_texts
from index.catalog import Catalog
from index.errors import IdentifierError, RequestError
from index.item_filter import Allowed, RankBitmap
from index.trie import TokenTrie, build_trie_from_flat, ragged_positions
from index.types import BoolArray, Int64Array, IntArray, TokenId, Tokenize

MAX_WORDS = 8
"""Words of the longest n-gram, more than a query is taught to have (``genrec.query_words.QUERY_WORDS``)."""
MAX_TOKENS = 48
"""Tokens of the longest n-gram, the terminator not counted; longer ones end at an earlier word."""
_MOST_UNMARKED = 0.1  # of the distinct words


@dataclass(frozen=True, eq=False)
class NgramTrie:
    """The frozen trie, and what its ranks stand for."""

    trie: TokenTrie  # of S occurrences
    end: TokenId  # the terminator
    row: IntArray  # [S] by rank: the catalog row whose text it is
    begin: Int64Array  # [N + 1] by catalog row: its occurrences are begin[row] .. begin[row + 1] - 1, of rank
    # trie.rank_of_item[occurrence]
    first_end: IntArray  # [S] by rank: tokens to the end of the first word that is an indexed term
    starts_word: BoolArray  # [largest token + 1]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        own = (self.row, self.begin, self.first_end, self.starts_word)
        return self.trie.nbytes + sum(array.nbytes for array in own)

    def allowed(self, rows: BoolArray | None = None, exclude: IntArray | None = None) -> Allowed:
        """The occurrences in the texts of the items that a request may get.

        Args:
            rows: bool[N] over catalog rows, None for all.
            exclude: rows that are left out besides.
        """
        bitmap = None if rows is None else RankBitmap.from_mask(rows[self.row])
        if exclude is None:
            return Allowed(bitmap)
        gone = np.unique(exclude)
        begin = self.begin[gone]
        occurrences = ragged_positions(begin, self.begin[gone + 1] - begin)
        return Allowed.from_bitmap(bitmap, np.asarray(self.trie.rank_of_item[occurrences], np.int64))


def build_ngram_trie(
    texts: Sequence[str],
    tokenize: Tokenize,
    end: TokenId,
    *,
    keeps_stop_words: BoolArray | None = None,
    max_words: int = MAX_WORDS,
    max_tokens: int = MAX_TOKENS,
) -> NgramTrie:
    """The n-grams of a catalog's texts.

    Args:
        texts: N, in row order, any of them empty: words between white space.
        tokenize: words to the tokens of each as it stands behind another word, without a terminator. A word
            without tokens is one that cannot be written; no n-gram goes across it.
        end: the terminator, a token that no word has.
        keeps_stop_words: bool[N], texts whose stop words are indexed because there is nothing else; those
            without another word where not given.
        max_words: most words of an n-gram.
        max_tokens: most tokens of one.

    Raises:
        RequestError: ``max_words`` or ``max_tokens`` below 1.
        IdentifierError: the tokens do not show where a word begins, or a word has the terminator.
    """
    if max_words < 1 or max_tokens < 1:
        raise RequestError(f"expected max_words and max_tokens >= 1, got {max_words} and {max_tokens}")
    split = [text.split() for text in texts]
    lengths = np.fromiter(map(len, split), np.int64, len(split))
    number: dict[str, int] = {}
    word = np.fromiter(
        (number.setdefault(one, len(number)) for text in split for one in text), np.int64, int(lengths.sum())
    )
    distinct = list(number)
    kind = np.array(word_kinds(distinct), np.int64)[word]  # [W]
    row = np.repeat(np.arange(len(split)), lengths)  # [W]
    if keeps_stop_words is None:
        keeps_stop_words = np.bincount(row[kind == CONTENT], minlength=len(split)) == 0
    tokens, starts_word = _tokens(distinct, tokenize, end, max_tokens)
    size = np.fromiter(map(len, tokens), np.int64, len(tokens))[word]  # [W]
    runs = _runs(row, size, kind, keeps_stop_words, max_words, max_tokens)

    flat = np.fromiter((token for one in tokens for token in one), np.int64)
    of_word = np.concatenate([[0], np.cumsum([len(one) for one in tokens])]).astype(np.int64)
    sentence = flat[ragged_positions(of_word[word], size)]  # all texts as tokens; 0 of a word that breaks
    where = np.concatenate([[0], np.cumsum(size)])
    length = where[runs.stop] - where[runs.start]
    offsets = np.concatenate([[0], np.cumsum(length + 1)]).astype(np.int64)
    paths = np.full(int(offsets[-1]), end, np.int64)
    paths[ragged_positions(offsets[:-1], length)] = sentence[ragged_positions(where[runs.start], length)]
    trie = build_trie_from_flat(paths, offsets)
    begin = np.searchsorted(row[runs.start], np.arange(len(split) + 1)).astype(np.int64)
    first_end = np.where(runs.first >= 0, where[runs.first + 1] - where[runs.start], length + 1)
    return NgramTrie(
        trie=trie,
        end=end,
        row=_narrow(row[runs.start][trie.item_at_rank], len(split)),
        begin=begin,
        first_end=_narrow(first_end[trie.item_at_rank], max_tokens + 1),
        starts_word=starts_word,
    )


def searched_texts(
    catalog: Catalog, settings: Bm25Settings, removed: IntArray | None = None
) -> tuple[list[str], BoolArray]:
    """The text of each item that its n-grams come from, and whether BM25 keeps its stop words.

    The title where BM25 has one of its words; else the first other field (or the item's whole text, where fields
    are not weighted) of which it has one.

    Returns:
        N texts, empty where BM25 finds the item by nothing; bool[N].
    """
    fields = catalog_texts(catalog, settings.weights, removed)
    if isinstance(fields, Mapping):  # each analysed by itself, so each keeps or drops its own stop words
        columns = [fields[name] for name in sorted(fields, key=lambda name: name != "title")]
        analysed = columns
    else:
        titles = [title if text else "" for title, text in zip(catalog.titles, fields, strict=True)]
        columns, analysed = [titles, fields], [fields]
    kinds = [word_kinds(column) for column in columns]
    stop_only = [word_kinds(column) for column in analysed]
    texts, keeps = [""] * len(catalog), np.zeros(len(catalog), np.bool_)
    for row in range(len(catalog)):
        choice = _first(kinds, row, CONTENT)
        if choice is not None:
            texts[row] = columns[choice][row]
            continue
        choice = _first(stop_only, row, STOP_ONLY)
        if choice is not None:
            texts[row], keeps[row] = analysed[choice][row], True
    return texts, keeps


def _first(kinds: list[list[int]], row: int, kind: int) -> int | None:
    """The first column whose text in a row is of that kind."""
    return next((column for column, of_rows in enumerate(kinds) if of_rows[row] == kind), None)


@dataclass(frozen=True, slots=True)
class _Runs:
    """S runs of words ``start .. stop - 1``, as long as they can be; counted over the words of all texts."""

    start: Int64Array  # [S] ascending
    stop: Int64Array  # [S]
    first: Int64Array  # [S] the first word with an indexed term; -1 where only the whole run is one


def _runs(
    row: Int64Array,
    size: Int64Array,
    kind: Int64Array,
    keeps_stop_words: BoolArray,
    max_words: int,
    max_tokens: int,
) -> _Runs:
    """The longest run from every word that holds an indexed term."""
    words = len(row)
    if not words:
        return _Runs(np.arange(0), np.arange(0), np.arange(0))
    start = np.arange(words)
    text_ends = np.flatnonzero(np.append(row[1:] != row[:-1], True)) + 1
    where = np.concatenate([[0], np.cumsum(size)])
    stop = np.minimum.reduce(
        [
            text_ends[np.searchsorted(text_ends, start, side="right")],
            start + max_words,
            _next(size == 0),
            np.searchsorted(where, where[:-1] + max_tokens, side="right")
            - 1,  # words that end within the limit
        ]
    )
    first = _next(kind == CONTENT)
    has_term = first < stop
    # All terms of a text of stop words are indexed; so are those of its runs, which are queries as a whole.
    is_whole = keeps_stop_words[row] & (_next(kind != NOTHING) < stop)
    keep = np.flatnonzero(has_term | is_whole)
    return _Runs(start[keep], stop[keep], np.where(has_term, first, -1)[keep])


def _next(flags: BoolArray) -> Int64Array:
    """int64[W]: the first place from each on where a flag is set, W where there is none."""
    places = np.append(np.flatnonzero(flags), len(flags))
    return places[np.searchsorted(places, np.arange(len(flags)))].astype(np.int64)


def _tokens(
    words: list[str], tokenize: Tokenize, end: TokenId, max_tokens: int
) -> tuple[list[list[int]], BoolArray]:
    """Tokens of each distinct word, none where it breaks n-grams; and bool[tokens]: which of them start a word."""
    tokens = [one if len(one) <= max_tokens else [] for one in tokenize(words)]
    if len(tokens) != len(words):
        raise IdentifierError(f"expected the tokens of {len(words)} words, got those of {len(tokens)}")
    if any(end in one for one in tokens):
        raise IdentifierError(f"expected words without the terminator {end}, got it inside one")
    starts = {one[0] for one in tokens if one}
    unmarked = [place for place, one in enumerate(tokens) if not starts.isdisjoint(one[1:])]
    if len(unmarked) > _MOST_UNMARKED * len(words):
        raise IdentifierError(
            f"expected a tokenizer whose tokens show where a word begins, got {len(unmarked)} of {len(words)} words "
            f"that cannot be told from several, such as {words[unmarked[0]]!r}; queries of such a model are free"
        )
    for place in unmarked:
        tokens[place] = []
    largest = max((max(one) for one in tokens if one), default=0)
    starts_word = np.zeros(max(largest, end) + 1, np.bool_)
    starts_word[sorted(starts)] = True
    return tokens, starts_word


def _narrow(values: Int64Array, largest: int) -> IntArray:
    return values.astype(np.min_scalar_type(largest), copy=False)
