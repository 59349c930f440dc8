"""QuerySearch at work: queries are written, BM25 finds items by them, and they are merged into one answer.

The story of a batch: prompts → queries (:mod:`genrec.query_writers`) → items (:mod:`genrec.grounding`) → what a user
should know of them.

Queries held to n-grams are written again, without what has been found, until the answer is full or nothing else is
allowed: each finds something new. Free queries may find nothing, and the answer may stay short.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from genrec.grounding import Grounded, Query, ground, matched_terms
from genrec.queries import QueryRequest, QueryResult, UsedQuery
from genrec.query_writers import QueryWriter, WrittenQuery
from index.bm25.analyzer import analyze
from index.bm25.base import Bm25, TermScore
from index.counted import counted
from index.types import Int64Array


@dataclass(frozen=True, slots=True)
class _Found:
    """What has been found for one request so far."""

    queries: list[WrittenQuery] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    query: list[int] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)  # of the model, for each round of queries

    def add(self, written: Sequence[WrittenQuery], grounded: Grounded, calls: int) -> None:
        """Put what more queries found behind it."""
        before = len(self.queries)
        self.calls.append(calls)
        self.queries.extend(written)
        self.rows.extend(grounded.rows.tolist())
        self.scores.extend(grounded.scores.tolist())
        self.query.extend((grounded.query + before).tolist())

    def excluded(self, request: QueryRequest) -> Int64Array:
        """Rows that are not to be found any more."""
        return np.concatenate([request.exclude, np.array(self.rows, np.int64)])


class CatalogQuerySearch:
    """Finds items of one catalog; see :class:`genrec.queries.QuerySearch`.

    Args:
        writer: of the queries.
        bm25: over the catalog.
    """

    def __init__(self, writer: QueryWriter, bm25: Bm25) -> None:
        self.writer = writer
        self.bm25 = bm25

    def search(self, requests: Sequence[QueryRequest]) -> list[QueryResult]:
        """The items of each request, as if it had been asked alone."""
        found = [_Found() for _ in requests]
        waiting = list(range(len(requests)))
        while waiting:
            asked = [requests[place] for place in waiting]
            so_far = [found[place] for place in waiting]
            calls = self.writer.calls
            written = self.writer.write(asked, [np.array(one.rows, np.int64) for one in so_far])
            grounded = ground(
                [
                    [Query(_searched(one, request), one.score) for one in queries]
                    for request, queries in zip(asked, written, strict=True)
                ],
                self.bm25,
                [request.k - len(one.rows) for request, one in zip(asked, so_far, strict=True)],
                [request.allowed for request in asked],
                [one.excluded(request) for request, one in zip(asked, so_far, strict=True)],
            )
            more = []
            for place, queries, items in zip(waiting, written, grounded, strict=True):
                found[place].add(queries, items, self.writer.calls - calls)
                is_short = len(found[place].rows) < requests[place].k
                if is_short and len(items.rows) and self._goes_on(requests[place]):
                    more.append(place)
            waiting = more
        return [self._result(*one) for one in zip(requests, found, strict=True)]

    def _goes_on(self, request: QueryRequest) -> bool:
        return request.refill and request.constraint == "catalog_ngrams" and self.writer.finds_always

    def _result(self, request: QueryRequest, found: _Found) -> QueryResult:
        rows, scores = np.array(found.rows, np.int32), np.array(found.scores, np.float32)
        query = np.array(found.query, np.int64)
        queries = [Query(_searched(one, request), one.score) for one in found.queries]
        terms = matched_terms(Grounded(rows, scores, query, len(rows)), queries, self.bm25)
        used = tuple(
            UsedQuery(
                text=one.text,
                score=one.log_probability,
                found=found.query.count(place),
                matched_terms=_words(
                    [own for own, by in zip(terms, found.query, strict=True) if by == place], own_terms
                ),
            )
            for place, (one, own_terms) in enumerate(
                zip(found.queries, analyze([one.text for one in found.queries]), strict=True)
            )
        )
        idle = sum(one.found == 0 for one in used)
        notes = (
            () if not idle else (f"{counted(idle, 'query', 'queries')} found no item that others had not",)
        )
        return QueryResult(
            rows,
            scores.astype(np.float64),
            query,
            tuple(terms),
            used,
            model_calls=sum(found.calls),
            notes=notes,
        )


def _searched(query: WrittenQuery, request: QueryRequest) -> str:
    """What BM25 looks for."""
    return f"{query.text} {request.context}" if request.context else query.text


def _words(terms: Sequence[Sequence[TermScore]], own: Sequence[str]) -> tuple[str, ...]:
    """The distinct terms that are a query's own, in the order in which they come first."""
    return tuple(dict.fromkeys(one.term for of_item in terms for one in of_item if one.term in own))
