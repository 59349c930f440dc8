"""Catalog n-grams: text that must be a run of words of some allowed item's text, so that it finds one.

It joins what a grammar is to a search with :mod:`index.ngram_walk`, where the rules are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
        return self._vocabulary.decoded([token for token in tokens if token != self._vocabulary.end]).strip()


def _behind(steps: NgramSteps, edge: int) -> GrammarState:
    return End() if edge == steps.ends else steps.behind(edge)
