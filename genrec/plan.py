"""Plan: what a request would be answered by, without searching. For who wants to know whether a request is sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from genrec.mode_requests import requests_of
from genrec.queries import QueryRequest
from genrec.recommender import Recommender
from genrec.search import Normalize
from genrec.tasks import Mode, QueryConstraint
from genrec.wishes import Wishes, resolve
from index.item_filter import AllowedBatch
from index.types import ItemId


@dataclass(frozen=True, slots=True)
class Plan:
    """A request with everything filled in that was left open."""

    mode: Mode
    normalize: Normalize
    beam: int
    max_expansions: int | None
    queries: int | None  # of query mode
    constraint: QueryConstraint | None  # of query mode
    history_items: int  # known ones: what the model would read
    allowed_items: int  # items that the filters, lists and seen items leave


def plan_of(recommender: Recommender, history: Sequence[ItemId | int], wishes: Wishes) -> Plan:
    """What :meth:`~genrec.recommender.Recommender.recommend` would search for. Safe beside a search.

    Raises:
        RequestError, FilterError: as ``recommend``.
    """
    mode = recommender.mode_of(wishes)
    resolved = resolve(wishes, mode.defaults)
    assert resolved.normalize is not None
    assert resolved.beam is not None
    rows = recommender.history_rows(history).astype(np.int64)
    (request,) = requests_of(recommender.index, [mode], [rows], [wishes])
    items = len(recommender.index.catalog)
    if isinstance(request, QueryRequest):
        allowed = np.ones(items, bool) if request.allowed is None else request.allowed.copy()
        allowed[request.exclude] = False
        left = int(allowed.sum())
    else:
        one, everything = np.zeros(1, np.int64), np.full(1, items)
        left = int(AllowedBatch([request.allowed], items).count(one, one, everything)[0])
    return Plan(
        mode=cast(Mode, mode.spec.name),
        normalize=resolved.normalize,
        beam=resolved.beam,
        max_expansions=resolved.max_expansions,
        queries=resolved.queries,
        constraint=resolved.constraint,
        history_items=len(rows),
        allowed_items=left,
    )
