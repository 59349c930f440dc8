"""The engine: requests from many clients, answered in batches by one thread.

Asynchronous on the outside, one search at a time inside. The queue is bounded, a request whose client has gone
or whose time is over is dropped before it starts, and the batch sees one version of model and catalog. This
module knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Condition, Lock, Thread

from genrec.recommender import Recommendation
from genrec.wishes import Wishes
from index.errors import FilterError, GenrecError
from index.types import ItemId
from serving.errors import DeadlineExceeded, NotReady, QueueFull, ReloadInProgress
from serving.live_bundle import LiveBundle
from serving.logs import logger
from serving.metrics import Metrics

Loader = Callable[[bool], LiveBundle]
"""Loads the bundle again; the argument says whether to compare its hashes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A recommendation, and which model made it in what time."""

    recommendation: Recommendation
    live: LiveBundle
    queue_ms: float  # waited
    search_ms: float  # searched, together with its batch mates
    batch: int  # requests searched together


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    history: Sequence[ItemId]
    wishes: Wishes
    deadline: float | None  # time.monotonic()
    since: float
    answer: Future[Answer]


class Engine:
    """Answers requests with the live bundle.

    Args:
        live: what answers first.
        loader: how a reload gets the next one; None where there is nothing to reload.
        queue_size: requests that may wait.
        max_batch: requests searched together.
        metrics: where it is counted.
    """

    def __init__(
        self,
        live: LiveBundle,
        loader: Loader | None = None,
        *,
        queue_size: int = 256,
        max_batch: int = 16,
        metrics: Metrics | None = None,
    ) -> None:
        self.metrics = metrics or Metrics()
        self._live = live
        self._loader = loader
        self._queue_size = queue_size
        self._max_batch = max_batch
        self._waiting: deque[_Waiting] = deque()
        self._changed = Condition()
        self._reloading = Lock()
        self._closed = False
        self._seconds_per_request = 0.01  # a running mean, for Retry-After
        self.metrics.model_changed(live.model, live.catalog, len(live.recommender.index.catalog))
        self._thread = Thread(target=self._work, name="genrec-engine", daemon=True)
        self._thread.start()

    @property
    def live(self) -> LiveBundle:
        """What answers now."""
        return self._live

    @property
    def ready(self) -> bool:
        """Whether a request would be answered."""
        return not self._closed and self._thread.is_alive()

    async def recommend(
        self, history: Sequence[ItemId], wishes: Wishes, deadline: float | None = None
    ) -> Answer:
        """Answer one request. Cancelling the call gives its place up.

        Args:
            history: item ids, oldest first.
            wishes: what is asked for.
            deadline: ``time.monotonic()`` by which the answer must be there.

        Raises:
            FilterError, RequestError: wishes this catalog cannot fulfil.
            QueueFull: too many requests wait.
            DeadlineExceeded: the deadline passed.
            NotReady: the engine is closing.
        """
        (answer,) = await self.recommend_many([history], [wishes], deadline)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def recommend_many(
        self, histories: Sequence[Sequence[ItemId]], wishes: Sequence[Wishes], deadline: float | None = None
    ) -> list[Answer | BaseException]:
        """Answer many requests: an answer or an error for each, in order.

        Raises:
            QueueFull: not all of them find room; then none is taken.
            NotReady: the engine is closing.
        """
        futures = self._enqueue(list(zip(histories, wishes, strict=True)), deadline)
        pending = [asyncio.wrap_future(one) for one in futures]
        try:
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            if pending:
                await asyncio.wait(pending, timeout=timeout)
            outcomes = [_outcome(one) for one in pending]
        finally:
            for one in pending:  # gives up the places that are still held; the others are done
                one.cancel()
        late = sum(isinstance(one, DeadlineExceeded) for one in outcomes)
        if late:
            self.metrics.shed.labels("deadline").inc(late)
        return outcomes

    async def reload(self, *, verify: bool = True) -> LiveBundle:
        """Load the bundle again beside the live one, warm it and swap; on failure the live one stays.

        Raises:
            ReloadInProgress: another reload runs.
            GenrecError: the bundle cannot be served.
        """
        if self._loader is None:
            raise NotReady("expected a server started with a bundle on disk, got one without; restart it")
        if not self._reloading.acquire(blocking=False):
            raise ReloadInProgress("expected no other reload to be running, got one; wait for it")
        try:
            live = await asyncio.to_thread(self._loader, verify)
        except BaseException:
            self.metrics.reloads.labels("refused").inc()
            raise
        finally:
            self._reloading.release()
        previous = self._live
        self._live = live
        self.metrics.model_changed(
            live.model, live.catalog, len(live.recommender.index.catalog), (previous.model, previous.catalog)
        )
        self.metrics.reloads.labels("done").inc()
        return live

    def close(self) -> None:
        """Refuse what waits and stop after the batch that runs."""
        with self._changed:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
            self._changed.notify_all()
        for one in waiting:
            if one.answer.set_running_or_notify_cancel():
                one.answer.set_exception(NotReady("the server is stopping; send the request again"))
        self._thread.join(timeout=30)

    def _enqueue(
        self, requests: Sequence[tuple[Sequence[ItemId], Wishes]], deadline: float | None
    ) -> list[Future[Answer]]:
        now = time.monotonic()
        entries = [_Waiting(history, wishes, deadline, now, Future()) for history, wishes in requests]
        with self._changed:
            if self._closed:
                raise NotReady("the server is stopping; send the request again")
            if len(self._waiting) + len(entries) > self._queue_size:
                self.metrics.shed.labels("queue_full").inc(len(entries))
                seconds = math.ceil(len(self._waiting) * self._seconds_per_request)
                raise QueueFull(
                    f"expected a place among {self._queue_size} waiting requests, got none; try again later",
                    retry_after=max(1, min(60, seconds)),
                )
            self._waiting.extend(entries)
            self.metrics.queue_depth.set(len(self._waiting))
            self._changed.notify()
        return [one.answer for one in entries]

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                taken = [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]
                self.metrics.queue_depth.set(len(self._waiting))
            live = self._live  # one version for the whole batch
            batch = [one for one in taken if self._is_wanted(one) and self._can_be_asked(one, live)]
            if batch:
                self._answer(batch, live)

    def _is_wanted(self, one: _Waiting) -> bool:
        if not one.answer.set_running_or_notify_cancel():
            self.metrics.shed.labels("client_gone").inc()
            return False
        if one.deadline is not None and time.monotonic() >= one.deadline:
            one.answer.set_exception(_too_late())
            return False
        return True

    def _can_be_asked(self, one: _Waiting, live: LiveBundle) -> bool:
        """Whether the wishes fit the catalog: found out for each alone, so that none fails its batch mates."""
        recommender = live.recommender
        try:
            recommender.requests([recommender.history_rows(one.history)], one.wishes)
        except RecursionError:
            one.answer.set_exception(
                FilterError("expected a filter nested at most 32 deep, got a deeper one")
            )
        except Exception as error:
            _fail(one, error)
        else:
            return True
        return False

    def _answer(self, batch: list[_Waiting], live: LiveBundle) -> None:
        start = time.monotonic()
        try:
            recommendations = live.recommender.recommend_batch(
                [one.history for one in batch], [one.wishes for one in batch]
            )
        except Exception as error:
            if len(batch) == 1:
                _fail(batch[0], error)
                return
            for one in batch:
                self._answer([one], live)
            return
        end = time.monotonic()
        self._seconds_per_request += 0.1 * ((end - start) / len(batch) - self._seconds_per_request)
        self.metrics.batch_size.observe(len(batch))
        for one, recommendation in zip(batch, recommendations, strict=True):
            self.metrics.phase_seconds.labels("queue").observe(start - one.since)
            self.metrics.phase_seconds.labels("search").observe(end - start)
            one.answer.set_result(
                Answer(recommendation, live, 1000 * (start - one.since), 1000 * (end - start), len(batch))
            )


def _fail(one: _Waiting, error: Exception) -> None:
    if not isinstance(error, GenrecError):
        logger.error("search_failed", exc_info=error)
    one.answer.set_exception(error)


def _outcome(one: asyncio.Future[Answer]) -> Answer | BaseException:
    if not one.done():
        return _too_late()
    error = one.exception()
    return one.result() if error is None else error


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "expected an answer within the request's timeout_ms, got none; ask for less or wait longer"
    )
