"""A tiny HTTP server for the tests of the load generator: every request says itself what shall become of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any


def ask(delay: float = 0.0, status: int = 200, **more: Any) -> bytes:
    """A body: answer after so many seconds with a status. ``way``: "close" hangs up without an answer, "torn"
    in the middle of one, "last" after one; "chunked" and "garbage" are not what the client reads."""
    return json.dumps({"delay": delay, "status": status, **more}).encode()


class SlowServer:
    """Counts what it is sent. Requests are answered independently, or one after the other (``queue``)."""

    def __init__(self, queue: bool, say: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> None:
        self._say = say
        self.received: list[dict[str, Any]] = []
        self.connections = 0
        self.url = ""
        self._one_at_a_time = asyncio.Semaphore(1 if queue else 1000)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
        if "content-length" not in lines:  # a GET: nothing is to be had here but what is posted
            writer.write(_plain(404, b"{}"))
            await writer.drain()
            return True
        asked = json.loads(await reader.readexactly(int(lines["content-length"])))
        self.received.append({"first_line": head.split("\r\n")[0], **lines, **asked})
        if self._say is not None:
            asked = self._say(asked)
        async with self._one_at_a_time:
            await asyncio.sleep(asked["delay"])
        way = asked.get("way", "")
        answer = {
            "close": b"",
            "torn": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
            "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "garbage": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
            "last": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        }.get(way, _plain(asked["status"], asked.get("body", b"ok")))
        for byte in range(len(answer)) if asked.get("drip") else ():
            writer.write(answer[byte : byte + 1])
            await writer.drain()
        if not asked.get("drip"):
            writer.write(answer)
        await writer.drain()
        return not way


def _plain(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d Words\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


@asynccontextmanager
async def slow_server(
    *, queue: bool = False, say: Callable[[dict[str, Any]], dict[str, Any]] | None = None
) -> AsyncIterator[SlowServer]:
    """A server on a free port. ``say`` turns what was asked into what :func:`ask` makes, with a ``body``."""
    made = SlowServer(queue, say)
    server = await asyncio.start_server(made.talk, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/things?x=1"
    try:
        yield made
    finally:
        server.close()
