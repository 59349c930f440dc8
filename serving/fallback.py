"""What is answered where the model cannot answer, for who asked for that instead of an error.

It comes from the index alone (:mod:`genrec.neighbours`) and takes no model, so that it can be given on the event loop
when a deadline is over. Filters, lists, seen items and caps hold as ever.
"""

from __future__ import annotations

from typing import Final, cast

from genrec.modes import TrieMode
from genrec.neighbours import neighbours
from genrec.recommendation import Recommendation, RecommendedItem
from genrec.tasks import Mode
from genrec.wishes import Wishes
from index.item_index import SEMANTIC_ID
from serving import response_schemas as schemas
from serving.answers import response_of
from serving.engine import Engine
from serving.errors import ApiError, DeadlineExceeded, QueueFull, api_error
from serving.request_schemas import RecommendationRequest
from serving.waiting import Answer

_REASONS: Final = ("deadline_exceeded", "queue_full", "mode_unavailable")
FALLEN_BACK_ON: Final = (ApiError, DeadlineExceeded, QueueFull)
"""Classes of the errors that a fallback may stand for; their codes say which do."""


def fallback_of(
    error: Exception,
    engine: Engine,
    request: RecommendationRequest,
    history: list[str],
    wishes: Wishes,
    total_ms: float,
) -> schemas.RecommendationResponse:
    """The answer in place of an error.

    Raises:
        ApiError, GenrecError: the error itself, where the request wants it or no fallback helps against it.
        ApiError, FilterError, RequestError: filters, caps or fields that are none over this catalog.
    """
    code = api_error(error).kind.code
    if request.fallback == "none" or code not in _REASONS:
        raise error
    live = engine.live
    recommender = live.recommender
    catalog = recommender.index.catalog
    rows = recommender.history_rows(history)
    codes = recommender.modes.get(SEMANTIC_ID)
    cap_rules = codes.caps if isinstance(codes, TrieMode) else None
    found = neighbours(recommender.index, rows, wishes, live.newcomers, cap_rules)
    mode = recommender.modes.get(wishes.mode or recommender.default_mode)
    defaults = recommender.defaults if mode is None else mode.defaults
    notes = ["not the model's answer: items whose codes are alike to those of the history's latest"]
    if not len(rows):
        notes = ["not the model's answer to this request: what it says to a new user, or less"]
    if len(found) < wishes.k:
        notes.append(f"{len(found)} of {wishes.k}: the index knows no others that are alike and allowed")
    engine.metrics.fallbacks.labels(code).inc()
    recommendation = Recommendation(
        items=tuple(
            RecommendedItem(
                catalog.item_ids[one.row], catalog.titles[one.row], place + 1, float(one.shared), None
            )
            for place, one in enumerate(found)
        ),
        certified=0,
        unknown_ids=tuple(dict.fromkeys(one for one in history if catalog.row_of(one) is None)),
        notes=tuple(notes),
        normalize=wishes.normalize or defaults.normalize,
        beam=wishes.beam or defaults.beam,
        expansions=0,
        model_calls=0,
        mode=cast(Mode, wishes.mode or recommender.default_mode),
    )
    answer = Answer(recommendation, live, total_ms, 0.0, 1)
    return response_of(answer, request, history, total_ms, cast(schemas.Degraded, code))
