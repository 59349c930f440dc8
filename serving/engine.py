"""The engine: requests from many clients, searched together by one thread.

Asynchronous on the outside. Inside, everybody takes one step, then whoever waits joins, whoever has an answer
leaves, and those whose client has gone or whose time is over are dropped; the queue is bounded. A request sees
one version of model and catalog from its first step to its last. This module knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Lock, Thread
from typing import TypeAlias

from genrec.modes import AnyMode, QueryMode, TrieMode
from genrec.recommender import Recommendation
from genrec.search import Normalize, SearchRequest
from genrec.search_trace import SearchTrace
from genrec.wishes import Wishes
from index.errors import FilterError, GenrecError
from index.types import ItemId
from serving.batching import Joining, Lane
from serving.errors import NotReady, QueueFull, ReloadInProgress
from serving.live_bundle import LiveBundle
from serving.logs import logger
from serving.metrics import Metrics
from serving.pace import Room
from serving.waiting import Answer, Done, Outcomes, Running, Waiting, Work, hand_over, outcomes_of, raised

Loader = Callable[[bool], LiveBundle]
"""Loads the bundle again; the argument says whether to compare its hashes."""


_Key: TypeAlias = tuple[str, Normalize, SearchTrace | None]
"""What requests of one lane have in common; a request that is traced has a lane of its own."""

_Lanes: TypeAlias = dict[tuple[LiveBundle, _Key], Lane[Running]]


class Engine:
    """Answers requests with the live bundle.

    Args:
        live: what answers first.
        loader: how a reload gets the next one; None where there is nothing to reload.
        queue_size: requests that may wait.
        max_batch: requests searched together at most.
        usual_timeout: seconds that a request has where nothing else is known of it.
        hang_timeout: seconds after which one turn of all searches counts as hung.
        metrics: where it is counted.
    """

    def __init__(
        self,
        live: LiveBundle,
        loader: Loader | None = None,
        *,
        queue_size: int = 256,
        max_batch: int = 16,
        usual_timeout: float = 10.0,
        hang_timeout: float = 60.0,
        metrics: Metrics | None = None,
    ) -> None:
        self.metrics = metrics or Metrics()
        self._live = live
        self._loader = loader
        self._max_batch = max_batch
        self._usual_timeout = usual_timeout
        self._hang_timeout = hang_timeout
        self._turn_since: float | None = None  # time.monotonic(); None between two turns
        self._waiting: deque[Waiting] = deque()
        self._changed = Condition()
        self._reloading = Lock()
        self._closed = False
        self._outcomes: Outcomes = []  # of this turn; the engine's thread's
        self.room = Room(queue_size, max_batch)
        self._joining = Joining(max_batch)  # the engine's thread's
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

    @property
    def hangs(self) -> bool:
        """Whether the engine has been in one turn for longer than any turn takes: nobody gets an answer any more."""
        since = self._turn_since
        return since is not None and time.monotonic() - since > self._hang_timeout

    async def recommend(
        self,
        history: Sequence[ItemId],
        wishes: Wishes,
        deadline: float | None = None,
        trace: SearchTrace | None = None,
    ) -> Answer:
        """Answer one request. Cancelling the call gives its place up.

        Args:
            history: item ids, oldest first.
            wishes: what is asked for.
            deadline: ``time.monotonic()`` by which the answer must be there.
            trace: an empty one to be filled with what the search does; it is complete when the answer is there.

        Raises:
            FilterError, RequestError: wishes this catalog cannot fulfil.
            QueueFull: too many requests wait.
            DeadlineExceeded: the deadline passed.
            NotReady: the engine is closing.
        """
        entries = self._enqueue([(history, wishes)], deadline, trace)
        answer: Answer
        (answer,) = raised(await outcomes_of(entries, deadline, self.metrics))
        return answer

    async def recommend_many(
        self, histories: Sequence[Sequence[ItemId]], wishes: Sequence[Wishes], deadline: float | None = None
    ) -> list[Answer | BaseException]:
        """Answer many requests: an answer or an error for each, in order.

        Raises:
            QueueFull: not all of them find room; then none is taken.
            NotReady: the engine is closing.
        """
        entries = self._enqueue(list(zip(histories, wishes, strict=True)), deadline)
        return await outcomes_of(entries, deadline, self.metrics)

    async def do(self, work: Work, deadline: float | None = None) -> Done:
        """Do what is no search of one history. It waits in the same queue, and all others wait while it runs.

        Raises:
            GenrecError: what the work raises, and QueueFull, DeadlineExceeded, NotReady as :meth:`recommend`.
        """
        entries = self._enqueue([((), Wishes())], deadline, work=work)
        done: Done
        (done,) = raised(await outcomes_of(entries, deadline, self.metrics))
        return done

    async def reload(self, *, verify: bool = True) -> LiveBundle:
        """Load the bundle again beside the live one, warm it and swap; on failure the live one stays.

        Raises:
            ReloadInProgress: another reload runs.
            GenrecError: the bundle cannot be served.
        """
        live = await self.prepare(verify=verify)
        self.swap(live)
        return live

    async def prepare(self, *, verify: bool = True) -> LiveBundle:
        """The first half of a reload: load and warm what is on disk now. The live bundle goes on answering.

        Raises:
            ReloadInProgress, GenrecError: as :meth:`reload`.
        """
        if self._loader is None:
            raise NotReady("expected a server started with a bundle on disk, got one without; restart it")
        if not self._reloading.acquire(blocking=False):
            raise ReloadInProgress("expected no other reload to be running, got one; wait for it")
        try:
            return await asyncio.to_thread(self._loader, verify)
        except BaseException:
            self.metrics.reloads.labels("refused").inc()
            raise
        finally:
            self._reloading.release()

    def swap(self, live: LiveBundle) -> None:
        """The second half: requests that come from now on are answered by ``live``."""
        previous = self._live
        self._live = live
        self.metrics.model_changed(
            live.model, live.catalog, len(live.recommender.index.catalog), (previous.model, previous.catalog)
        )
        self.metrics.reloads.labels("done").inc()

    def close(self) -> None:
        """Refuse what waits and stop when what runs is answered."""
        with self._changed:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
            self._changed.notify_all()
        hand_over([(one, NotReady("the server is stopping; send the request again")) for one in waiting])
        self._thread.join(timeout=30)

    def is_full(self, coming: int = 0) -> bool:
        """Whether one request more, of which nothing is known, finds no place behind ``coming`` others."""
        return not self.room.has_place(len(self._waiting) + coming, self._usual_timeout)

    @property
    def retry_after(self) -> int:
        """Seconds until a place is likely."""
        return self.room.retry_after(len(self._waiting))

    def refusal(self) -> QueueFull | None:
        """The error for one request more, where there is no place for it; it counts as refused then."""
        return self._refused(1) if self.is_full() else None

    def _refused(self, requests: int) -> QueueFull:
        self.metrics.queue_full.inc(requests)
        return self.room.error(len(self._waiting))

    def _enqueue(
        self,
        requests: Sequence[tuple[Sequence[ItemId], Wishes]],
        deadline: float | None,
        trace: SearchTrace | None = None,
        work: Work | None = None,
    ) -> list[Waiting]:
        now, loop = time.monotonic(), asyncio.get_running_loop()
        entries = [
            Waiting(history, wishes, deadline, now, loop, loop.create_future(), trace, work)
            for history, wishes in requests
        ]
        with self._changed:
            if self._closed:
                raise NotReady("the server is stopping; send the request again")
            left = None if deadline is None else deadline - now
            if not self.room.has_place(len(self._waiting), left, len(entries)):
                raise self._refused(len(entries))
            self._waiting.extend(entries)
            self.metrics.queue_depth.set(len(self._waiting))
            self._changed.notify()
        return entries

    def _work(self) -> None:
        lanes: _Lanes = {}
        while True:
            room = self._max_batch - sum(len(lane) for lane in lanes.values())
            taken = self._take(room, wait=not lanes)
            if taken is None and not lanes:
                return
            self._turn_since = started = time.monotonic()
            self._admit(taken or [], lanes)
            if taken:
                self.metrics.prompts_read(self._live.prompt_caches)
            dropped = sum(self._step(lane) for lane in lanes.values())
            for key in [key for key, lane in lanes.items() if not len(lane)]:
                del lanes[key]
            answered, self._outcomes = self._outcomes, []
            hand_over(answered)
            self._turn_since = None
            self.room.pace.measured(time.monotonic() - started, dropped + len(answered))

    def _take(self, room: int, *, wait: bool) -> list[Waiting] | None:
        """Who of those that wait joins, where there is room for so many, the first come first.

        None where the engine is closing.
        """
        with self._changed:
            while wait and not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            taken = [self._waiting.popleft() for _ in range(self._joining.now(len(self._waiting), room))]
            self.metrics.queue_depth.set(len(self._waiting))
            return taken

    def _admit(self, taken: Sequence[Waiting], lanes: _Lanes) -> None:
        """Let requests join the lane of the live bundle, their mode and their normalisation.

        A search by queries has no steps that others could join: those that come together are answered together.
        """
        live = self._live  # one version for a request's whole life
        writing: list[Running] = []
        joining: dict[_Key, tuple[list[Running], list[SearchRequest]]] = {}
        for one in taken:
            if one.is_given_up:
                continue
            running = Running(one, live, time.monotonic())
            if one.work is not None:
                self._do(one.work, running)
                continue
            asked = self._asked(one, live)
            if asked is None:
                continue
            mode, request = asked
            if request is None:
                writing.append(running)
                continue
            if one.wishes.synchronize != "leaf" or one.wishes.diversity:  # no steps that others could join
                self._answer_together([running])
                continue
            key = (mode.spec.name, one.wishes.normalize or mode.defaults.normalize, one.trace)
            names, requests = joining.setdefault(key, ([], []))
            names.append(running)
            requests.append(request)
        if writing:
            self._answer_together(writing)
        for key, (names, requests) in joining.items():
            name, normalize, trace = key
            searched = live.recommender.modes[name]
            assert isinstance(searched, TrieMode)
            lane = lanes.setdefault((live, key), Lane(searched.decoder, searched.trie, normalize, trace))
            try:
                lane.join(names, requests)
            except Exception:  # one of them is to blame: each alone, so that it fails no other
                for running in names:
                    self._answer_together([running])
                continue
            for running in names:
                running.batch = len(lane)
            self.metrics.batch_size.observe(len(lane))

    def _step(self, lane: Lane[Running]) -> int:
        """Drop who is not waited for, take a step, answer who is done; how many were dropped."""
        dropped = len(lane.drop(lambda running: running.asked.is_given_up))
        try:
            done = lane.step()
        except Exception as error:
            logger.error("step_failed", exc_info=error)
            for running in lane.clear():
                self._answer_together([running])
            return dropped
        for running, result in done:
            asked = running.asked
            try:
                answer = running.live.recommender.recommendation(asked.history, asked.wishes, result)
            except (
                Exception
            ) as error:  # it fails alone: without this thread nobody would be answered any more
                self._fail(asked, error)
            else:
                self._deliver(running, answer)
        return dropped

    def _asked(self, one: Waiting, live: LiveBundle) -> tuple[AnyMode, SearchRequest | None] | None:
        """What answers a request and, on a trie, what to search for; None where the client was told that it cannot.

        Wishes may not fit the catalog, and a reload may have taken the mode away.
        """
        recommender = live.recommender
        try:
            mode = recommender.mode_of(one.wishes)
            if isinstance(mode, QueryMode):
                return mode, None
            return mode, recommender.requests([recommender.history_rows(one.history)], one.wishes)[0]
        except Exception as error:
            self._fail(one, error)
        return None

    def _answer_together(self, running: Sequence[Running]) -> None:
        """Search for requests in one go; where one of them is to blame, each alone, so that it fails no other."""
        asked = [one.asked for one in running]
        recommender = running[0].live.recommender
        try:
            answers = recommender.recommend_batch([a.history for a in asked], [a.wishes for a in asked])
        except Exception as error:
            if len(running) == 1:
                self._fail(asked[0], error)
            else:
                for one in running:
                    self._answer_together([one])
            return
        for one, answer in zip(running, answers, strict=True):
            one.batch = max(one.batch, len(running))
            self._deliver(one, answer)

    def _do(self, work: Work, running: Running) -> None:
        try:
            value = work()
        except Exception as error:
            self._fail(running.asked, error)
        else:
            self._outcomes.append((running.asked, Done(value, *running.took(self.metrics))))

    def _deliver(self, running: Running, recommendation: Recommendation) -> None:
        waited, searched = running.took(self.metrics)
        self._outcomes.append(
            (running.asked, Answer(recommendation, running.live, waited, searched, running.batch))
        )

    def _fail(self, one: Waiting, error: Exception) -> None:
        if isinstance(error, RecursionError):
            error = FilterError("expected a filter nested at most 32 deep, got a deeper one")
        if not isinstance(error, GenrecError):
            logger.error("search_failed", exc_info=error)
        self._outcomes.append((one, error))
