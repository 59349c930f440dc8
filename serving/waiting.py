"""What the engine holds of a request, from its arrival to its answer."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from genrec.recommender import Recommendation
from genrec.search_trace import SearchTrace
from genrec.wishes import Wishes
from index.types import ItemId
from serving.live_bundle import LiveBundle


@dataclass(frozen=True, slots=True)
class Answer:
    """A recommendation, and which model made it in what time."""

    recommendation: Recommendation
    live: LiveBundle
    queue_ms: float  # waited
    search_ms: float  # searched, together with its batch mates
    batch: int  # requests searched together when it started


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A request that has come."""

    history: Sequence[ItemId]
    wishes: Wishes
    deadline: float | None  # time.monotonic()
    since: float
    answer: Future[Answer]
    trace: SearchTrace | None = None  # filled while the request is searched, apart from the others


@dataclass(slots=True, eq=False)
class Running:
    """A request that is being searched."""

    asked: Waiting
    live: LiveBundle
    started: float  # time.monotonic()
    batch: int = 1
