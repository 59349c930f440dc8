"""Catalog n-grams: text that must be a run of words of some allowed item's text, so that it finds one.

It joins what a grammar is to a search with :mod:`index.ngram_walk`, where the rules are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.grammars.base import Edges, End, GrammarState, Vocabulary
from index.bm25.analyzer import analyze
from index.errors import RequestError
from index.item_filter import Allowed
from index.item_index import ItemIndex
from index.ngram_trie import NgramTrie, build_ngram_trie, searched_texts
from index.ngram_walk import NgramPlace, NgramSteps, NgramWalk
from index.types import TokenId


def catalog_ngrams(index: ItemIndex, vocabulary: Vocabulary) -> NgramTrie:
    """The n-grams of a catalog in a vocabulary's tokens: of titles, where BM25 finds items by them.

    Raises:
        IdentifierError: the vocabulary's tokens do not show where a word begins.
    """
    texts, keeps_stop_words = searched_texts(index.catalog, index.bm25.settings, index.removed)

    def tokenize(words: Sequence[str]) -> list[list[TokenId]]:
        """Tokens of words; none of a word that would not come back as the same terms."""
        tokens = [one[:-1] for one in vocabulary.answers(words)]
        written = [vocabulary.decoded(one) for one in tokens]
        same = zip(tokens, analyze(words), analyze(written), strict=True)
        return [one if before == after else [] for one, before, after in same]

    return build_ngram_trie(texts, tokenize, vocabulary.end, keeps_stop_words=keeps_stop_words)


@dataclass(frozen=True, slots=True, eq=False)
class CatalogNgrams:
    """A run of words of the catalog; its value is a string.

    ``allowed`` are occurrences (:meth:`NgramTrie.allowed`): each text finds an item of theirs by BM25.
    """

    ngrams: NgramTrie
    allowed: Allowed

    def compile(self, vocabulary: Vocabulary) -> NgramAutomaton:
        """A whole answer.

        Raises:
            RequestError: there is no such run, or the n-grams are in the tokens of another vocabulary.
        """
        if self.ngrams.end != vocabulary.end or len(self.ngrams.starts_word) > vocabulary.size:
            raise RequestError("expected n-grams in the tokens of the model, got those of another vocabulary")
        walk = NgramWalk(self.ngrams, self.allowed)
        if walk.is_empty:
            raise RequestError(
                "expected an allowed item that has a word, got none; there is no query to write"
            )
        return NgramAutomaton(walk, vocabulary, self.ngrams.trie.longest_path)


class NgramAutomaton:
    """The automaton of :class:`CatalogNgrams`. States: places in the trie.

    ``needs`` is what the longest n-gram takes: with so much room none has to be given up on the way.
    """

    def __init__(self, walk: NgramWalk, vocabulary: Vocabulary, longest: int) -> None:
        self._walk = walk
        self._vocabulary = vocabulary
        self.start: GrammarState = walk.root
        self.needs = longest

    def edges(self, state: GrammarState, room: int) -> Edges:
        """The steps from a place; see the contract."""
        assert isinstance(state, NgramPlace)
        steps = self._walk.steps(state)
        allowed = None if steps.allowed.all() else steps.allowed
        return Edges(steps.token, lambda edge: _behind(steps, edge), allowed)

    def may_stop(self, state: GrammarState) -> bool:
        """Nowhere but at its end."""
        return False

    def read(self, tokens: Sequence[int], states: Sequence[GrammarState]) -> Any:
        """The words."""
        return _words(self._vocabulary, tokens)


@dataclass(frozen=True, slots=True, eq=False)
class ItemNgrams:
    """A run of words of one item's text; its value is a string.

    The runs are those of :class:`CatalogNgrams` with that item alone allowed; few as they are, they are looked at one
    by one, where the whole trie has thousands of ways on from its root.
    """

    ngrams: NgramTrie
    row: int  # of the catalog

    def compile(self, vocabulary: Vocabulary) -> ItemNgramAutomaton:
        """A whole answer.

        Raises:
            RequestError: the item has no such run.
        """
        return ItemNgramAutomaton(self.ngrams, self.row, vocabulary)


class ItemNgramAutomaton:
    """The automaton of :class:`ItemNgrams`. States: ``(first, end, depth)``, the item's paths that begin with the
    tokens written, of which there are ``depth``."""

    def __init__(self, ngrams: NgramTrie, row: int, vocabulary: Vocabulary) -> None:
        trie = ngrams.trie
        ranks = np.sort(trie.rank_of_item[int(ngrams.begin[row]) : int(ngrams.begin[row + 1])])
        if not len(ranks):
            raise RequestError(
                f"expected an item that has a word, got row {row}, which has none; there is no query to write"
            )
        self._paths = [
            trie.path(rank) for rank in ranks.tolist()
        ]  # in order, so that like ones are neighbours
        self._first_end = ngrams.first_end[ranks].tolist()
        self._ngrams = ngrams
        self._vocabulary = vocabulary
        self.start: GrammarState = (0, len(ranks), 0)
        self.needs = trie.longest_path

    def edges(self, state: GrammarState, room: int) -> Edges:
        """The next tokens of the paths, and the end where a word ends; see the contract."""
        assert isinstance(state, tuple)
        first, end, depth = state
        tokens, behind = [], []
        while first < end:
            token, begin = self._paths[first][depth], first
            while first < end and self._paths[first][depth] == token:
                first += 1
            tokens.append(token)
            behind.append(End() if token == self._ngrams.end else (begin, first, depth + 1))
            ends_word = self._ngrams.starts_word[token] and depth >= self._first_end[begin]
            if ends_word and self._ngrams.end not in tokens:
                tokens.append(self._ngrams.end)
                behind.append(End())
        distinct = list(dict.fromkeys(zip(tokens, behind, strict=True)))
        return Edges(np.array([token for token, _ in distinct], np.int64), lambda edge: distinct[edge][1])

    def may_stop(self, state: GrammarState) -> bool:
        """Nowhere but at its end."""
        return False

    def read(self, tokens: Sequence[int], states: Sequence[GrammarState]) -> Any:
        """The words."""
        return _words(self._vocabulary, tokens)


def _words(vocabulary: Vocabulary, tokens: Sequence[int]) -> str:
    return vocabulary.decoded([token for token in tokens if token != vocabulary.end]).strip()


def _behind(steps: NgramSteps, edge: int) -> GrammarState:
    return End() if edge == steps.ends else steps.behind(edge)
