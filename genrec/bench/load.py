"""Sending load and writing down what became of every request. Knows moments and statuses, no meaning of a body.

``open_loop`` sends at planned moments, whatever comes back. ``closed_loop`` keeps so many requests under way and
sends the next when one is answered: it finds out what a server can do at most, and its latencies are those of
so many patient clients, never of users. A report names which of the two it stands on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, TypeAlias

import numpy as np

from genrec.bench.arrivals import ArrivalKind, Arrivals
from genrec.bench.http_client import ConnectionFailed, HttpClient, Reply
from index.errors import RequestError
from index.types import Float64Array, Int64Array

LoopKind: TypeAlias = ArrivalKind | Literal["closed"]
OnReply: TypeAlias = Callable[[int, Reply], None]
"""Told every answer as it comes, with the place of its request; it must cost next to nothing."""


class Outcome(IntEnum):
    """What became of a request."""

    UNSENT = 0  # the run was stopped before its moment came
    ANSWERED = 1  # status 200
    SHED = 2  # 429 or 503: the server said at once that it is full
    TIMED_OUT = 3  # 504, or no answer within the client's patience
    FAILED = 4  # another status, or no readable answer


@dataclass(frozen=True, slots=True, eq=False)
class LoadRun:
    """What was planned and what came of it; times in seconds from the start of the run."""

    kind: LoopKind
    rate: float | None  # planned, requests a second; None in a closed loop
    in_flight: int | None  # requests kept under way in a closed loop
    planned: Float64Array  # [n]; in a closed loop the moment of sending
    sent: Float64Array  # [n], NaN where it was not
    ended: Float64Array  # [n] when it was answered, refused or given up; NaN where it was not sent
    outcome: Int64Array  # [n] of Outcome
    client_cpu: float  # seconds of processor time this process spent meanwhile
    connections: int  # most that were open
    stopped_early: bool  # no more than ``most_late`` was asked for, and more were

    def __len__(self) -> int:
        return len(self.planned)

    @property
    def latency(self) -> Float64Array:
        """[n] seconds from the planned moment to the answer; infinite without one, NaN where not sent."""
        answered = np.where(self.outcome == Outcome.ANSWERED, self.ended - self.planned, np.inf)
        return np.where(self.outcome == Outcome.UNSENT, np.nan, answered)

    @property
    def wall(self) -> float:
        """Seconds from the first planned moment to the last end."""
        return float(np.nanmax(self.ended)) if np.isfinite(self.ended).any() else 0.0

    def count(self, outcome: Outcome) -> int:
        """Requests that ended so."""
        return int((self.outcome == outcome).sum())


async def open_loop(
    client: HttpClient,
    bodies: Sequence[bytes],
    plan: Arrivals,
    *,
    timeout: float,
    late_after: float = np.inf,
    most_late: int | None = None,
    on_reply: OnReply | None = None,
) -> LoadRun:
    """Send ``bodies[i]`` at ``plan.at[i]``, however many are still under way.

    Args:
        client: where to.
        bodies: one for each planned moment.
        plan: when.
        timeout: seconds from the planned moment after which an answer is no longer waited for.
        late_after: seconds from the planned moment after which a request is late; refused and failed ones are.
        most_late: stop sending once more are late than this; None never stops.
        on_reply: told every answer.

    Raises:
        RequestError: not as many bodies as moments.
    """
    if len(bodies) != len(plan):
        raise RequestError(
            f"expected a body for each of {len(plan)} planned requests, got {len(bodies)} bodies"
        )
    book = _Book(len(plan), plan.at.copy(), late_after, on_reply)
    tasks: list[asyncio.Task[None]] = []
    stopped = False
    book.begin()
    for place, moment in enumerate(plan.at.tolist()):
        wait = moment - book.now()
        await asyncio.sleep(max(0.0, wait))  # also when late: answers must be read meanwhile
        if most_late is not None and book.late > most_late:
            stopped = True
            break
        tasks.append(asyncio.create_task(book.send(client, place, bodies[place], timeout)))
    await asyncio.gather(*tasks)
    return book.close(plan.kind, plan.rate, None, stopped)


async def closed_loop(
    client: HttpClient,
    bodies: Sequence[bytes],
    in_flight: int,
    *,
    timeout: float,
    on_reply: OnReply | None = None,
) -> LoadRun:
    """Send all bodies in order, ``in_flight`` at a time; ``on_reply`` is told every answer.

    Raises:
        RequestError: nothing to send, or none at a time.
    """
    if in_flight < 1 or not bodies:
        raise RequestError(f"expected requests and at least one at a time, got {len(bodies)} and {in_flight}")
    book = _Book(len(bodies), np.full(len(bodies), np.nan), np.inf, on_reply)
    places = iter(range(len(bodies)))

    async def one_client() -> None:
        for place in places:
            book.planned[place] = book.now()
            await book.send(client, place, bodies[place], timeout)

    book.begin()
    await asyncio.gather(*(one_client() for _ in range(in_flight)))
    return book.close("closed", None, in_flight, stopped_early=False)


class _Book:
    """Where requests are sent from and written down."""

    def __init__(
        self, count: int, planned: Float64Array, late_after: float, on_reply: OnReply | None
    ) -> None:
        self.planned = planned
        self._on_reply = on_reply
        self.late = 0
        self._late_after = late_after
        self._sent = np.full(count, np.nan)
        self._ended = np.full(count, np.nan)
        self._outcome = np.zeros(count, np.int64)
        self._connections = 0

    def begin(self) -> None:
        self._start = time.perf_counter()
        self._cpu = time.process_time()

    def now(self) -> float:
        return time.perf_counter() - self._start

    async def send(self, client: HttpClient, place: int, body: bytes, timeout: float) -> None:
        planned, self._sent[place] = float(self.planned[place]), self.now()
        try:
            async with asyncio.timeout(planned + timeout - self.now()):
                reply = await client.post(body)
            outcome = _outcome(reply.status)
            if self._on_reply is not None:
                self._on_reply(place, reply)
        except TimeoutError:
            outcome = Outcome.TIMED_OUT
        except ConnectionFailed:
            outcome = Outcome.FAILED
        self._ended[place], self._outcome[place] = self.now(), outcome
        self._connections = max(self._connections, client.connections)
        self.late += outcome != Outcome.ANSWERED or self._ended[place] - planned > self._late_after

    def close(
        self, kind: LoopKind, rate: float | None, in_flight: int | None, stopped_early: bool
    ) -> LoadRun:
        return LoadRun(
            kind=kind,
            rate=rate,
            in_flight=in_flight,
            planned=self.planned,
            sent=self._sent,
            ended=self._ended,
            outcome=self._outcome,
            client_cpu=time.process_time() - self._cpu,
            connections=self._connections,
            stopped_early=stopped_early,
        )


def _outcome(status: int) -> Outcome:
    if status == 200:
        return Outcome.ANSWERED
    if status in (429, 503):
        return Outcome.SHED
    return Outcome.TIMED_OUT if status == 504 else Outcome.FAILED
