"""Query mode, as a Recommender sees it: what it asks of a query search and what it gets back.

A query search lets the model write m queries for a history, searches the catalog with each, and merges what they
find (GPT4Rec, Li et al. 2023). How it writes and how it searches is its own affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from genrec.decoders.base import Prompt
from genrec.search_batch import Diversity
from genrec.tasks import QueryConstraint
from index.bm25.base import TermScore
from index.types import BoolArray, Float64Array, Int32Array, Int64Array

_NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class QueryRequest:
    """What one user asks of a query search."""

    prompt: Prompt
    k: int = 10
    """Items wanted; fewer come back only where the queries and their refills find no more allowed ones."""
    queries: int = 10
    """m. The first k / m items of each query stand in the answer, in the order of the queries."""
    beam: int = 50
    """Prefixes kept per step while queries are written, at least ``queries``."""
    constraint: QueryConstraint = "free"
    allowed: BoolArray | None = None  # [N] over catalog rows; None allows all
    exclude: Int64Array = field(
        default_factory=lambda: _NOTHING
    )  # rows never returned: the history, and more
    context: str = ""
    """What the catalog is searched for behind every query: titles of the history."""
    sample_seed: int | None = None
    """Draw the queries instead of taking the most probable ones."""
    diversity: Diversity | None = None
    """Write the queries in groups that keep apart."""
    refill: bool = True
    """Write again where constrained queries found fewer than k; False: m queries are all there is."""


@dataclass(frozen=True, slots=True)
class UsedQuery:
    """A query that the model wrote."""

    text: str
    score: float  # its log-probability
    found: int  # items of the answer that it found
    matched_terms: tuple[str, ...]  # its own words, as analysed, that an item it found has


@dataclass(frozen=True, slots=True, eq=False)
class QueryResult:
    """The items found for one request, best first."""

    rows: Int32Array  # [<= k] catalog rows, none twice
    scores: Float64Array  # [<= k] of BM25, under the query that found the item
    query: Int64Array  # [<= k] place of that query in ``queries``
    matched_terms: tuple[tuple[TermScore, ...], ...]
    """[<= k] what each of its terms, and of the context's, gives the item's score."""
    queries: tuple[UsedQuery, ...]  # in the order in which they were merged
    expansions: int = 0  # prefixes whose next tokens were scored
    model_calls: int = 0
    notes: tuple[str, ...] = ()  # what a user should know, such as a query without a hit


class QuerySearch(Protocol):
    """Finds items by queries that a model writes."""

    def search(self, requests: Sequence[QueryRequest]) -> list[QueryResult]:
        """The items of each request, as if it had been asked alone."""
