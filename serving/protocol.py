"""HTTP/1.1 on one connection, with refusals before the parser: what cannot be answered in time costs next to nothing.

A refusal that becomes an ASGI task costs a third of what an answered request costs, and at three times the capacity
there are two of them for each answer, in the interpreter that also searches. Here the 429 is written as soon as the
bytes of a plain request's head are there; neither uvicorn's parser nor anybody else hears of it. Its body is thrown
away unread, so the connection stays usable. Whatever is unusual about a request or its connection (a head that comes
in pieces, a request behind an unanswered one, chunks, ``Expect``, ``connection: close``, a client that does not read,
refusals wanted in the log) goes the long way, where :mod:`serving.shedding` refuses with the same answer.

This module knows uvicorn's httptools protocol, whose callbacks it extends.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from logging import DEBUG
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.engine import Engine
from serving.errors import QueueFull, api_error
from serving.logs import logger
from serving.replies import JSON
from serving.request_log import HEADER, request_id_of

REST = 0.01
"""Seconds that the event loop sleeps after refusals. Each time it wakes it takes the interpreter from the search,
which costs far more than to refuse: at three times the capacity the search lost a sixth of its time, with this
nothing (``benchmarks/serve_chaos.py``). A refusal comes a rest later at most, as does all else while the server
is full."""

_HEADER = HEADER.encode()
_MOST_HEAD = 2048  # bytes; a longer head goes the long way
_LINE = (
    rb"\r\n(?!content-length:|transfer-encoding:|expect:|upgrade:|connection:(?![ \t]*keep-alive[ \t]*\r\n))"
    rb"[!#$%&'*+.^_`|~0-9a-z-]++:[^\x00-\x08\x0a-\x1f\x7f]*+"
)
_PLAIN = re.compile(
    rb"(?:%b)*+(?:\r\ncontent-length:[ \t]*+([0-9]{1,15})[ \t]*+(?:%b)*+)?+\r\n\r\n" % (_LINE, _LINE), re.I
)
"""The headers of a request that nothing is unusual about, the length of its body in the first group: well formed, at
most one length, no other framing, and a connection that stays."""
_REQUEST_ID = re.compile(rb"\r\n%b:[ \t]*+([^\r]*)" % _HEADER, re.I)


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """A request that nothing is unusual about."""

    length: int  # bytes of its head and its body, however many of them have come
    request_id: str  # the client's; empty where it has none


class Door:
    """Says who is refused, with which bytes, and counts them.

    Args:
        engine: knows whether there is a place.
        paths: of the routes that need one.
    """

    def __init__(self, engine: Engine, paths: Collection[str]) -> None:
        self._engine = engine
        # Labels are looked up once: a refusal is too cheap for look-ups.
        metrics = engine.metrics
        self._counts = {
            f"POST {path} HTTP/1.1".encode(): (
                metrics.requests.labels("POST", path, "429"),
                metrics.seconds.labels(path),
            )
            for path in paths
        }
        self._parts: dict[int, tuple[bytes, bytes]] = {}  # by retry_after, at most a minute
        # Many requests may be read in one turn of the loop, and take their places in the next one: those that then
        # find none have gone the long way for nothing. One refusal in six did.
        self._let_in = 0
        self._rests = False

    def refused(self, data: bytes) -> PlainRequest | None:
        """The request that begins here, counted, where it is a plain one and there is no place for it."""
        engine = self._engine
        counts = self._counts.get(data[: data.find(b"\r\n", 0, _MOST_HEAD)])
        if counts is None or logger.isEnabledFor(DEBUG):
            return None
        if not engine.is_full(self._let_in):
            if not self._let_in:
                asyncio.get_running_loop().call_soon(self._have_come)
            self._let_in += 1
            return None
        end = data.find(b"\r\n\r\n", 0, _MOST_HEAD)
        plain = _plain(data[: end + 4]) if end >= 0 else None
        if plain is not None:
            requests, seconds = counts
            engine.metrics.queue_full.inc()
            requests.inc()
            seconds.observe(0.0)
        return plain

    def rest_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Rest once all that has come is refused."""
        if not self._rests:
            self._rests = True
            loop.call_soon(self._rest)

    def _rest(self) -> None:
        """Leave the interpreter to the search for a moment; what comes meanwhile is refused in one go."""
        self._rests = False
        time.sleep(REST)  # the loop stands still on purpose

    def _have_come(self) -> None:
        """Who was let in takes a place now, before anything more is read."""
        self._let_in = 0

    def answer(self) -> tuple[bytes, bytes]:
        """The first headers of a refusal and its body, as :func:`serving.replies.error_reply` would send them."""
        retry_after = self._engine.retry_after
        parts = self._parts.get(retry_after)
        if parts is None:
            error = api_error(QueueFull(self._engine.room.refusal, retry_after))
            body = json.dumps(error.body(), ensure_ascii=True).encode()
            headers = {**error.headers, "content-length": str(len(body)), "content-type": JSON}
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            parts = f"HTTP/1.1 429 Too Many Requests\r\n{lines}".encode(), body
            self._parts[retry_after] = parts
        return parts


class RefusingProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which asks a door first. Make one per server with :func:`protocol_of`."""

    door: Door

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._is_parsing = False  # a request has begun and not ended
        self._to_skip = 0  # bytes of a refused body that have not come yet
        self._heard = 0.0  # loop.time() of the last refusal or piece of a refused body

    def data_received(self, data: bytes) -> None:
        """Refuse what is refused; uvicorn gets the rest."""
        while True:
            if not self._to_skip:
                refused = self.door.refused(data) if self._may_refuse() else None
                if refused is None:
                    super().data_received(data)
                    return
                self._refuse(refused)
            self._heard = self.loop.time()
            if self._to_skip >= len(data):
                self._to_skip -= len(data)
                break
            data, self._to_skip = data[self._to_skip :], 0
        if self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_message_begin(self) -> None:
        """What comes now is the parser's."""
        self._is_parsing = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """The next request begins, or nothing does."""
        self._is_parsing = False
        super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection where nothing has come for so long; refusals leave the timer as it is."""
        left = self._heard + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _refuse(self, refused: PlainRequest) -> None:
        head, body = self.door.answer()
        common = [b"%b: %b\r\n" % one for one in self.server_state.default_headers]
        request_id = request_id_of(refused.request_id).encode()
        self.transport.write(b"".join((head, *common, _HEADER, b": ", request_id, b"\r\n\r\n", body)))
        self.server_state.total_requests += 1
        self._to_skip = refused.length
        self.door.rest_soon(self.loop)

    def _may_refuse(self) -> bool:
        """Whether a request begins here and may be answered now, past everything else."""
        return (
            not self._is_parsing
            and (self.cycle is None or self.cycle.response_complete)  # answers keep the order of the requests
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )


def protocol_of(door: Door) -> type[asyncio.Protocol]:
    """What uvicorn makes for every connection of a server with this door."""
    return type("DoorProtocol", (RefusingProtocol,), {"door": door})


@lru_cache(maxsize=256)  # clients send the same head again and again
def _plain(head: bytes) -> PlainRequest | None:
    """What a head says, its empty line included; None where something is unusual about it."""
    line = head.find(b"\r\n")
    plain = _PLAIN.fullmatch(head, line)
    if plain is None:
        return None
    given = _REQUEST_ID.search(head, line)
    request_id = given[1].rstrip(b" \t").decode("latin-1") if given else ""
    return PlainRequest(len(head) + int(plain[1] or 0), request_id)
