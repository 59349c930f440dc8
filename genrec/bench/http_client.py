"""A small HTTP/1.1 client for load generation: raw keep-alive connections, one event loop.

A general client costs a millisecond of processor time a request; on a small machine that is the server's time.
This one knows POST with a body and answers with a ``content-length``, which is all a recommender sends.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

from index.errors import RequestError

_END = b"\r\n\r\n"
_MOST_HEAD = 65_536  # bytes of a status line and headers


class ConnectionFailed(ConnectionError):
    """The server refused or closed a connection, or answered in a way this client does not read."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    status: int
    body: bytes


class HttpClient:
    """Posts JSON to one address, over as many connections as there are requests at a time.

    Args:
        url: ``http://host:port/path``.
        headers: sent with every request, an API key say.

    Raises:
        RequestError: not such an address.
    """

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise RequestError(
                f"expected an address like http://127.0.0.1:8000/v1/recommendations, got {url}"
            )
        self._host, self._port = parts.hostname, parts.port or 80
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"POST {path} HTTP/1.1", f"host: {parts.netloc}", "content-type: application/json"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self._head = "\r\n".join(lines).encode("latin-1")
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._all)

    async def post(self, body: bytes) -> Reply:
        """Send one request and read its answer. Cancelling the call closes its connection.

        Raises:
            ConnectionFailed: no connection, or no readable answer.
        """
        message = self._head + b"\r\ncontent-length: %d" % len(body) + _END + body
        while self._idle:
            used = self._idle.pop()
            if used.is_open:
                try:
                    return await self._ask(used, message)
                except _ClosedBeforeAnswer:  # the server gave the idle connection up as we took it: not heard
                    continue
        return await self._ask(await self._connect(), message)

    async def close(self) -> None:
        """Close every connection."""
        for one in self._all:
            one.close()
        self._all.clear()
        self._idle.clear()
        await asyncio.sleep(0)  # lets the transports close

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(_Connection, self._host, self._port)
        except OSError as error:
            raise ConnectionFailed(
                f"expected a server at {self._host}:{self._port}, got: {error}; start it first"
            ) from error
        self._all.add(connection)
        return connection

    async def _ask(self, connection: _Connection, message: bytes) -> Reply:
        try:
            reply = await connection.ask(message)
        except BaseException:
            connection.close()
            self._all.discard(connection)
            raise
        if connection.is_open:
            self._idle.append(connection)
        else:
            self._all.discard(connection)
        return reply


class _ClosedBeforeAnswer(ConnectionFailed):
    """Closed without a byte of an answer."""


class _Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self._received = bytearray()
        self._body_from = self._end = 0  # of the answer being received; 0 until its head is there
        self._status = 0
        self.is_open = False
        self._stays = True

    async def ask(self, message: bytes) -> Reply:
        assert self._transport is not None
        assert self._answer is None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        try:
            return await self._answer
        finally:
            self._answer = None

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.is_open = transport, True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        nothing = not self._received
        self._fail(
            _ClosedBeforeAnswer("expected an answer, got a closed connection")
            if nothing
            else ConnectionFailed("expected a whole answer, got a closed connection in the middle of one")
        )

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            if not self._end and not self._read_head():
                return
        except ConnectionFailed as error:
            self._fail(error)
            self.close()
            return
        if len(self._received) < self._end:
            return
        reply = Reply(self._status, bytes(self._received[self._body_from : self._end]))
        del self._received[: self._end]
        self._end = 0
        if not self._stays or self._received:
            self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(reply)

    def _read_head(self) -> bool:
        """Whether the head is there; then where the body begins and ends is known."""
        place = self._received.find(_END)
        if place < 0:
            if len(self._received) > _MOST_HEAD:
                raise ConnectionFailed(f"expected headers of at most {_MOST_HEAD} bytes, got more")
            return False
        first, *lines = bytes(self._received[:place]).split(b"\r\n")
        words = first.split(b" ", 2)
        if not words[0].startswith(b"HTTP/1.") or len(words) < 2 or not words[1].isdigit():
            raise ConnectionFailed(f"expected an HTTP/1.1 answer, got {first[:60]!r}")
        length = None
        self._stays = words[0] == b"HTTP/1.1"
        for line in lines:
            name, _, value = line.partition(b":")
            lower = name.lower()
            if lower == b"content-length":
                length = int(value)
            elif lower == b"connection" and value.strip().lower() == b"close":
                self._stays = False
        if length is None:
            raise ConnectionFailed("expected an answer with a content-length, got one without")
        self._status, self._body_from = int(words[1]), place + len(_END)
        self._end = self._body_from + length
        return True

    def _fail(self, error: ConnectionFailed) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
