"""Who writes queries for a history: a model of this process, free or held to the catalog's n-grams.

It knows decoders, grammars and what a query request says. It searches for no item; another writer, behind a
:class:`~genrec.text_generator.TextGenerator`, is in :mod:`genrec.generated_queries`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from genrec.decoders.base import Decoder
from genrec.decoders.counted_decoder import counted_decoder
from genrec.grammars.base import Grammar
from genrec.grammars.catalog_ngrams import CatalogNgrams, ItemNgrams, catalog_ngrams
from genrec.grammars.planned import Planned
from genrec.grammars.text import Text
from genrec.queries import QueryRequest
from genrec.speech import Speech
from genrec.text_beams import Beams
from genrec.text_samples import Samples
from genrec.text_search import Written, write
from index.bm25.analyzer import analyze
from index.item_filter import Allowed, RankBitmap
from index.ngram_trie import NgramTrie
from index.types import BoolArray, Int64Array

LENGTH_PENALTY = 0.0
"""Queries are ranked by their probability. Divided by their length, as by default in Hugging Face, long ones win."""
FREE_TOKENS = 32
"""Most tokens of a free query."""
_DRAWS = 2  # texts drawn for each query wanted: some say the same
_FREE = Text(without="\n")


@dataclass(frozen=True, slots=True)
class WrittenQuery:
    """A query, before anything is searched with it."""

    text: str
    score: float  # what it is ranked by; higher is better
    log_probability: float


class QueryWriter(Protocol):
    """Writes queries."""

    @property
    def finds_always(self) -> bool:
        """Whether a query held to ``catalog_ngrams`` finds an item: then writing again goes on to something new."""

    @property
    def calls(self) -> int:
        """How often the model behind it has been called so far."""

    def write(
        self, requests: Sequence[QueryRequest], found: Sequence[Int64Array]
    ) -> list[list[WrittenQuery]]:
        """At most m queries for each request, none of the words of another; best first.

        Args:
            requests: B of them.
            found: for each, the rows that have been found already. Constrained queries find others; where there are
                no others, none is written.

        Raises:
            RequestError: a wish that this writer cannot follow.
        """


def different(texts: Sequence[str]) -> list[int]:
    """Places of the texts that say something to BM25, of those that say the same the first."""
    first: dict[tuple[str, ...], int] = {}
    for place, terms in enumerate(analyze(texts)):
        if terms:
            first.setdefault(tuple(sorted(terms)), place)
    return list(first.values())


class ModelQueries:
    """Queries that a decoder writes, by beams or drawn.

    Args:
        decoder: writes text in the speech's vocabulary.
        speech: the model's.
    """

    finds_always = True

    def __init__(self, decoder: Decoder, speech: Speech) -> None:
        self._decoder = counted_decoder(decoder)
        self._speech = speech
        self._codes = speech.index.trie

    @property
    def calls(self) -> int:
        """Runs of the model so far."""
        return self._decoder.calls

    @cached_property
    def ngrams(self) -> NgramTrie:
        """What constrained queries are held to; made when the first is asked for."""
        return catalog_ngrams(self._speech.index, self._speech.vocabulary)

    def write(
        self, requests: Sequence[QueryRequest], found: Sequence[Int64Array]
    ) -> list[list[WrittenQuery]]:
        """See :meth:`QueryWriter.write`."""
        queries: list[list[WrittenQuery]] = [[] for _ in requests]
        groups: dict[tuple[bool, Beams | Samples], list[int]] = {}
        for place, request in enumerate(requests):
            if self._has_more(request, found[place]):
                groups.setdefault((request.constraint == "free", _method(request)), []).append(place)
        for (is_free, shared), places in groups.items():
            method = shared
            if isinstance(shared, Samples):  # each draws from its own seed, and all are written together
                seeds = [requests[place].sample_seed for place in places]
                method = replace(shared, seeds=tuple(seed for seed in seeds if seed is not None))
            grammars = [self._grammar(requests[place], found[place]) for place in places]
            most = FREE_TOKENS if is_free else self.ngrams.trie.longest_path
            texts = write(
                self._decoder,
                self._speech.vocabulary,
                [requests[place].prompt for place in places],
                grammars,
                method,
                max_tokens=most + len(self._speech.vocabulary.facts.plan),
                normalize="vocabulary",
            )
            for place, own in zip(places, texts, strict=True):
                queries[place] = _queries(own)[: requests[place].queries]
        return queries

    def _grammar(self, request: QueryRequest, found: Int64Array) -> Grammar:
        """What the queries of a request are held to."""
        is_free = request.constraint == "free"
        if not self._speech.vocabulary.facts.plan:
            if is_free:
                return _FREE
            excluded = np.concatenate([request.exclude, found])
            return CatalogNgrams(self.ngrams, self.ngrams.allowed(request.allowed, excluded))
        allowed = self._plans(request, found)
        if is_free:
            return Planned(_FREE, self._codes, allowed)
        item = self._codes.item_at_rank
        return Planned(
            CatalogNgrams(self.ngrams, Allowed()),
            self._codes,
            allowed,
            lambda rank: ItemNgrams(self.ngrams, int(item[rank])),
        )

    def _has_more(self, request: QueryRequest, found: Int64Array) -> bool:
        """Whether there is something to write: for queries with a plan or held to n-grams, an allowed item that has
        words and has not been found yet."""
        if self._speech.vocabulary.facts.plan:
            return not self._plans(request, found).is_empty(len(self._codes))
        return request.constraint == "free" or bool(self._findable(request, found).any())

    def _plans(self, request: QueryRequest, found: Int64Array) -> Allowed:
        """The items that queries with a plan may be about, by rank."""
        findable = self._findable(request, found)
        return Allowed.from_bitmap(RankBitmap.from_mask(findable[np.asarray(self._codes.item_at_rank)]))

    def _findable(self, request: QueryRequest, found: Int64Array) -> BoolArray:
        """bool[N]: the allowed items that have words and have not been found yet."""
        is_free = request.constraint == "free"
        findable = self._speech.is_titled.copy() if is_free else np.diff(self.ngrams.begin) > 0
        if request.allowed is not None:
            findable &= request.allowed
        findable[request.exclude] = False
        findable[found] = False
        return findable


def _method(request: QueryRequest) -> Beams | Samples:
    """How the queries of a request are found, the seed of samples left out."""
    if request.sample_seed is not None:
        return Samples(_DRAWS * request.queries)
    width, groups, strength = max(request.beam, request.queries), 1, 1.0
    if request.diversity is not None:
        groups, strength = request.diversity.groups, request.diversity.strength
        width = -(-width // groups) * groups
    return Beams(width, length_penalty=LENGTH_PENALTY, groups=groups, diversity=strength)


def _queries(texts: Sequence[Written]) -> list[WrittenQuery]:
    kept = [texts[place] for place in different([one.value for one in texts])]
    return [WrittenQuery(one.value, one.score, float(one.log_probabilities.sum())) for one in kept]
