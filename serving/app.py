"""The ASGI application: routes, middleware and error handlers put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

import genrec
from index.errors import GenrecError
from serving.auth import KeyGuard
from serving.engine import Engine
from serving.errors import ApiError, ClientGone, api_error
from serving.live_bundle import LiveBundle
from serving.logs import logger
from serving.openapi import describe
from serving.replies import error_reply
from serving.request_log import GONE, RequestLog
from serving.request_schemas import param_of
from serving.routes import admin, health, items, models, recommendations
from serving.settings import Settings
from serving.shedding import Shedding

Reload = Callable[[bool], Awaitable[LiveBundle]]
"""Serves what is on disk now and returns it; the argument says whether to compare hashes first."""


def create_app(settings: Settings, engine: Engine, reload: Reload | None = None) -> FastAPI:
    """The application around an engine. It closes the engine when it shuts down.

    Args:
        settings: the server's.
        engine: what answers.
        reload: what ``/v1/admin/reload`` does; by default the engine reloads. A worker asks its supervisor.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        engine.close()

    # No pages at /docs: they would load their code from elsewhere.
    app = FastAPI(
        title="genrec",
        version=genrec.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.settings = settings
    app.state.engine = engine
    app.state.reload = reload or (lambda verify: engine.reload(verify=verify))
    for noun in (recommendations, items, models, health, admin):
        app.include_router(noun.router)
    app.add_exception_handler(ApiError, _on_error)
    app.add_exception_handler(GenrecError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientGone, _on_gone)
    app.add_middleware(KeyGuard, settings=settings)
    app.add_middleware(Shedding, engine=engine)
    app.add_middleware(RequestLog, metrics=engine.metrics)  # the last added is the outermost
    document: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not document:
            document.update(describe(app, settings))
        return document

    app.openapi = openapi  # type: ignore[method-assign]
    return app


async def _on_error(request: Request, error: Exception) -> Response:
    answer = api_error(error)
    request.state.facts["error"] = answer.kind.code
    if answer.kind.status == 500:
        logger.error(
            "request_failed", extra={"facts": {"request_id": request.state.request_id}}, exc_info=error
        )
    return error_reply(answer)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    # Where a value may be of several types every one of them complains: the deepest complaint says most.
    first = max(problems, key=lambda one: len(one["loc"]))
    param = param_of(first["loc"])
    code = {"missing": "missing_field", "extra_forbidden": "unknown_field"}.get(
        first["type"], "invalid_value"
    )
    if code == "unknown_field" and first["loc"][0] == "body":
        param = ".".join(filter(None, (param, str(first["loc"][-1])[:100])))
    text = str(first["msg"]).removeprefix("Value error, ").replace("Input should be", "expected")
    if code == "invalid_value" and first["type"] != "value_error":
        text = f"{text}, got {_shown(first['input'])}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return await _on_error(request, ApiError(code, f"{param or 'body'}: {text}{more}", param))


async def _on_http(request: Request, error: Exception) -> Response:
    """What Starlette says of routes and methods."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        message = f"expected {dict(error.headers or {}).get('Allow', 'another method')}, got {request.method}"
        return await _on_error(request, ApiError("method_not_allowed", message, headers=error.headers))
    if error.status_code == 404:
        return await _on_error(request, ApiError("route_not_found", f"no route {request.url.path[:200]!r}"))
    return await _on_error(request, ApiError("internal_error", str(error.detail)))


async def _on_gone(request: Request, _: Exception) -> Response:
    request.state.facts["error"] = "client_gone"
    return Response(status_code=GONE)


def _shown(value: object) -> str:
    text = (
        repr(value) if isinstance(value, (str, int, float, bool, type(None))) else f"a {type(value).__name__}"
    )
    return text if len(text) <= 80 else f"{text[:80]}…"
