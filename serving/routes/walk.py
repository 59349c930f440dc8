"""``POST /v1/walk``: how a recommendation was found. It costs more than the recommendation itself."""

from __future__ import annotations

import asyncio
import time
from typing import NoReturn

from fastapi import APIRouter, Request, Response

from genrec.search_trace import SearchTrace
from serving.answers import response_of
from serving.disconnects import while_connected
from serving.errors import ApiError
from serving.json_body import StrictJsonRoute
from serving.limits import check_request
from serving.openapi import documented
from serving.replies import reply
from serving.request_schemas import RecommendationRequest
from serving.routes.recommendations import ASKED, BODY, ENGINE, check_against, deadline_of, note, state_of
from serving.walk_schemas import WalkResponse
from serving.walks import label_of, walk_of

router = APIRouter(tags=["recommendations"], route_class=StrictJsonRoute)


@router.post(
    "/v1/walk",
    response_model=WalkResponse,
    responses=documented(*BODY, *ASKED, *ENGINE),
    operation_id="walk",
    summary="Recommend items for one history, and tell every step of the search",
)
async def walk(body: RecommendationRequest, request: Request) -> Response:
    """The body is that of /v1/recommendations, and so is the answer; with it come the prefixes that every step
    scored, what became of them, and what was proven by then. Prefixes that are not worth a look are only counted."""
    start = time.perf_counter()
    settings, engine = state_of(request)
    check_request(body, settings)
    check_against(body, engine)
    _check_steps(body)
    history, wishes, trace = body.item_ids(), body.wishes(settings.max_expansions), SearchTrace()
    engine.live.recommender.trie_mode(wishes)  # refuses a mode that walks no trie
    answer = await while_connected(
        request, engine.recommend(history, wishes, deadline_of(body, settings), trace=trace)
    )
    response = response_of(answer, body, history, 1000 * (time.perf_counter() - start))
    note(request, engine, [response], body.user_id)
    recommender = answer.live.recommender
    index, mode = recommender.index, recommender.trie_mode(wishes)
    # In a thread: it takes milliseconds, and others wait.
    walked = await asyncio.to_thread(
        walk_of, trace, response, index.catalog, mode.trie, label_of(mode, index)
    )
    return reply(walked)


def _check_steps(body: RecommendationRequest) -> None:
    decoding = body.decoding
    for asked, name in (
        (decoding.synchronize != "leaf", "synchronize"),
        (decoding.diversity > 0, "diversity"),
    ):
        if asked:
            _refuse(f"decoding.{name}", getattr(decoding, name))
    if body.validate_only:
        _refuse("validate_only", True)
    if body.fallback != "none":
        _refuse("fallback", body.fallback)


def _refuse(param: str, value: object) -> NoReturn:
    raise ApiError(
        "invalid_request",
        f"expected a search with steps of its own, got {param}={value!r}; leave it out, or ask /v1/recommendations",
        param,
    )
