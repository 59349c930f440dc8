"""Refuses recommendations while the queue is full, before their body is read. Stands before those routes alone.

Under overload most requests are refused, and what a refusal costs is taken from those that are answered: parsing
and checking a request costs several times as much as this. Knows no client; keys are checked behind it.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.engine import Engine
from serving.errors import api_error
from serving.replies import send_error


class Shedding:
    """429 at the door where there is no place in the queue."""

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        self._app = app
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        full = self._engine.refusal()
        if full is not None:
            scope["endpoint"] = self  # for the log: this path is a route
            scope["state"]["facts"]["error"] = "queue_full"
            await send_error(api_error(full), scope, receive, send)
            return
        await self._app(scope, receive, send)
