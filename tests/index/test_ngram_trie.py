"""n-grams of a catalog: which queries there are, by eye and by brute force, and that each has a hit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.bm25.analyzer import CONTENT, NOTHING, STOP_ONLY, word_kinds
from index.bm25.base import Bm25Settings
from index.bm25.bm25s_index import Bm25sIndex
from index.catalog import Catalog
from index.errors import IdentifierError, RequestError
from index.ngram_trie import NgramTrie, build_ngram_trie, searched_texts
from index.ngram_walk import NgramPlace, NgramWalk
from index.types import BoolArray, IntArray

END = 0


class Pieces:
    """A tokenizer that writes a word as a first piece of two letters, marked by a space, and pieces of one."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def __call__(self, words: Sequence[str]) -> list[list[int]]:
        pieces = [[f" {word[:2]}", *word[2:]] for word in words]
        return [[self.ids.setdefault(piece, len(self.ids) + 1) for piece in one] for one in pieces]

    def text(self, tokens: Sequence[int]) -> str:
        names = {number: piece for piece, number in self.ids.items()}
        return "".join(names[token] for token in tokens).strip()


def ngrams_of(texts: Sequence[str], **settings: int) -> tuple[NgramTrie, Pieces]:
    pieces = Pieces()
    return build_ngram_trie(texts, pieces, END, **settings), pieces


def queries_of(
    ngrams: NgramTrie,
    text: Callable[[list[int]], str],
    rows: BoolArray | None = None,
    exclude: IntArray | None = None,
) -> list[str]:
    """Every query that a walk can write, in the order of its steps."""
    walk = NgramWalk(ngrams, ngrams.allowed(rows, exclude))
    written: list[str] = []

    def go_on(place: NgramPlace, tokens: list[int]) -> None:
        steps = walk.steps(place)
        assert len(set(steps.token.tolist())) == len(steps.token)
        assert steps.allowed.any(), "a place without a way on"
        for number, token in enumerate(steps.token.tolist()):
            if not steps.allowed[number]:
                continue
            if number == steps.ends:
                assert token == END
                written.append(text(tokens))
            else:
                go_on(steps.behind(number), [*tokens, token])

    if not walk.is_empty:
        go_on(walk.root, [])
    return written


FILMS = ["Night Train", "The Night", "It", "Nightmare", "", "Train to the Night"]


def test_queries_by_eye() -> None:
    ngrams, pieces = ngrams_of(FILMS)
    assert sorted(queries_of(ngrams, pieces.text)) == [
        "It",  # a title of stop words only keeps them
        "Night",
        "Night Train",
        "Nightmare",
        "The Night",  # but not "The": nothing is found by it
        "Train",
        "Train to",
        "Train to the",
        "Train to the Night",
        "the Night",
        "to the Night",
    ]


def test_a_word_within_a_longer_one_is_no_query() -> None:
    """ "Night" is written as tokens that "Nightmare" begins with; only some of the texts below end a word there."""
    ngrams, pieces = ngrams_of(FILMS)
    only = np.isin(np.arange(6), [3])
    assert queries_of(ngrams, pieces.text, only) == ["Nightmare"]
    assert queries_of(ngrams, pieces.text, np.isin(np.arange(6), [1, 3])) == [
        "Night",
        "Nightmare",
        "The Night",
    ]


def test_what_was_seen_or_is_not_wanted_leads_nowhere() -> None:
    ngrams, pieces = ngrams_of(FILMS)
    assert queries_of(ngrams, pieces.text, exclude=np.array([0, 1, 5, 5, 3])) == ["It"]
    assert queries_of(ngrams, pieces.text, np.isin(np.arange(6), [2, 4]), np.array([2])) == []
    assert queries_of(ngrams, pieces.text, np.zeros(6, bool)) == []
    only_empty, pieces = ngrams_of(["", " "])
    assert queries_of(only_empty, pieces.text) == []
    none_at_all, pieces = ngrams_of([])
    assert queries_of(none_at_all, pieces.text) == []


def test_length_is_bounded_in_words_and_in_tokens() -> None:
    ngrams, pieces = ngrams_of(["ab cd ef", "the the the gh"], max_words=2)
    assert sorted(queries_of(ngrams, pieces.text)) == ["ab", "ab cd", "cd", "cd ef", "ef", "gh", "the gh"]
    # "abcd" is three tokens: it fits alone, and with a word of one, and the long word not at all.
    ngrams, pieces = ngrams_of(["abcd ef gh abcdefg ij"], max_tokens=4)
    assert sorted(queries_of(ngrams, pieces.text)) == ["abcd", "abcd ef", "ef", "ef gh", "gh", "ij"]
    assert ngrams.trie.longest_path == 5


def test_a_word_that_cannot_be_written_parts_the_text() -> None:
    pieces = Pieces()

    def tokenize(words: Sequence[str]) -> list[list[int]]:
        return [[] if word == "東京" else tokens for word, tokens in zip(words, pieces(words), strict=True)]

    ngrams = build_ngram_trie(["red 東京 blue"], tokenize, END)
    assert queries_of(ngrams, pieces.text) == ["red", "blue"]


