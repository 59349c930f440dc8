"""What a server's users wait for, at every rate they may come at: a sweep, the goodput at a limit, validity, recall.

Open loop unless asked otherwise: requests are sent at planned moments and timed from them, so a server that falls
behind is not spared (:mod:`genrec.bench.arrivals`). A closed loop says what a server can do at most; it is labelled
and never makes a goodput. This module knows the API of ``genrec serve`` and no process: the server may be anywhere.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.bench.arrivals import BURSTY, ArrivalKind, arrivals
from genrec.bench.decode import Progress
from genrec.bench.goodput import Trial, most_late, search_goodput
from genrec.bench.http_client import HttpClient
from genrec.bench.load import LoadRun, closed_loop, open_loop
from genrec.bench.load_report import LoadReport
from genrec.bench.served_answers import AnswerBook, AnswersReport
from index.errors import RequestError
from index.types import Float64Array, ItemId

SHARES_OF_CAPACITY = (0.2, 0.4, 0.6, 0.75, 0.9, 1.1, 1.5)
"""Rates of a sweep where none are named: up to what the server can do at most, and beyond it."""
_CAPACITY_IN_FLIGHT = 16
_CLOSER = 1.1  # the search for the goodput ends when the next rate is so near


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What to ask, how fast, and what counts as in time."""

    k: int = 10
    beam: int | None = None  # the server's own where None
    slo_ms: float = 100.0
    requests: int = 1000  # of every rate; p99 needs 1,000, p99.9 needs 10,000
    rates: tuple[float, ...] = ()  # a second; shares of the capacity where empty
    arrival: ArrivalKind = "poisson"
    shape: float = BURSTY  # of gamma arrivals
    concurrency: tuple[int, ...] = ()  # closed loops instead of rates: requests kept under way
    refine: int = 3  # further rates between the last sustained and the first that is not
    warm_up: int = 50  # requests before the clock counts
    timeout_s: float = 10.0  # the client's patience, from the planned moment
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that make no load.

        Raises:
            RequestError: says which.
        """
        counts = {"k": self.k, "requests": self.requests, "--concurrency": min(self.concurrency, default=1)}
        for name, value in counts.items():
            if value < 1:
                raise RequestError(f"expected {name} of at least 1, got {value}")
        amounts = {
            "rates": min(self.rates, default=1.0),
            "a limit": self.slo_ms,
            "a timeout": self.timeout_s,
            "a shape": self.shape,
        }
        for name, number in amounts.items():
            if not (math.isfinite(number) and number > 0):
                raise RequestError(f"expected {name} above 0, got {number:g}")
        if self.rates and self.concurrency:
            raise RequestError("expected rates (open loop) or --concurrency (closed loop), got both")


@dataclass(frozen=True, eq=False)
class Asked:
    """Who asks: histories, and what came next where it is known."""

    source: str  # in words, for the report
    histories: Sequence[Sequence[ItemId]]  # at least one
    targets: Sequence[ItemId] | None = None  # one each


@dataclass(frozen=True, eq=False)
class ServeTrial:
    """One rate (or number of clients), measured."""

    load: LoadReport
    answers: AnswersReport
    sustained: bool | None  # whether 99 % were in time; None in a closed loop
    server_cpu_ms: float | None  # processor time of the server per request sent
    samples_ms: Float64Array  # latencies of those answered, in the order of their planned moments

    @property
    def name(self) -> str:
        """Tells trials apart."""
        rate = self.load.planned_rate
        return f"{self.load.loop}" if rate is None else f"{self.load.loop}, {rate:.4g} a second"

    def as_json(self) -> dict[str, Any]:
        """For a report."""
        return {
            "name": self.name,
            "sustained": self.sustained,
            "server_cpu_ms": self.server_cpu_ms if self.server_cpu_ms is None else round(self.server_cpu_ms, 4),
            **self.load.as_json(),
            "answers": self.answers.as_json(),
            "samples": {"wall_ms": [round(one, 3) for one in self.samples_ms.tolist()]},
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class ServeReport:
    """The whole sweep."""

    source: str  # what the histories are
    cold_ms: float  # the very first request
    capacity: float | None  # answers a second with 16 under way; None where rates were named
    trials: Sequence[ServeTrial]  # by rate
    goodput: float | None  # requests a second; None where no rate was sustained, or in a closed loop
    not_sustained: float | None  # the lowest rate above it that was tried and was not


class _Load:
    """Asks one server, trial after trial; every request is the next user's."""

    def __init__(
        self,
        client: HttpClient,
        asked: Asked,
        catalog: frozenset[ItemId],
        settings: ServeSettings,
        server_cpu: Callable[[], float] | None,
    ) -> None:
        self._client, self._asked, self._catalog, self._settings = client, asked, catalog, settings
        self._server_cpu = server_cpu
        self._order = np.random.default_rng(settings.seed).permutation(len(asked.histories))
        self._next = 0

    def _users(self, count: int) -> list[int]:
        """The next users, from the first again when all have asked."""
        places = (np.arange(count) + self._next) % len(self._order)
        self._next += count
        return [int(one) for one in self._order[places]]

    def _body(self, user: int) -> bytes:
        settings = self._settings
        asked: dict[str, Any] = {"history": list(self._asked.histories[user]), "num_results": settings.k}
        if settings.beam is not None:
            asked["decoding"] = {"beam": settings.beam}
        return json.dumps(asked).encode()

    async def first(self) -> float:
        """Milliseconds of one request alone.

        Raises:
            RequestError: the server refused it; its words are in the message.
        """
        start = time.perf_counter()
        reply = await self._client.post(self._body(self._users(1)[0]))
        if reply.status != 200:
            raise RequestError(
                f"expected an answer to a first request, got {reply.status}: {reply.body[:500]!r}"
            )
        return 1e3 * (time.perf_counter() - start)

    async def closed(self, count: int, in_flight: int) -> ServeTrial:
        """So many requests, so many at a time."""
        users, book, before = self._users(count), AnswerBook(), self._cpu()
        bodies = [self._body(user) for user in users]
        run = await closed_loop(
            self._client, bodies, in_flight, timeout=self._settings.timeout_s, on_reply=book
        )
        return self._trial(run, users, book, before, None)

    async def offered(self, rate: float) -> ServeTrial:
        """One rate, to the end of its plan."""
        settings = self._settings
        plan = arrivals(settings.arrival, rate, settings.requests, settings.seed, shape=settings.shape)
        users, book, before = self._users(settings.requests), AnswerBook(), self._cpu()
        bodies = [self._body(user) for user in users]
        run = await open_loop(self._client, bodies, plan, timeout=settings.timeout_s, on_reply=book)
        return self._trial(run, users, book, before, most_late(settings.requests))

    def _cpu(self) -> float | None:
        return None if self._server_cpu is None else self._server_cpu()

    def _trial(
        self, run: LoadRun, users: list[int], book: AnswerBook, before: float | None, allowed: int | None
    ) -> ServeTrial:
        after, targets = self._cpu(), self._asked.targets
        latency = 1000 * run.latency
        samples = latency[np.isfinite(latency)]
        report = LoadReport.of(run, self._settings.slo_ms, self._settings.seed)
        answers = book.read(
            self._catalog,
            self._settings.k,
            [self._asked.histories[user] for user in users],
            None if targets is None else [targets[user] for user in users],
        )
        late = report.sent - round((report.within or 0.0) * report.sent)
        spent = None if before is None or after is None else 1000 * (after - before) / max(report.sent, 1)
        return ServeTrial(report, answers, None if allowed is None else late <= allowed, spent, samples)


