"""What Prometheus reads. Every label has few values: routes are templates, never paths.

Where ``PROMETHEUS_MULTIPROC_DIR`` is set, the workers of one server write there and ``/metrics`` of any of them
shows the sum.
"""

from __future__ import annotations

import os
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from genrec.decoders.prompt_cache import CacheCounts, PromptCache

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


_NOTHING = CacheCounts(0, 0, 0, 0, 0, 0)


class Metrics:
    """The server's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self._counted: tuple[tuple[PromptCache, ...], CacheCounts] | None = None
        self.registry = CollectorRegistry()
        registry = self.registry
        self.workers = Gauge(
            "genrec_workers", "Processes that serve.", registry=registry, multiprocess_mode="livesum"
        )
        self.starts = Counter(
            "genrec_worker_starts", "Processes started, those after a crash among them.", registry=registry
        )
        self.requests = Counter(
            "genrec_http_requests",
            "Answers by route and status.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "genrec_http_request_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "genrec_http_in_flight",
            "Requests being answered.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.phase_seconds = Histogram(
            "genrec_recommend_seconds",
            "Time of a recommendation by phase.",
            ("phase",),
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "genrec_batch_requests", "Requests searched together.", buckets=BATCHES, registry=registry
        )
        self.queue_depth = Gauge(
            "genrec_queue_depth", "Requests that wait.", registry=registry, multiprocess_mode="livesum"
        )
        self.shed = Counter(
            "genrec_shed",
            "Requests given up, by reason: queue_full, deadline, client_gone.",
            ("reason",),
            registry=registry,
        )
        self.queue_full = self.shed.labels("queue_full")
        self.prompts = Counter(
            "genrec_prompt_cache_prompts",
            "Prompts looked up, by outcome: hit, where a beginning was remembered, or miss.",
            ("outcome",),
            registry=registry,
        )
        self.positions = Counter(
            "genrec_prompt_cache_positions",
            "Positions of prompts, by what was done: reused or run.",
            ("what",),
            registry=registry,
        )
        self.cache_bytes = Gauge(
            "genrec_prompt_cache_bytes",
            "Bytes of remembered prompts.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.cache_entries = Gauge(
            "genrec_prompt_cache_entries",
            "Prompts remembered.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.fallbacks = Counter(
            "genrec_fallbacks",
            "Answers without the model, by the error they stand for.",
            ("reason",),
            registry=registry,
        )
        self.items = Counter("genrec_items_recommended", "Items answered.", registry=registry)
        self.unknown_ids = Counter(
            "genrec_history_ids_unknown", "Ids of histories not in the catalog.", registry=registry
        )
        self.reloads = Counter("genrec_reloads", "Reloads by outcome.", ("outcome",), registry=registry)
        self.model = Gauge(
            "genrec_model_info", "1 for the model that answers.", ("model", "catalog"), registry=registry,
            multiprocess_mode="livemax",
        )  # fmt: skip
        self.loaded = Gauge(
            "genrec_model_loaded_timestamp_seconds",
            "When the model that answers was loaded.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.catalog_items = Gauge(
            "genrec_catalog_items", "Items of the catalog.", registry=registry, multiprocess_mode="livemax"
        )

    def model_changed(
        self, model: str, catalog: str, items: int, previous: tuple[str, str] | None = None
    ) -> None:
        """The model that answers is another one now; ``previous`` is the (model, catalog) it replaces."""
        if previous is not None and previous != (model, catalog):
            self.model.labels(*previous).set(0)
        self.model.labels(model, catalog).set(1)
        self.loaded.set(time.time())
        self.catalog_items.set(items)

    def prompts_read(self, caches: tuple[PromptCache, ...]) -> None:
        """Prompts have gone through the caches of the model that answers, or its model has none."""
        if not caches:
            return
        now, before = CacheCounts.of(caches), _NOTHING
        if self._counted is not None and self._counted[0] is caches:
            before = self._counted[1]
        self._counted = (caches, now)
        hits, reused = now.hits - before.hits, now.reused - before.reused
        self.prompts.labels("hit").inc(hits)
        self.prompts.labels("miss").inc(now.prompts - before.prompts - hits)
        self.positions.labels("reused").inc(reused)
        self.positions.labels("run").inc(now.positions - before.positions - reused)
        self.cache_bytes.set(now.nbytes)
        self.cache_entries.set(now.entries)

    def text(self) -> bytes:
        """The exposition format."""
        registry = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
