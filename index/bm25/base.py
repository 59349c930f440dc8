"""The contract of a BM25 engine, and what a search gives back. It knows no engine and no analyser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from index.errors import RequestError
from index.types import BoolArray, Float32Array, Int32Array, IntArray


@dataclass(frozen=True, slots=True)
class Bm25Settings:
    """How an index scores.

    Raises:
        RequestError: a number is out of range.
    """

    k1: float = 1.2
    """How slowly repeats of a term saturate, >= 0; the default is Lucene's."""

    b: float = 0.75
    """How much long texts are held back, in [0, 1]; the default is Lucene's."""

    weights: Mapping[str, int] | None = None
    """How often each field counts, >= 1; None where an item is one text.

    A term in a field of weight 3 counts as three occurrences, in the term's frequency and in the length: the
    weighting of Robertson, Zaragoza and Taylor (CIKM 2004), with one saturation over all fields, where a sum of
    scores per field would reward a word for standing in several. Whole numbers, because an engine counts.
    """

    def __post_init__(self) -> None:
        if not self.k1 >= 0 or not 0 <= self.b <= 1:
            raise RequestError(f"expected k1 >= 0 and b in [0, 1], got k1={self.k1}, b={self.b}")
        for name, weight in (self.weights or {}).items():
            if not isinstance(weight, int) or isinstance(weight, bool) or weight < 1:
                raise RequestError(
                    f"expected a whole weight >= 1 for field {name!r}, got {weight!r}; "
                    "scale all weights up, and leave out a field that should not count"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """The items one query found, best first."""

    rows: Int32Array  # [<= k] catalog rows, none twice
    scores: Float32Array  # [<= k] all > 0, non-increasing; equal scores stand in row order


@dataclass(frozen=True, slots=True)
class TermScore:
    """What one term of a query gives to an item's score."""

    term: str  # as analysed: "run" for "running"
    score: float


class Bm25(Protocol):
    """Item texts, searchable by words.

    Every engine ranks by (−score, item row) and returns no item that shares no term with the query, so a
    query may find fewer than ``k`` items, or none.
    """

    def __len__(self) -> int:
        """N, the items indexed (those without a word included; they are never found)."""

    @property
    def settings(self) -> Bm25Settings:
        """What the index was built with."""

    def search(
        self,
        queries: Sequence[str],
        k: int,
        exclude: Sequence[IntArray] | None = None,
        allowed: Sequence[BoolArray | None] | None = None,
    ) -> list[Hits]:
        """The best ``k`` items of each query.

        Args:
            queries: free text. Empty text, and text with no indexed term, finds nothing.
            k: at most so many hits per query; it may exceed N.
            exclude: for each query, catalog rows that must not be returned: the k best *others* are.
            allowed: for each query, bool[N] over catalog rows, or None for all: the k best of these are
                returned, or all of them that match where they are fewer.

        Raises:
            RequestError: ``k`` is below 1, there is not one ``exclude`` or ``allowed`` per query, a row is
                outside [0, N), or a mask is not bool[N].
        """

    def explain(self, query: str, row: int) -> list[TermScore]:
        """The query's terms that the item has, by (−score, term); they add up to its score.

        Raises:
            RequestError: ``row`` is outside [0, N).
        """


def check_search(
    k: int,
    exclude: Sequence[IntArray] | None,
    allowed: Sequence[BoolArray | None] | None,
    queries: int,
    items: int,
) -> None:
    """Refuse what no engine should be asked; see ``Bm25.search``."""
    if k < 1:
        raise RequestError(f"expected k >= 1, got {k}")
    if exclude is not None and len(exclude) != queries:
        raise RequestError(
            f"expected one list of excluded rows per query, got {len(exclude)} for {queries} queries"
        )
    for rows in exclude or ():
        if len(rows) and not (np.min(rows) >= 0 and np.max(rows) < items):
            raise RequestError(f"expected excluded rows in [0, {items}), got {np.min(rows)}..{np.max(rows)}")
    if allowed is not None and len(allowed) != queries:
        raise RequestError(f"expected one mask (or None) per query, got {len(allowed)} for {queries} queries")
    for mask in allowed or ():
        if mask is not None and (mask.dtype != np.bool_ or mask.shape != (items,)):
            raise RequestError(f"expected a mask bool[{items}], got {mask.dtype}{list(mask.shape)}")


def check_row(row: int, items: int) -> None:
    """Refuse a row outside the catalog; see ``Bm25.explain``."""
    if not 0 <= row < items:
        raise RequestError(f"expected a row in [0, {items}), got {row}")


def search_by_scores(
    scores_of: Callable[[list[str]], Float32Array],
    queries: Sequence[list[str]],
    k: int,
    exclude: Sequence[IntArray] | None,
    allowed: Sequence[BoolArray | None] | None,
    items: int,
) -> list[Hits]:
    """``Bm25.search`` of an engine that scores every item: ``scores_of`` takes the terms of a query and gives a new
    float32[N], zero where an item shares none of them."""
    check_search(k, exclude, allowed, len(queries), items)
    hits = []
    for query, terms in enumerate(queries):
        scores = scores_of(terms)
        if exclude is not None:
            scores[exclude[query]] = 0.0
        mask = None if allowed is None else allowed[query]
        if mask is not None:
            scores[~mask] = 0.0
        hits.append(best_hits(scores, k))
    return hits


def best_hits(scores: Float32Array, k: int) -> Hits:
    """The k best of the positive scores float32[N] by (−score, row)."""
    rows = np.flatnonzero(scores > 0).astype(np.int32)
    found = scores[rows]
    if len(found) > k:
        # Everything as good as the k-th best stays until ties are in row order.
        worst = np.partition(found, len(found) - k)[len(found) - k]
        rows, found = rows[found >= worst], found[found >= worst]
    order = np.argsort(-found, kind="stable")[:k]
    return Hits(rows=rows[order], scores=found[order])
