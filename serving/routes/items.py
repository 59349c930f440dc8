"""``GET /v1/items`` and ``/v1/items/{item_id}``: what is in the catalog."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from index.lexicon import Lexicon
from serving import response_schemas as schemas
from serving.engine import Engine
from serving.errors import ApiError
from serving.openapi import documented
from serving.replies import reply

router = APIRouter(tags=["items"])


def _digits(value: object) -> object:
    """Only digits: a parser's generosity ("1_0", " 7") is not part of the interface."""
    if isinstance(value, str) and not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise ValueError(f"expected a whole number in digits, got {value[:40]!r}")
    return value


class ItemQuery(BaseModel):
    """What to look for."""

    model_config = ConfigDict(extra="forbid")

    prefix: Annotated[
        str,
        Field(min_length=1, max_length=200, description="The beginning of a title, or of words in it."),
    ]
    limit: Annotated[int, Field(ge=1, le=50, description="Most items wanted."), BeforeValidator(_digits)] = 10


@router.get(
    "/v1/items",
    response_model=schemas.ItemListResponse,
    responses=documented("missing_field", "unknown_field", "invalid_value"),
    operation_id="find_items",
    summary="Find items by what is typed of their title",
)
async def find_items(query: Annotated[ItemQuery, Query()], request: Request) -> Response:
    """Items whose title begins with the prefix, then those that hold its words; case and accents do not matter."""
    live = _engine(request).live
    catalog = live.recommender.index.catalog
    # In a thread: over a large catalog a short word or a misspelt one takes milliseconds, and others wait.
    rows, suggestions = await asyncio.to_thread(_find, live.lexicon, query)
    found = [schemas.FoundItem(item_id=catalog.item_ids[row], title=catalog.titles[row]) for row in rows]
    return reply(schemas.ItemListResponse(object="list", data=found, did_you_mean=suggestions))


def _find(lexicon: Lexicon, query: ItemQuery) -> tuple[list[int], list[str]]:
    rows = lexicon.complete(query.prefix, query.limit)
    return rows, [] if rows else lexicon.did_you_mean(query.prefix)


@router.get(
    "/v1/items/{item_id:path}",
    response_model=schemas.ItemResponse,
    responses=documented("item_not_found"),
    operation_id="get_item",
    summary="One item by its id",
)
async def get_item(item_id: str, request: Request) -> Response:
    """Everything the catalog says of one item. An id with a slash may be written as it is, or encoded."""
    index = _engine(request).live.recommender.index
    row = index.catalog.row_of(item_id)
    if row is None:
        raise ApiError("item_not_found", f"expected the id of an item, got {item_id[:100]!r}", "item_id")
    item = index.catalog[row]
    return reply(
        schemas.ItemResponse.model_construct(
            object="item",
            item_id=item.item_id,
            title=item.title,
            removed=bool((index.removed == row).any()),
            fields=dict(item.fields),
        )
    )


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine
