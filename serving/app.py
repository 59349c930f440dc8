"""The ASGI application: routes, guards and error handlers put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

import genrec
from serving.auth import KeyGuard
from serving.direct import Application, DirectRoutes
from serving.engine import Engine
from serving.error_handlers import HANDLERS
from serving.live_bundle import LiveBundle
from serving.openapi import describe
from serving.request_log import RequestLog
from serving.routes import admin, chat, health, items, models, recommendations, walk
from serving.routes.playground import playground_router
from serving.settings import Settings
from serving.shedding import Shedding

Reload = Callable[[bool], Awaitable[LiveBundle]]
"""Serves what is on disk now and returns it; the argument says whether to compare hashes first."""


def create_app(settings: Settings, engine: Engine, reload: Reload | None = None) -> Application:
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
    for noun in (recommendations, chat, items, models, health, admin):
        app.include_router(noun.router)
    if settings.playground:
        app.include_router(walk.router)
        app.include_router(playground_router())
    for error, handler in HANDLERS.items():
        app.add_exception_handler(error, handler)
    app.add_middleware(KeyGuard, settings=settings)
    app.add_middleware(RequestLog, metrics=engine.metrics)  # the last added is the outermost
    document: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not document:
            document.update(describe(app, settings))
        return document

    app.openapi = openapi  # type: ignore[method-assign]
    routes = recommendations.DIRECT
    direct: ASGIApp = KeyGuard(DirectRoutes(app, routes, settings), settings)
    direct = RequestLog(Shedding(direct, engine), engine.metrics)
    return Application(direct, app, frozenset(routes))
