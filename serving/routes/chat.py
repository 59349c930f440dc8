"""``POST /v1/chat``: one turn of a conversation about what to choose next."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from genrec.recipes.answers import NamedItem
from genrec.recipes.chat_state import ChatState, Turn
from genrec.recipes.chatrec import Chat
from genrec.wishes import Wishes
from index.catalog import Catalog
from serving import chat_schemas as schemas
from serving.answers import check_fields
from serving.disconnects import while_connected
from serving.errors import ApiError
from serving.json_body import StrictJsonRoute
from serving.limits import check_chat
from serving.live_bundle import LiveBundle
from serving.openapi import documented
from serving.replies import reply
from serving.response_schemas import Timings
from serving.routes.recommendations import BODY, ENGINE, state_of
from serving.waiting import Done

router = APIRouter(tags=["recommendations"], route_class=StrictJsonRoute)


@router.post(
    "/v1/chat",
    response_model=schemas.ChatResponse,
    responses=documented(*BODY, "invalid_filter", "invalid_request", "unknown_return_field", *ENGINE),
    operation_id="chat",
    summary="Answer one turn of a conversation",
)
async def chat(body: schemas.ChatRequest, request: Request) -> Response:
    """Recommends, gives reasons that cite the user's history, or asks back. The server keeps nothing: a request holds
    the whole conversation, so any worker can answer it, before a reload and after."""
    start = time.perf_counter()
    settings, engine = state_of(request)
    check_chat(body, settings)
    deadline = time.monotonic() + (body.timeout_ms or settings.default_timeout_ms) / 1000
    said, live = body.messages[-1], engine.live
    if said.role != "user":
        raise ApiError(
            "invalid_request", "expected the last message to be the user's, got the assistant's", "messages"
        )
    check_fields(body.return_fields, live.recommender.index.catalog)
    # Reading what was said takes no model, so it is done in a thread of its own; the first time over a catalog what
    # users may mean is looked up as well.
    talk = await asyncio.to_thread(_so_far, live, body)
    done = await while_connected(request, engine.do(lambda: talk.turn(said.content), deadline))
    response = _response(done, talk.state, live, body, 1000 * (time.perf_counter() - start))
    _note(request, response, body.user_id)
    engine.metrics.items.inc(len(response.items))
    engine.metrics.unknown_ids.inc(len(response.missing_ids))
    return reply(response)


def _so_far(live: LiveBundle, body: schemas.ChatRequest) -> Chat:
    """The conversation before its last message."""
    before = [
        Turn(one.role, one.content, () if one.role == "user" else tuple(one.items))
        for one in body.messages[:-1]
    ]
    asked = body.filter
    wishes = Wishes(
        where=asked.where,
        include=asked.include,
        exclude=asked.exclude,
        exclude_seen=asked.exclude_seen,
        max_per=asked.max_per,
    )
    return Chat(
        live.recommender,
        body.item_ids(),
        k=body.num_results,
        before=before,
        wishes=wishes,
        words=live.chat_words,
    )


def _response(
    done: Done, state: ChatState, live: LiveBundle, body: schemas.ChatRequest, total_ms: float
) -> schemas.ChatResponse:
    catalog, answer = live.recommender.index.catalog, done.value
    history = body.item_ids()
    return schemas.ChatResponse(
        id=f"chat_{secrets.token_hex(12)}",
        object="chat.recommendation",
        created=int(time.time()),
        model=live.model,
        catalog=live.catalog,
        kind=answer.said_at("kind")[0],
        message=schemas.AssistantMessage(
            role="assistant", content=answer.text, items=[str(one) for one in answer.ids]
        ),
        items=_items(answer.items, catalog, body.return_fields),
        evidence=_items(answer.evidence, catalog, body.return_fields),
        held=[
            schemas.HeldWish(field=one.field, value=one.value, excluded=one.is_against)
            for one in state.wishes
        ],
        missing_ids=[one for one in dict.fromkeys(history) if catalog.row_of(one) is None],
        timings_ms=Timings(
            queue=round(done.queue_ms, 3), search=round(done.work_ms, 3), total=round(total_ms, 3)
        ),
    )


def _items(named: Sequence[NamedItem], catalog: Catalog, names: list[str]) -> list[schemas.ChatItem]:
    found = []
    for one in named:
        row = catalog.row_of(one.item_id)
        assert row is not None  # a recipe names items of this catalog
        fields = catalog[row].fields
        asked = {name: fields[name] for name in names if name in fields}
        found.append(schemas.ChatItem.model_construct(item_id=one.item_id, title=one.title, fields=asked))
    return found


def _note(request: Request, response: schemas.ChatResponse, user_id: str | None) -> None:
    """Add to the log line what the answer was; what was said stays out of the log."""
    facts: dict[str, Any] = request.state.facts
    facts |= {
        "id": response.id,
        "model": response.model,
        "kind": response.kind,
        "items": len(response.items),
        "timings_ms": response.timings_ms.model_dump(),
    }
    if user_id is not None:
        facts["user_id"] = user_id
