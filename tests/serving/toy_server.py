"""A server over the toy catalog, in this process, with a decoder that has no weights."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

from starlette.testclient import TestClient

from genrec.decoders.base import Prefilled, Prompt
from genrec.recommender import Recommender
from genrec.tasks import TaskDefaults
from index.item_index import ItemIndex
from serving.app import create_app
from serving.engine import Engine, Loader
from serving.live_bundle import LiveBundle, lexicon_of
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
    """Built once for all tests."""
    return toy_index()


def toy_live(decoder: Any = None, model: str = MODEL) -> LiveBundle:
    index = index_of_toys()
    decoder = decoder or FakeDecoder(sum(index.level_sizes))
    recommender = Recommender(index, decoder, TaskDefaults(beam=5))
    return LiveBundle(recommender, lexicon_of(recommender), model, CATALOG)


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
