"""Answers as bytes: models and errors, serialised once and sent as they are."""

from __future__ import annotations

import json

from fastapi import Response
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from serving.errors import ApiError

JSON = "application/json"


def reply(model: BaseModel, status: int = 200) -> Response:
    """A model as JSON. It was built by us, so it is not validated again."""
    return Response(model.model_dump_json(), status, media_type=JSON)


def error_reply(error: ApiError) -> Response:
    """An error as JSON."""
    return Response(
        json.dumps(error.body(), ensure_ascii=True), error.kind.status, headers=error.headers, media_type=JSON
    )


async def send_error(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an error from outside a route."""
    await error_reply(error)(scope, receive, send)
