"""QuerySearch at work: the model writes queries, BM25 finds items by them, and they are merged into one answer.

The story of a batch: prompts → queries (:mod:`genrec.text_search`, free or held to the catalog's n-grams) → items
(:mod:`genrec.grounding`) → what a user should know of them.

A beam finds more queries than are used. The m best with *different* words are: two that BM25 reads alike find the
same items. Queries held to n-grams are written again, without what has been found, until the answer is full or
nothing else is allowed: each finds something new. Free queries may find nothing, and the answer may stay short.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from genrec.decoders.base import Decoder
from genrec.grammars.base import Grammar
from genrec.grammars.catalog_ngrams import CatalogNgrams, catalog_ngrams
from genrec.grammars.text import Text
from genrec.grounding import Grounded, Query, ground, matched_terms
from genrec.queries import QueryRequest, QueryResult, UsedQuery
from genrec.speech import Speech
from genrec.tasks import QueryDefaults
from genrec.text_beams import Beams
from genrec.text_samples import Samples
from genrec.text_search import Written, write
from index.bm25.analyzer import analyze
from index.bm25.base import Bm25, TermScore
from index.counted import counted
from index.item_filter import Allowed
from index.ngram_trie import NgramTrie
from index.types import Int64Array

LENGTH_PENALTY = 0.0
"""Queries are ranked by their probability. Divided by their length, as by default in Hugging Face, long ones win."""
FREE_TOKENS = 32
"""Most tokens of a free query."""


_DRAWS = 2  # texts drawn for each query wanted: some say the same
_FREE = Text(without="\n")


@dataclass(frozen=True, slots=True)
class _Found:
    """What has been found for one request so far."""

    queries: list[Query] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    query: list[int] = field(default_factory=list)

    def add(self, written: Sequence[Written], grounded: Grounded) -> None:
        """Put what more queries found behind it."""
        before = len(self.queries)
        self.queries.extend(Query(one.value, one.score) for one in written)
        self.log_probabilities.extend(float(one.log_probabilities.sum()) for one in written)
        self.rows.extend(grounded.rows.tolist())
        self.scores.extend(grounded.scores.tolist())
        self.query.extend((grounded.query + before).tolist())


class CatalogQuerySearch:
    """Finds items of one catalog by queries of one model; see :class:`genrec.queries.QuerySearch`.

    Args:
        decoder: writes text in the speech's vocabulary.
        speech: the model's.
        defaults: ``k1`` and ``b`` of BM25; those of the index where they are None.
        bm25: instead of the index's own.
    """

    def __init__(
        self,
        decoder: Decoder,
        speech: Speech,
        defaults: QueryDefaults | None = None,
        bm25: Bm25 | None = None,
    ) -> None:
        defaults = defaults or QueryDefaults()
        self._decoder = decoder
        self._speech = speech
        self.bm25: Bm25 = bm25 or speech.index.bm25_scored_by(defaults.k1, defaults.b)

    @cached_property
    def ngrams(self) -> NgramTrie:
        """What constrained queries are held to; made when the first is asked for."""
        return catalog_ngrams(self._speech.index, self._speech.vocabulary)

    def search(self, requests: Sequence[QueryRequest]) -> list[QueryResult]:
        """The items of each request, as if it had been asked alone."""
        found = [_Found() for _ in requests]
        waiting = list(range(len(requests)))
        while waiting:
            written = self._write([requests[place] for place in waiting], [found[place] for place in waiting])
            grounded = self._ground(requests, found, waiting, written)
            more = []
            for place, texts, items in zip(waiting, written, grounded, strict=True):
                found[place].add(texts, items)
                is_short = len(found[place].rows) < requests[place].k
                if requests[place].constraint == "catalog_ngrams" and is_short and len(items.rows):
                    more.append(place)
            waiting = more
        return [self._result(one) for one in found]

    def queries(self, requests: Sequence[QueryRequest]) -> list[list[Query]]:
        """The queries alone, best first: what :meth:`search` begins with."""
        written = self._write(requests, [_Found() for _ in requests])
        return [[Query(one.value, one.score) for one in texts] for texts in written]

    def _write(self, requests: Sequence[QueryRequest], found: Sequence[_Found]) -> list[list[Written]]:
        """At most m queries for each request, of different words; none where nothing is left to find."""
        written: list[list[Written]] = [[] for _ in requests]
        groups: dict[tuple[bool, Beams | Samples], list[int]] = {}
        for place, request in enumerate(requests):
            is_free = request.constraint == "free"
            if is_free or self._has_more(request, found[place]):
                groups.setdefault((is_free, _method(request)), []).append(place)
        for (is_free, method), places in groups.items():
            grammars: Sequence[Grammar] = (
                [_FREE] * len(places)
                if is_free
                else [
                    CatalogNgrams(self.ngrams, self._occurrences(requests[one], found[one])) for one in places
                ]
            )
            texts = write(
                self._decoder,
                self._speech.vocabulary,
                [requests[place].prompt for place in places],
                grammars,
                method,
                max_tokens=FREE_TOKENS if is_free else self.ngrams.trie.longest_path,
                normalize="vocabulary",
            )
            for place, own in zip(places, texts, strict=True):
                written[place] = _different(own)[: requests[place].queries]
        return written

    def _has_more(self, request: QueryRequest, found: _Found) -> bool:
        """Whether an allowed item with words has not been found yet."""
        indexed = np.diff(self.ngrams.begin) > 0
        if request.allowed is not None:
            indexed &= request.allowed
        indexed[request.exclude] = False
        indexed[found.rows] = False
        return bool(indexed.any())

    def _occurrences(self, request: QueryRequest, found: _Found) -> Allowed:
        return self.ngrams.allowed(request.allowed, _excluded(request, found))

    def _ground(
        self,
        requests: Sequence[QueryRequest],
        found: Sequence[_Found],
        places: Sequence[int],
        written: Sequence[Sequence[Written]],
    ) -> list[Grounded]:
        return ground(
            [[Query(one.value, one.score) for one in texts] for texts in written],
            self.bm25,
            [requests[place].k - len(found[place].rows) for place in places],
            [requests[place].allowed for place in places],
            [_excluded(requests[place], found[place]) for place in places],
        )

    def _result(self, found: _Found) -> QueryResult:
        rows, scores = np.array(found.rows, np.int32), np.array(found.scores, np.float32)
        query = np.array(found.query, np.int64)
        terms = matched_terms(Grounded(rows, scores, query, len(rows)), found.queries, self.bm25)
        used = tuple(
            UsedQuery(
                text=one.text,
                score=found.log_probabilities[place],
                found=found.query.count(place),
                matched_terms=_words(
                    [own for own, by in zip(terms, found.query, strict=True) if by == place]
                ),
            )
            for place, one in enumerate(found.queries)
        )
        idle = sum(one.found == 0 for one in used)
        notes = (
            () if not idle else (f"{counted(idle, 'query', 'queries')} found no item that others had not",)
        )
        return QueryResult(rows, scores.astype(np.float64), query, tuple(terms), used, notes=notes)


def _method(request: QueryRequest) -> Beams | Samples:
    """How the queries of a request are found."""
    if request.sample_seed is not None:
        return Samples(_DRAWS * request.queries, request.sample_seed)
    width, groups, strength = max(request.beam, request.queries), 1, 1.0
    if request.diversity is not None:
        groups, strength = request.diversity.groups, request.diversity.strength
        width = -(-width // groups) * groups
    return Beams(width, length_penalty=LENGTH_PENALTY, groups=groups, diversity=strength)


def _different(texts: Sequence[Written]) -> list[Written]:
    """The texts that say something to BM25, the first of those that say the same."""
    first: dict[tuple[str, ...], Written] = {}
    for text, terms in zip(texts, analyze([one.value for one in texts]), strict=True):
        if terms:
            first.setdefault(tuple(sorted(terms)), text)
    return list(first.values())


def _words(terms: Sequence[Sequence[TermScore]]) -> tuple[str, ...]:
    """The distinct terms, in the order in which they come first."""
    return tuple(dict.fromkeys(one.term for of_item in terms for one in of_item))


def _excluded(request: QueryRequest, found: _Found) -> Int64Array:
    return np.concatenate([request.exclude, np.array(found.rows, np.int64)])
