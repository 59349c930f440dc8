"""A server over the toy catalog, in this process, with a decoder that has no weights."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from starlette.testclient import TestClient

from genrec.decoders.base import Prefilled, Prompt
from genrec.recommender import Recommender
from genrec.tasks import TaskDefaults
from index.item_index import ItemIndex
from serving.app import create_app
from serving.engine import Engine, Loader
from serving.live_bundle import LiveBundle
from serving.process import server_of
from serving.settings import Settings
from tests.fake_decoder import FakeDecoder
from tests.toy import toy_index

MODEL, CATALOG = "toy@0123456789ab", "fedcba987654"


class GatedDecoder(FakeDecoder):
    """Waits at every prefill until its gate is open."""

    def __init__(self, vocabulary: int, seed: int = 0) -> None:
        super().__init__(vocabulary, seed)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)  # released once a prefill

    def prefill(self, prompts: Sequence[Prompt]) -> Prefilled:
        self.entered.release()
        assert self.gate.wait(30)
        return super().prefill(prompts)


@cache
def index_of_toys() -> ItemIndex:
    """Built once for all tests. The first search compiles for seconds, which no deadline of a test is to pay for."""
    index = toy_index()
    Recommender(index, FakeDecoder(sum(index.level_sizes))).recommend(["i1"], k=2)
    return index


def toy_live(decoder: Any = None, model: str = MODEL) -> LiveBundle:
    index = index_of_toys()
    decoder = decoder or FakeDecoder(sum(index.level_sizes))
    recommender = Recommender(index, decoder, TaskDefaults(beam=5))
    return LiveBundle(recommender, index.titles(), model, CATALOG)


class Server:
    """The application; as a context, a client that calls it without a network::

    with Server(max_results=5) as client:
        client.get("/v1/models")
    """

    def __init__(self, live: LiveBundle | None = None, loader: Loader | None = None, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.engine = Engine(
            live or toy_live(),
            loader,
            queue_size=self.settings.queue_size,
            max_batch=self.settings.max_batch,
        )
        self.app = create_app(self.settings, self.engine)

    def __enter__(self) -> TestClient:
        self._client = TestClient(self.app, raise_server_exceptions=False)
        return self._client.__enter__()

    def __exit__(self, *_: object) -> None:
        self._client.__exit__(None, None, None)

    def metric(self, name: str, **labels: str) -> float:
        """A sample of the metrics; 0 where nothing was counted yet."""
        return self.engine.metrics.registry.get_sample_value(name, labels) or 0.0


class Connection:
    """One request to the application itself, part by part."""

    def __init__(self, server: Server, path: str = "/v1/recommendations") -> None:
        self.parts: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(b"content-type", b"application/json")], "client": ("test", 1),
        }  # fmt: skip
        self.task = asyncio.ensure_future(server.app(scope, self.parts.get, self._send))

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def send(self, body: bytes, *, more: bool = False) -> None:
        self.parts.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def hang_up(self) -> None:
        self.parts.put_nowait({"type": "http.disconnect"})

    async def answer(self) -> tuple[int, dict[str, Any]]:
        await asyncio.wait_for(self.task, 10)
        return self.sent[0]["status"], json.loads(self.sent[1]["body"])

    def header(self, name: bytes) -> bytes:
        return dict(self.sent[0]["headers"])[name]


@contextmanager
def listening(server: Server) -> Iterator[int]:
    """The server as it is served, in a thread, on a port the system chose."""
    running = server_of(server.app, server.engine)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=running.run, args=([listener],), daemon=True)
        thread.start()
        while not running.started:
            time.sleep(0.01)
            assert thread.is_alive()
        try:
            yield listener.getsockname()[1]
        finally:
            running.should_exit = True
            thread.join(10)
            assert not thread.is_alive()
