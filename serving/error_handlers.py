"""From an exception to the documented answer, for the framework's routes and the direct ones alike."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ExceptionHandler

from index.errors import GenrecError
from serving.errors import ApiError, ClientGone, api_error
from serving.logs import logger
from serving.replies import error_reply
from serving.request_log import GONE
from serving.request_schemas import param_of


async def on_error(request: Request, error: Exception) -> Response:
    """Every error that has a code, and any other as ``internal_error``."""
    answer = api_error(error)
    request.state.facts["error"] = answer.kind.code
    if answer.kind.status == 500:
        logger.error(
            "request_failed", extra={"facts": {"request_id": request.state.request_id}}, exc_info=error
        )
    return error_reply(answer)


async def on_invalid(request: Request, error: Exception) -> Response:
    """What pydantic says of a body or parameters."""
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    # Where a value may be of several types every one of them complains: the deepest complaint says most.
    first = max(problems, key=lambda one: len(one["loc"]))
    code = {"missing": "missing_field", "extra_forbidden": "unknown_field"}.get(
        first["type"], "invalid_value"
    )
    param = param_of(first["loc"])
    if code == "unknown_field" and first["loc"][0] == "body":
        param = ".".join(filter(None, (param_of(first["loc"][:-1]), str(first["loc"][-1])[:100])))
    text = str(first["msg"]).removeprefix("Value error, ").replace("Input should be", "expected")
    if first["type"].startswith("model_"):  # pydantic speaks of Python's classes there
        text = "expected an object"
    if code == "invalid_value" and first["type"] != "value_error":
        text = f"{text}, got {_shown(first['input'])}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return await on_error(request, ApiError(code, f"{param or 'body'}: {text}{more}", param))


async def on_http(request: Request, error: Exception) -> Response:
    """What Starlette says of routes and methods."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        message = f"expected {dict(error.headers or {}).get('Allow', 'another method')}, got {request.method}"
        return await on_error(request, ApiError("method_not_allowed", message, headers=error.headers))
    if error.status_code == 404:
        return await on_error(request, ApiError("route_not_found", f"no route {request.url.path[:200]!r}"))
    return await on_error(request, ApiError("internal_error", str(error.detail)))


async def on_gone(request: Request, _: Exception) -> Response:
    """Nobody reads this: it is for the log and the metrics."""
    request.state.facts["error"] = "client_gone"
    return Response(status_code=GONE)


HANDLERS: Mapping[type[Exception], ExceptionHandler] = {
    ApiError: on_error,
    GenrecError: on_error,
    RequestValidationError: on_invalid,
    HTTPException: on_http,
    ClientGone: on_gone,
}
"""The nearest class in an exception's ancestry counts; one that is not here is left to :mod:`serving.request_log`."""


def _shown(value: object) -> str:
    text = (
        repr(value) if isinstance(value, (str, int, float, bool, type(None))) else f"a {type(value).__name__}"
    )
    return text if len(text) <= 80 else f"{text[:80]}…"
