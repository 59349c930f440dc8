"""HTTP/1.1 on one connection, with refusals at the parser: what cannot be answered in time costs a few callbacks.

A refusal that becomes an ASGI task costs a third of what an answered request costs, and at three times the capacity
there are two of them for each answer, in the interpreter that also searches. Here the 429 is written as soon as a
request's headers are there: 25 µs. Its body is read and thrown away, so the connection stays usable. Whatever is
unusual (a request behind an unanswered one, ``Expect``, a client that does not read, refusals wanted in the log) goes
the long way, where :mod:`serving.shedding` refuses with the same answer.

This module knows uvicorn's httptools protocol, whose callbacks it extends.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from functools import lru_cache
from logging import DEBUG
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.engine import Engine
from serving.errors import QueueFull, api_error
from serving.logs import logger
from serving.replies import JSON
from serving.request_log import HEADER, request_id_of

_HEADER = HEADER.encode()


class Door:
    """Says who is refused, with which bytes, and counts them.

    Args:
        engine: knows whether there is a place.
        paths: of the routes that need one.
    """

    def __init__(self, engine: Engine, paths: Collection[str]) -> None:
        self._engine = engine
        # Labels are looked up once: a refusal is too cheap for three look-ups.
        metrics = engine.metrics
        self._counts = {
            path.encode(): (metrics.requests.labels("POST", path, "429"), metrics.seconds.labels(path))
            for path in paths
        }

    def refusal(self, url: bytes) -> QueueFull | None:
        """The error for one request more to ``url``, where it needs a place and there is none; counted then."""
        if url not in self._counts or logger.isEnabledFor(DEBUG):
            return None
        full = self._engine.refusal()
        if full is not None:
            requests, seconds = self._counts[url]
            requests.inc()
            seconds.observe(0.0)
        return full


class RefusingProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which asks a door first. Make one per server with :func:`protocol_of`."""

    door: Door

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._is_refused = False  # the request whose body is being read

    def on_headers_complete(self) -> None:
        """Refuse, or do what uvicorn does."""
        if not self._may_refuse() or (full := self.door.refusal(self.url)) is None:
            self._unset_keepalive_if_required()  # a refusal that came with it may have set one
            super().on_headers_complete()
            return
        self._is_refused = True
        given = next((value for name, value in self.headers if name == _HEADER), b"")
        stays = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        common = b"".join(b"%b: %b\r\n" % one for one in self.server_state.default_headers)
        head, body = _parts(str(full), full.retry_after)
        request_id = request_id_of(given.decode("latin-1")).encode()
        end = b"\r\n\r\n" if stays else b"\r\nconnection: close\r\n\r\n"
        self.transport.write(b"".join((head, common, _HEADER, b": ", request_id, end, body)))
        self.server_state.total_requests += 1
        if stays:
            self._close_when_idle()
        else:
            self.transport.close()

    def on_body(self, body: bytes) -> None:
        """Keep it, where somebody will read it."""
        if self._is_refused:
            self._close_when_idle()
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The next request begins, or nothing does."""
        if self._is_refused:
            self._is_refused = False
            self._close_when_idle()
        else:
            super().on_message_complete()

    def _close_when_idle(self) -> None:
        """Close the connection where nothing more comes for so long; all that comes stops the timer."""
        if self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _may_refuse(self) -> bool:
        """Whether an answer may be written now, past everything else."""
        return (
            (self.cycle is None or self.cycle.response_complete)  # answers keep the order of the requests
            and not self.expect_100_continue
            and not self.flow.write_paused
            and not self.transport.is_closing()
            and self.parser.get_method() == b"POST"
            and not self.parser.should_upgrade()
        )


def protocol_of(door: Door) -> type[asyncio.Protocol]:
    """What uvicorn makes for every connection of a server with this door."""
    return type("DoorProtocol", (RefusingProtocol,), {"door": door})


@lru_cache(maxsize=128)
def _parts(message: str, retry_after: int) -> tuple[bytes, bytes]:
    """The answer's first headers and its body, as :func:`serving.replies.error_reply` would send them."""
    error = api_error(QueueFull(message, retry_after))
    body = json.dumps(error.body(), ensure_ascii=True).encode()
    headers = {**error.headers, "content-length": str(len(body)), "content-type": JSON}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 429 Too Many Requests\r\n{lines}".encode(), body
