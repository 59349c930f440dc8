"""Around every request: an id, a log line, a count, and an answer even where the code failed."""

from __future__ import annotations

import logging
import random
import re
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import api_error
from serving.logs import logger
from serving.metrics import Metrics
from serving.replies import send_error

HEADER = "x-request-id"
GONE = 499  # nginx's word for a client that closed the connection; never sent
_ACCEPTED = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestLog:
    """Gives every request an id (the client's ``x-request-id`` where it is a plain one) and sends it back."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and write down what came of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        request_id = request_id_of(Headers(scope=scope).get(HEADER, ""))
        facts: dict[str, Any] = {}  # what routes add to the line
        scope.setdefault("state", {}).update(request_id=request_id, facts=facts)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            logger.exception("request_failed", extra={"facts": {"request_id": request_id}})
            if not status:
                await send_error(api_error(error), scope, receive, send_with_id)
        finally:
            self._metrics.in_flight.dec()
            self._write_down(scope, status or GONE, time.perf_counter() - start, request_id, facts)

    def _write_down(
        self, scope: Scope, status: int, seconds: float, request_id: str, facts: dict[str, Any]
    ) -> None:
        # Routes of the framework's own (openapi.json) have no parameters: their path is their template.
        plain = scope["path"] if "endpoint" in scope else "unmatched"
        route = getattr(scope.get("route"), "path_format", plain)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        # Refusals are counted above; a line for each would cost those that are answered.
        level = logging.DEBUG if status == 429 else logging.INFO
        if not logger.isEnabledFor(level):
            return
        line = {
            "request_id": request_id,
            "method": scope["method"],
            "path": scope["path"][:500],
            "status": status,
            "ms": round(1000 * seconds, 3),
            "client": (scope.get("client") or ("",))[0],
            **facts,
        }
        logger.log(level, "request", extra={"facts": line})


_METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"))


def request_id_of(given: str) -> str:
    """The client's own id where it is a plain one, else a new one: no secret, so it costs no system call."""
    return given if _ACCEPTED.fullmatch(given) else f"req_{random.getrandbits(96):024x}"
