"""Recommendation: the answer to one history, and what a user should know about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec.modes import AnyMode, TrieMode
from genrec.queries import QueryResult, UsedQuery
from genrec.search import Normalize, SearchResult
from genrec.tasks import Mode
from genrec.wishes import Wishes, scores_are_shares
from index.bm25.base import TermScore
from index.catalog import Catalog
from index.counted import counted
from index.item_index import SEMANTIC_ID
from index.types import Int32Array, ItemId


@dataclass(frozen=True, slots=True)
class RecommendedItem:
    """One answer: an item of the catalog."""

    item_id: ItemId
    title: str
    rank: int  # 1 is best
    score: float
    """Log-probability under the request's normalisation, with an additive prior's term on top; in query mode the
    BM25 score under the query that found the item."""
    probability: float | None
    """Share of the whole catalog's probability (they sum to one over all items, seen ones included, and removed
    ones until the index is compacted); None under vocabulary normalisation, where the sum over the catalog is
    below one, and with an additive prior; None in query mode."""
    generated: str | None = None
    """The text the model wrote for it: the title, or the query that found it; None where it wrote codes."""
    matched_terms: tuple[TermScore, ...] = ()  # what each word that was searched for gives to the score


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The answer to one history."""

    items: tuple[RecommendedItem, ...]
    certified: int  # the first so many are proven to be the most probable allowed items, in order
    unknown_ids: tuple[ItemId, ...]  # ids of the history that are not in the catalog; they were not used
    notes: tuple[str, ...]  # what a user should know about this answer
    normalize: Normalize
    beam: int
    expansions: int
    model_calls: int
    mode: Mode = SEMANTIC_ID  # what the model wrote
    queries: tuple[UsedQuery, ...] = ()  # of query mode, in the order in which they were merged


def items_of(
    catalog: Catalog, mode: AnyMode, found: Int32Array, resolved: Wishes, result: SearchResult | QueryResult
) -> tuple[RecommendedItem, ...]:
    """The items of an answer; ``found`` is int32[k], their catalog rows."""
    rows = found.tolist()
    scores = result.scores.tolist()
    written: list[str | None]
    terms: tuple[tuple[TermScore, ...], ...] = ((),) * len(rows)
    probabilities: list[float | None] = [None] * len(rows)
    if isinstance(result, QueryResult):
        written = [result.queries[query].text for query in result.query.tolist()]
        terms = result.matched_terms
    else:
        assert isinstance(mode, TrieMode)
        written = [mode.written(rank) for rank in result.ranks.tolist()]
        if scores_are_shares(resolved):
            probabilities = [float(np.exp(score)) for score in scores]
    return tuple(
        RecommendedItem(
            item_id=catalog.item_ids[row],
            title=catalog.titles[row],
            rank=place + 1,
            score=scores[place],
            probability=probabilities[place],
            generated=written[place],
            matched_terms=terms[place],
        )
        for place, row in enumerate(rows)
    )


def notes_on(
    has_history: bool, knows_an_item: bool, resolved: Wishes, result: SearchResult | QueryResult
) -> tuple[str, ...]:
    """What a user should know about an answer."""
    is_query = isinstance(result, QueryResult)
    notes, found = [], len(result.scores)
    if not knows_an_item:
        notes.append(
            "no known item in the history: this is what the model recommends to a new user"
            if has_history
            else "empty history: this is what the model recommends to a new user"
        )
    if found < resolved.k:
        notes.append(
            f"{found} of {counted(resolved.k, 'item')}: "
            + (
                "the queries find no others that pass the request's filters, lists and seen items"
                if is_query
                else "no others pass the request's filters, lists and seen items"
            )
        )
    if isinstance(result, QueryResult):
        return (*notes, *result.notes)
    if (resolved.exact or resolved.sample) and result.certified < found:
        notes.append(
            f"the budget ended after {counted(result.expansions, 'expansion')}: {result.certified} of "
            f"{counted(found, 'item')} proven to be in place"
        )
    return tuple(notes)
