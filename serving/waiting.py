"""What the engine holds of a request, from its arrival to its answer; and how the answer gets to who waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from genrec.recommender import Recommendation
from genrec.search_trace import SearchTrace
from genrec.wishes import Wishes
from index.types import ItemId
from serving.errors import DeadlineExceeded
from serving.live_bundle import LiveBundle


@dataclass(frozen=True, slots=True)
class Answer:
    """A recommendation, and which model made it in what time."""

    recommendation: Recommendation
    live: LiveBundle
    queue_ms: float  # waited
    search_ms: float  # searched, together with its batch mates
    batch: int  # requests searched together when it started


@dataclass(slots=True, eq=False)
class Waiting:
    """A request that has come."""

    history: Sequence[ItemId]
    wishes: Wishes
    deadline: float | None  # time.monotonic()
    since: float
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Answer]  # belongs to the loop's thread alone
    trace: SearchTrace | None = None  # filled while the request is searched, apart from the others
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


Outcomes: TypeAlias = list[tuple[Waiting, Answer | Exception]]


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


async def outcome(answer: asyncio.Future[Answer]) -> Answer | BaseException:
    """An answer, or why there is none."""
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