async def measure_serve(
    url: str,
    asked: Asked,
    catalog: frozenset[ItemId],
    settings: ServeSettings,
    *,
    headers: dict[str, str] | None = None,
    server_cpu: Callable[[], float] | None = None,
    progress: Progress = lambda _stage, _done, _total: None,
) -> ServeReport:
    """Ask a server at every rate.

    Args:
        url: of ``POST /v1/recommendations``.
        asked: users; they are asked for in a random order, and again from the first when all have been.
        catalog: every id the server may return.
        settings: what to ask.
        headers: sent with every request.
        server_cpu: seconds of processor time the server has used so far, where that can be known.
        progress: told the stage.

    Raises:
        ConnectionFailed: nobody answers there.
        RequestError: the first request was refused.
    """
    client = HttpClient(url, headers)
    load = _Load(client, asked, catalog, settings, server_cpu)
    try:
        progress("first request", 0, 1)
        cold = await load.first()
        progress("warm up", 0, 1)
        if settings.warm_up:
            await load.closed(settings.warm_up, min(4, settings.warm_up))
        if settings.concurrency:
            closed = []
            for place, in_flight in enumerate(settings.concurrency):
                progress("closed loops", place, len(settings.concurrency))
                closed.append(await load.closed(settings.requests, in_flight))
            return ServeReport(asked.source, cold, None, closed, None, None)
        capacity, rates = None, settings.rates
        if not rates:
            progress("capacity", 0, 1)
            capacity = (
                await load.closed(max(settings.requests // 3, 1), _CAPACITY_IN_FLIGHT)
            ).load.achieved_rate
            rates = tuple(share * capacity for share in SHARES_OF_CAPACITY)
        return await _sweep(load, asked.source, cold, capacity, rates, settings.refine, progress)
    finally:
        await client.close()


async def _sweep(
    load: _Load,
    source: str,
    cold: float,
    capacity: float | None,
    rates: Sequence[float],
    refine: int,
    progress: Progress,
) -> ServeReport:
    """Every rate once, then rates between the best sustained and the next that was not."""
    trials: dict[float, ServeTrial] = {}

    async def attempt(rate: float) -> Trial:
        trials[rate] = one = await load.offered(rate)
        return Trial(rate, bool(one.sustained), one.load)

    known = []
    for place, rate in enumerate(rates):
        progress("rates", place, len(rates))
        known.append(await attempt(rate))
    if refine and any(one.sustained for one in known) and not all(one.sustained for one in known):
        progress("goodput", 0, 1)
        await search_goodput(attempt, rates[0], closer=_CLOSER, most_trials=refine, known=known)
    found = {rate: trials[rate] for rate in sorted(trials)}
    good = max((rate for rate, one in found.items() if one.sustained), default=None)
    bad = [rate for rate, one in found.items() if not one.sustained and (good is None or rate > good)]
    return ServeReport(source, cold, capacity, list(found.values()), good, min(bad, default=None))
