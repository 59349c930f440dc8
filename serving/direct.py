"""The routes that are asked all day, past the framework.

FastAPI passes a request through twenty calls before a route sees it, which costs twice as much as checking the body
and writing the answer. Here the same function is called with the same checked body; the framework goes on
describing the route, and answers it where another method is asked for. A test holds both to the same answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.error_handlers import HANDLERS
from serving.json_body import parse_json, read_body
from serving.settings import Settings


@dataclass(frozen=True, slots=True)
class Direct:
    """A route: POST, a JSON body of one type, nothing in the path or the query."""

    path_format: str  # for the log and the metrics
    body: type[BaseModel]
    answer: Callable[[Any, Request], Awaitable[Response]]


class DirectRoutes:
    """Answers its routes; what else comes goes on to ``app``.

    Args:
        app: the framework's application, whose state the routes' functions read.
        routes: by path.
        settings: the server's.
    """

    def __init__(self, app: FastAPI, routes: Mapping[str, Direct], settings: Settings) -> None:
        self._app = app
        self._routes = routes
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, check, answer."""
        route = self._routes[scope["path"]]
        scope["app"] = self._app
        scope["endpoint"] = route.answer
        scope["route"] = route
        request = Request(scope, receive)
        try:
            body = await read_body(request, self._settings.max_body_bytes, self._settings.body_timeout_s)
            response = await route.answer(_checked(route.body, parse_json(body)), request)
        except Exception as error:
            handler = next((HANDLERS[one] for one in type(error).__mro__ if one in HANDLERS), None)
            if handler is None:
                raise
            response = await handler(request, error)  # type: ignore[misc, arg-type]
        await response(scope, receive, send)


class Application:
    """What a server is given: the direct routes and the framework, each behind the same guards.

    Args:
        direct: takes POST requests for ``paths``.
        framework: takes everything else, the server's start and end among it.
        paths: of the direct routes.
    """

    def __init__(self, direct: ASGIApp, framework: FastAPI, paths: frozenset[str]) -> None:
        self._direct = direct
        self.framework = framework
        self.direct_paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Choose."""
        is_direct = (
            scope["type"] == "http" and scope["path"] in self.direct_paths and scope["method"] == "POST"
        )
        await (self._direct if is_direct else self.framework)(scope, receive, send)


def _checked(model: type[BaseModel], value: object) -> BaseModel:
    """The body as its type; a complaint reads as FastAPI's would."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        complaints = error.errors(include_url=False)
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in complaints]) from None