def test_tokens_that_do_not_show_where_a_word_begins_are_refused() -> None:
    ids = {letter: number + 1 for number, letter in enumerate("abcdefgh")}
    with pytest.raises(IdentifierError, match="tokenizer whose tokens show where a word begins"):
        build_ngram_trie(["abc bad"], lambda words: [[ids[letter] for letter in word] for word in words], END)
    with pytest.raises(IdentifierError, match="without the terminator 2"):
        build_ngram_trie(["abc"], lambda words: [[1, 2] for _ in words], 2)
    with pytest.raises(IdentifierError, match="expected the tokens of 1 words, got those of 0"):
        build_ngram_trie(["abc"], lambda words: [], END)
    with pytest.raises(RequestError, match="got 0 and 48"):
        ngrams_of(["abc"], max_words=0)


# --- which text of an item ------------------------------------------------------------------------------


def test_kinds_of_texts() -> None:
    kinds = [NOTHING, NOTHING, STOP_ONLY, STOP_ONLY, CONTENT, CONTENT]
    assert word_kinds(["", " -- !", "It", "Be-in", "Onto it", "2"]) == kinds


def test_the_title_speaks_where_it_is_indexed() -> None:
    catalog = Catalog(
        pl.DataFrame(
            {
                "item_id": list("abcdef"),
                "title": ["Red Shoe", "", "It", "The", "--", "Gone"],
                "about": ["for feet", "a hat", "a clown", None, "in", "x"],
            }
        )
    )
    removed = np.array([5])
    texts, keeps = searched_texts(catalog, Bm25Settings(), removed)
    assert texts == ["Red Shoe", "a hat", "It. a clown", "The", "--. in", ""]
    assert keeps.tolist() == [False, False, False, True, True, False]
    weighted = Bm25Settings(weights={"about": 1, "title": 2})
    texts, keeps = searched_texts(catalog, weighted, removed)
    assert texts == ["Red Shoe", "a hat", "a clown", "The", "in", ""]  # a field is analysed by itself
    assert keeps.tolist() == [False, False, False, True, True, False]
    texts, _ = searched_texts(catalog, Bm25Settings(weights={"about": 1}), removed)
    assert texts == ["for feet", "a hat", "a clown", "", "in", ""]


# --- against brute force --------------------------------------------------------------------------------

WORDS = ["night", "nightly", "ni", "the", "of", "it", "red", "re", "--", "l'a", "Night", "the-of", "2"]
titles = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
masks = st.none() | st.lists(st.booleans(), min_size=8, max_size=8).map(np.array)


@settings(deadline=None, max_examples=300)
@given(
    catalog=st.lists(st.tuples(titles, titles), max_size=8),
    max_words=st.integers(1, 5),
    max_tokens=st.integers(1, 12),
    weights=st.sampled_from([None, {"title": 1}, {"about": 2}, {"about": 1, "title": 3}]),
    mask=masks,
    data=st.data(),
)
def test_every_query_has_a_hit_and_every_ngram_with_one_is_a_query(
    catalog: list[tuple[str, str]],
    max_words: int,
    max_tokens: int,
    weights: dict[str, int] | None,
    mask: BoolArray | None,
    data: st.DataObject,
) -> None:
    frame = pl.DataFrame(
        {
            "item_id": [str(row) for row in range(len(catalog))],
            "title": [title for title, _ in catalog],
            "about": [about for _, about in catalog],
        },
        schema={"item_id": pl.String, "title": pl.String, "about": pl.String},
    )
    items = Catalog(frame)
    chosen = Bm25Settings(weights=weights)
    fields = {name: items.frame[name].to_list() for name in weights or ()}
    bm25 = Bm25sIndex.build(fields if weights else items.texts(), weights=weights)
    texts, keeps = searched_texts(items, chosen)
    pieces = Pieces()
    ngrams = build_ngram_trie(
        texts, pieces, END, keeps_stop_words=keeps, max_words=max_words, max_tokens=max_tokens
    )
    rows = None if mask is None else mask[: len(catalog)]
    seen = np.array(
        data.draw(st.lists(st.integers(0, len(catalog) - 1), max_size=3)) if catalog else [], np.int64
    )
    found = queries_of(ngrams, pieces.text, rows, seen)
    assert len(set(found)) == len(found)
    hits = bm25.search(found, 1, [seen] * len(found), [rows] * len(found))
    assert all(len(one.rows) for one in hits), [
        q for q, one in zip(found, hits, strict=True) if not len(one.rows)
    ]

    # Every run of words of an allowed item's text that finds this very item, within the bounds.
    for row, text in enumerate(texts):
        if row in seen or (rows is not None and not rows[row]):
            continue
        words = text.split()
        for start in range(len(words)):
            for stop in range(start + 1, min(start + max_words, len(words)) + 1):
                run = words[start:stop]
                if sum(map(len, pieces(run))) > max_tokens:
                    continue
                content = [word for word in run if word_kinds([word])[0] == CONTENT]
                if content:
                    assert " ".join(run) in found
        if keeps[row] and word_kinds([words[-1]])[0] and len(pieces(words[-1:])[0]) <= max_tokens:
            assert words[-1] in found
