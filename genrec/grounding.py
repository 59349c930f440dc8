"""Grounding: generated text becomes items. Queries in, catalog rows out, by BM25 (GPT4Rec, arXiv 2304.03879).

Several queries of one user split the k places of the answer. In the order of their scores, each fills its share with
its best items that no earlier query has brought; places that a query cannot fill for want of hits are split anew
among the queries that still have some, and stand at the end. So an answer is short only where the queries together
match fewer than k items.

It knows queries, rows and BM25. It knows no model, no trie and no catalog.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from index.bm25.base import Bm25, Hits, TermScore
from index.errors import RequestError
from index.types import BoolArray, Float32Array, Int32Array, Int64Array, IntArray


@dataclass(frozen=True, slots=True)
class Query:
    """A search query that a model wrote for a user: what it takes the user to want next."""

    text: str
    score: float
    """What the generator ranked it by: a log-probability, or one normalised by length. Higher is better."""


@dataclass(frozen=True, slots=True, eq=False)
class Grounded:
    """The items that one user's queries found, best first."""

    rows: Int32Array  # [<= k] catalog rows, none twice
    scores: Float32Array  # [<= k] BM25 scores, each for the query that brought the item; not in falling order
    query: Int64Array  # [<= k] which query brought the item: a place in the list that was given
    shared: int
    """The first so many places were filled by shares, in the order of the queries; the others refilled."""


def ground(
    queries: Sequence[Sequence[Query]],
    bm25: Bm25,
    k: int | Sequence[int],
    allowed: Sequence[BoolArray | None] | None = None,
    exclude: Sequence[IntArray] | None = None,
) -> list[Grounded]:
    """Search with the queries of B users and merge what each user's queries find.

    Args:
        queries: B lists, each in any order; equal scores keep it. A user without a query gets nothing, a query
            without a hit costs the others nothing.
        bm25: over the catalog.
        k: items wanted, for all users or for each.
        allowed: for each user, bool[N] over catalog rows or None for all: only these are retrieved.
        exclude: for each user, rows that are not retrieved, such as the history.

    Raises:
        RequestError: k below 1, not one k, mask or list per user, or what :meth:`Bm25.search` refuses.
    """
    wanted = [k] * len(queries) if isinstance(k, int) else list(k)
    for name, given in (("k", wanted), ("allowed", allowed), ("exclude", exclude)):
        if given is not None and len(given) != len(queries):
            raise RequestError(f"expected one {name} per user, {len(queries)}, got {len(given)}")
    if any(one < 1 for one in wanted):
        raise RequestError(f"expected k >= 1, got {min(wanted)}")
    owner = [user for user, own in enumerate(queries) for _ in own]
    if not owner:
        return [_merge([], one) for one in wanted]
    hits = bm25.search(
        [query.text for own in queries for query in own],
        max(
            wanted
        ),  # so many of each suffice: of a list's first k, a place is passed over only for one filled
        exclude=None if exclude is None else [exclude[user] for user in owner],
        allowed=None if allowed is None else [allowed[user] for user in owner],
    )
    merged, begin = [], 0
    for own, one in zip(queries, wanted, strict=True):
        order = sorted(range(len(own)), key=lambda place, own=own: -own[place].score)  # type: ignore[misc]
        merged.append(_merge([(place, hits[begin + place]) for place in order], one))
        begin += len(own)
    return merged


def matched_terms(grounded: Grounded, queries: Sequence[Query], bm25: Bm25) -> list[tuple[TermScore, ...]]:
    """Why each item came: the terms it shares with its query, by (−score, term); they add up to its score."""
    places = zip(grounded.query.tolist(), grounded.rows.tolist(), strict=True)
    return [tuple(bm25.explain(queries[place].text, row)) for place, row in places]


def _merge(hits: Sequence[tuple[int, Hits]], k: int) -> Grounded:
    """Split k places among queries, (place, hits) in order of merit, round after round until all are filled."""
    waiting = [_Source(place, found) for place, found in hits if len(found.rows)]
    taken: set[int] = set()
    chosen: list[tuple[int, float, int]] = []  # (row, score, query)
    shared = -1
    while waiting and len(chosen) < k:
        share, more = divmod(k - len(chosen), len(waiting))
        for number, source in enumerate(waiting):
            chosen += source.take(share + (number < more), taken)
        shared = len(chosen) if shared < 0 else shared
        waiting = [source for source in waiting if not source.is_empty]
    return Grounded(
        rows=np.array([row for row, _, _ in chosen], np.int32),
        scores=np.array([score for _, score, _ in chosen], np.float32),
        query=np.array([query for _, _, query in chosen], np.int64),
        shared=max(shared, 0),
    )


class _Source:
    """The hits of one query, taken from the top."""

    def __init__(self, query: int, hits: Hits) -> None:
        self._query = query
        self._rows, self._scores = hits.rows.tolist(), hits.scores.tolist()
        self._next = 0

    @property
    def is_empty(self) -> bool:
        return self._next == len(self._rows)

    def take(self, most: int, taken: set[int]) -> list[tuple[int, float, int]]:
        """The best hits that are not taken yet, at most so many; they are taken then."""
        found: list[tuple[int, float, int]] = []
        while len(found) < most and not self.is_empty:
            row, score = self._rows[self._next], self._scores[self._next]
            self._next += 1
            if row not in taken:
                taken.add(row)
                found.append((row, score, self._query))
        return found
