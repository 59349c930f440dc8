"""A small HTTP server that speaks enough of the OpenAI API to be asked, and to misbehave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What the server says to one request."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass
class Seen:
    """A request as it came."""

    path: str
    body: dict[str, Any]
    authorization: str


def chat_reply(*texts: str, finish: str = "stop") -> Reply:
    """An answer of the chat API."""
    choices = [
        {"index": place, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        for place, text in enumerate(texts)
    ]
    return Reply({"id": "1", "object": "chat.completion", "created": 0, "model": "toy", "choices": choices})


def completion_reply(*texts: str, finish: str = "stop") -> Reply:
    """An answer of the completions API."""
    choices = [{"index": place, "text": text, "finish_reason": finish} for place, text in enumerate(texts)]
    return Reply({"id": "1", "object": "text_completion", "created": 0, "model": "toy", "choices": choices})


class CompletionsServer:
    """Answers each request by a function of it and of how many came before."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.answer: Callable[[Seen, int], Reply] = lambda seen, number: chat_reply("hello")
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                seen = Seen(self.path, body, self.headers.get("authorization", ""))
                with server._lock:
                    server.seen.append(seen)
                    number = len(server.seen) - 1
                reply = server.answer(seen, number)
                time.sleep(reply.delay)
                content = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
                try:
                    self.send_response(reply.status)
                    for name, value in {"content-type": "application/json", **reply.headers}.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(content.encode())))
                    self.end_headers()
                    self.wfile.write(content.encode())
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client did not wait

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def run(self) -> None:
        self._http.serve_forever(poll_interval=0.02)

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@contextmanager
def completions_server() -> Iterator[CompletionsServer]:
    """A running server."""
    server = CompletionsServer()
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
