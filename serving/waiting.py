"""What the engine holds of a request, from its arrival to its answer; and how the answer gets to who waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from genrec.recommender import Recommendation
from genrec.search_trace import SearchTrace
from genrec.wishes import Wishes
from index.types import ItemId
from serving.errors import DeadlineExceeded
from serving.live_bundle import LiveBundle
from serving.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Answer:
    """A recommendation, and which model made it in what time."""

    recommendation: Recommendation
    live: LiveBundle
    queue_ms: float  # waited
    search_ms: float  # searched, together with its batch mates
    batch: int  # requests searched together when it started


Work: TypeAlias = Callable[[], Any]
"""What the engine's thread does in one go, with the models to itself: a turn of a conversation."""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of work, and in what time."""

    value: Any
    queue_ms: float
    work_ms: float


@dataclass(slots=True, eq=False)
class Waiting:
    """A request that has come."""

    history: Sequence[ItemId]
    wishes: Wishes
    deadline: float | None  # time.monotonic()
    since: float
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Answer | Done]  # belongs to the loop's thread alone
    trace: SearchTrace | None = None  # filled while the request is searched, apart from the others
    work: Work | None = None  # instead of a search
    is_unwanted: bool = False  # set by the loop's thread: nobody waits any more

    @property
    def is_given_up(self) -> bool:
        """Whether an answer would come too late, or to nobody."""
        return self.is_unwanted or (self.deadline is not None and time.monotonic() >= self.deadline)


@dataclass(slots=True, eq=False)
class Running:
    """A request that is being searched."""

    asked: Waiting
    live: LiveBundle
    started: float  # time.monotonic()
    batch: int = 1

    def took(self, metrics: Metrics) -> tuple[float, float]:
        """Milliseconds that it waited and was worked on, counted."""
        waited, worked = self.started - self.asked.since, time.monotonic() - self.started
        metrics.phase_seconds.labels("queue").observe(waited)
        metrics.phase_seconds.labels("search").observe(worked)
        return 1000 * waited, 1000 * worked


Outcomes: TypeAlias = list[tuple[Waiting, Answer | Done | Exception]]


def hand_over(outcomes: Outcomes) -> None:
    """Wake each loop once for all of its outcomes: a wake-up costs a system call and a change of threads."""
    by_loop: dict[asyncio.AbstractEventLoop, Outcomes] = {}
    for one, result in outcomes:
        by_loop.setdefault(one.loop, []).append((one, result))
    for loop, those in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_settle, those)


def give_up(entries: Sequence[Waiting]) -> None:
    """Their time is over: those without an answer are told so, and the engine drops them."""
    for one in entries:
        if not one.answer.done():
            one.is_unwanted = True
            one.answer.set_exception(
                DeadlineExceeded(
                    "expected an answer within timeout_ms, got none; ask for less or wait longer"
                )
            )


async def outcomes_of(entries: Sequence[Waiting], deadline: float | None, metrics: Metrics) -> list[Any]:
    """Wait for all of them: of each its answer (or what was done), or the error why there is none.

    Cancelling gives their places up.
    """
    timer = None
    if deadline is not None and entries:
        timer = entries[0].loop.call_later(max(0.0, deadline - time.monotonic()), give_up, entries)
    try:
        outcomes = [await _outcome(one.answer) for one in entries]
    except asyncio.CancelledError:
        gone = [one for one in entries if not one.answer.done() or one.answer.cancelled()]
        for one in gone:
            one.is_unwanted = True
        metrics.shed.labels("client_gone").inc(len(gone))
        raise
    finally:
        if timer is not None:
            timer.cancel()
    late = sum(isinstance(one, DeadlineExceeded) for one in outcomes)
    if late:
        metrics.shed.labels("deadline").inc(late)
    return outcomes


def raised(outcomes: list[Any]) -> list[Any]:
    """The outcomes where none is an error; else the first error is raised."""
    for one in outcomes:
        if isinstance(one, BaseException):
            raise one
    return outcomes


async def _outcome(answer: asyncio.Future[Answer | Done]) -> Answer | Done | BaseException:
    try:
        return await answer
    except Exception as error:
        return error


def _settle(outcomes: Outcomes) -> None:
    for one, result in outcomes:
        if one.answer.done():  # was given up meanwhile
            continue
        if isinstance(result, Exception):
            one.answer.set_exception(result)
        else:
            one.answer.set_result(result)
