"""``POST /v1/recommendations`` and ``/v1/recommendations:batch``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from genrec.wishes import Wishes
from index.errors import GenrecError
from serving import response_schemas as schemas
from serving.answers import check_fields, plan_response, response_of
from serving.direct import Direct
from serving.disconnects import while_connected
from serving.engine import Engine
from serving.errors import ApiError, QueueFull, api_error
from serving.fallback import FALLEN_BACK_ON, fallback_of
from serving.json_body import StrictJsonRoute
from serving.limits import check_batch, check_request
from serving.openapi import documented
from serving.replies import reply
from serving.request_schemas import BatchRequest, RecommendationRequest
from serving.settings import Settings
from serving.waiting import Answer

router = APIRouter(tags=["recommendations"], route_class=StrictJsonRoute)
BODY = (
    "invalid_json",
    "json_too_deep",
    "missing_field",
    "unknown_field",
    "invalid_value",
    "body_timeout",
    "body_too_large",
    "unsupported_media_type",
)
ASKED = ("invalid_filter", "invalid_request", "unknown_return_field", "mode_unavailable")
ENGINE = ("queue_full", "internal_error", "not_ready", "deadline_exceeded")


@router.post(
    "/v1/recommendations",
    response_model=schemas.RecommendationResponse,
    responses=documented(*BODY, *ASKED, *ENGINE),
    operation_id="recommend",
    summary="Recommend items for one history",
)
async def recommend(body: RecommendationRequest, request: Request) -> Response:
    """The items most likely to come next; every one is an item of the catalog."""
    start = time.perf_counter()
    settings, engine = state_of(request)
    check_request(body, settings)
    history, wishes = body.item_ids(), body.wishes(settings.max_expansions)
    try:
        check_against(body, engine)
        if body.validate_only:
            response = await asyncio.to_thread(plan_response, engine.live, body, history, wishes, start)
        else:
            answer = await while_connected(
                request, engine.recommend(history, wishes, deadline_of(body, settings))
            )
            response = response_of(answer, body, history, _ms_since(start))
    except FALLEN_BACK_ON as error:
        response = fallback_of(error, engine, body, history, wishes, _ms_since(start))
        request.state.facts["fallback"] = response.degraded
    note(request, engine, [response], body.user_id)
    return reply(response)


@router.post(
    "/v1/recommendations:batch",
    response_model=schemas.BatchResponse,
    responses=documented(*BODY, *ENGINE),
    operation_id="recommend_batch",
    summary="Recommend items for many histories",
)
async def recommend_batch(body: BatchRequest, request: Request) -> Response:
    """Answers in order. A request that cannot be fulfilled has its error in its place; the others are answered.

    The longest timeout_ms among the requests holds for all of them.
    """
    start = time.perf_counter()
    settings, engine = state_of(request)
    check_batch(body, settings)
    results: dict[int, schemas.BatchResult] = {}
    asked = []
    for place, one in enumerate(body.requests):
        own = (one, one.item_ids(), one.wishes(settings.max_expansions))
        try:
            check_against(one, engine)
        except ApiError as error:
            results[place] = _result(error, *own, engine, start)
            continue
        if one.validate_only:
            results[place] = await asyncio.to_thread(_planned, *own, engine, start)
        else:
            asked.append((place, own))
    searching = engine.recommend_many(
        [history for _, (_, history, _) in asked],
        [wishes for _, (_, _, wishes) in asked],
        max(deadline_of(one, settings) for one in body.requests),
    )
    answers: Sequence[Answer | BaseException]
    try:
        answers = await while_connected(request, searching)
    except QueueFull as error:
        if all(one.fallback == "none" for _, (one, _, _) in asked):
            raise
        answers = [error] * len(asked)
    for (place, own), answer in zip(asked, answers, strict=True):
        results[place] = _result(answer, *own, engine, start)
    ordered = [results[place] for place in range(len(body.requests))]
    note(request, engine, [one.recommendation for one in ordered if one.recommendation is not None], None)
    return reply(schemas.BatchResponse.model_construct(object="recommendation.batch", results=ordered))


DIRECT = {
    "/v1/recommendations": Direct("/v1/recommendations", RecommendationRequest, recommend),
    "/v1/recommendations:batch": Direct("/v1/recommendations:batch", BatchRequest, recommend_batch),
}
"""These routes as they are answered; what stands at the functions describes them."""


def state_of(request: Request) -> tuple[Settings, Engine]:
    """What the application has been made with."""
    return request.app.state.settings, request.app.state.engine


def check_against(body: RecommendationRequest, engine: Engine) -> None:
    """Refuse what this model and catalog cannot do.

    Raises:
        ApiError: ``mode_unavailable`` or ``unknown_return_field``.
    """
    live = engine.live
    if body.mode is not None and body.mode not in live.modes:
        raise ApiError(
            "mode_unavailable",
            f"expected a mode this model was trained for ({', '.join(live.modes)}), got {body.mode!r}",
            "mode",
        )
    check_fields(body.return_fields, live.recommender.index.catalog)


def deadline_of(body: RecommendationRequest, settings: Settings) -> float:
    """``time.monotonic()`` by which the answer must be there."""
    return time.monotonic() + (body.timeout_ms or settings.default_timeout_ms) / 1000


def _result(
    answer: Answer | BaseException,
    one: RecommendationRequest,
    history: list[str],
    wishes: Wishes,
    engine: Engine,
    start: float,
) -> schemas.BatchResult:
    try:
        if isinstance(answer, Answer):
            found = response_of(answer, one, history, _ms_since(start))
        elif isinstance(answer, FALLEN_BACK_ON):
            found = fallback_of(answer, engine, one, history, wishes, _ms_since(start))
        else:
            raise answer
    except (ApiError, GenrecError) as error:
        return _failed(api_error(error))
    return schemas.BatchResult.model_construct(status=200, recommendation=found, error=None)


def _planned(
    one: RecommendationRequest, history: list[str], wishes: Wishes, engine: Engine, start: float
) -> schemas.BatchResult:
    try:
        found = plan_response(engine.live, one, history, wishes, start)
    except (ApiError, GenrecError) as error:
        return _failed(api_error(error))
    return schemas.BatchResult.model_construct(status=200, recommendation=found, error=None)


def _ms_since(start: float) -> float:
    return 1000 * (time.perf_counter() - start)


def _failed(error: ApiError) -> schemas.BatchResult:
    detail: Any = error.body()["error"]
    return schemas.BatchResult(
        status=error.kind.status, recommendation=None, error=schemas.ErrorDetail(**detail)
    )


def note(
    request: Request, engine: Engine, responses: list[schemas.RecommendationResponse], user_id: str | None
) -> None:
    """Count the answers, and add to the log line what they were."""
    engine.metrics.items.inc(sum(len(one.items) for one in responses))
    engine.metrics.unknown_ids.inc(sum(len(one.missing_ids) for one in responses))
    facts: dict[str, Any] = request.state.facts
    facts["answers"] = len(responses)
    if user_id is not None:
        facts["user_id"] = user_id
    if len(responses) == 1:
        (one,) = responses
        facts |= {
            "id": one.id,
            "model": one.model,
            "items": len(one.items),
            "timings_ms": one.timings_ms.model_dump(),
        }
