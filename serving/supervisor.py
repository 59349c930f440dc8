"""The supervisor: starts workers on one socket, starts those again that die or hang, and lets all reload together.

It holds no model and answers no client. A reload has two halves. First every worker, one after the other, loads and
warms what is on disk while the others have the cores; only when all have done so do they swap, within a moment of
each other. Where one cannot, none swaps.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.multiprocess import mark_process_dead

from serving.errors import WorkersFailed
from serving.logs import logger
from serving.settings import Settings
from serving.worker_link import Link, Message

METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
MOST_FAILURES = 5  # starts in a row of one worker, while no other answers, before the service gives up
STEADY_S = 10.0  # a worker that answered for this long has not failed at once
FIRST_DELAY_S = 0.5  # before the second start in a row; doubled for each further one
LONGEST_DELAY_S = 30.0
STOP_S = 40.0  # what a worker has to end in; it gives its own requests 30 s


def supervise(settings: Settings, listener: socket.socket) -> None:
    """Keep ``settings.workers`` workers serving until told to stop (SIGTERM, SIGINT). SIGHUP reloads them all.

    Args:
        settings: the server's, ``bundle`` included.
        listener: bound; the workers begin to listen on it once one of them can answer.

    Raises:
        WorkersFailed: no worker can serve the bundle, or all die at once again and again.
    """
    with tempfile.TemporaryDirectory(prefix="genrec-metrics-") as metrics:
        asyncio.run(Supervisor(settings, listener, Path(metrics)).run())


@dataclass(eq=False)
class _Worker:
    """One process."""

    process: asyncio.subprocess.Process
    link: Link
    model: str = ""  # that answers; none until it does
    refusal: str = ""  # why it will never
    asked: asyncio.Future[Message | None] | None = None
    is_gone: bool = False
    heard: float = field(default_factory=time.monotonic)  # its last sign of life

    def ask(self, message: Message) -> asyncio.Future[Message | None]:
        """What it says once it has done so; None where it dies first."""
        self.asked = asyncio.get_running_loop().create_future()
        self.link.send(message)
        if self.is_gone:
            self.asked.set_result(None)
        return self.asked

    def answer(self, message: Message | None) -> None:
        """Hand over what it said, or that it has died."""
        if self.asked is not None and not self.asked.done():
            self.asked.set_result(message)


class Supervisor:
    """See :func:`supervise`.

    Args:
        settings: the server's.
        listener: bound; the workers inherit it.
        metrics: empty directory, where the workers keep their metrics.
    """

    def __init__(self, settings: Settings, listener: socket.socket, metrics: Path) -> None:
        self._settings = settings
        self._listener = listener
        self._metrics = metrics
        self._workers: set[_Worker] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._has_served = self._reloading = False
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Supervise until told to stop.

        Raises:
            WorkersFailed: see :func:`supervise`.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload_logged()))
        try:
            async with asyncio.TaskGroup() as keepers:
                for _ in range(self._settings.workers):
                    keepers.create_task(self._keep())
                watch = keepers.create_task(self._watch())
                await self._stopping.wait()
                self._listener.close()  # the workers have theirs: with the last of them nobody gets through
                await self._stop()
                watch.cancel()
        except* WorkersFailed as failures:
            raise failures.exceptions[0] from None
        finally:
            await self._stop()

    async def _keep(self) -> None:
        """One worker, and another whenever it dies."""
        failures = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            worker = await self._start()
            code = await self._attend(worker)
            if self._stopping.is_set():
                return
            steady = worker.model and time.monotonic() - started >= STEADY_S
            failures = 1 if steady else failures + 1
            self._give_up_if_hopeless(worker, failures, code)
            delay = 0.0 if failures == 1 else min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (failures - 2))
            facts = {"worker": worker.process.pid, "code": code, "starts_again_in_s": delay}
            reason = {"reason": worker.refusal} if worker.refusal else {}
            logger.error("worker_died", extra={"facts": facts | reason})
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    def _give_up_if_hopeless(self, worker: _Worker, failures: int, code: int) -> None:
        if any(one.model for one in self._workers):
            return  # somebody answers: go on trying beside it
        if worker.refusal and not self._has_served:
            raise WorkersFailed(worker.refusal)
        if failures >= MOST_FAILURES:
            raise WorkersFailed(
                f"expected a worker to come up, got {failures} that ended with code {code} one after the other"
                f"{': ' + worker.refusal if worker.refusal else ''}; see the log, or start with --workers 1"
            )

    async def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        threads = max(1, (os.cpu_count() or 1) // self._settings.workers)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                # -P: what lies in the working directory is not imported.
                *(sys.executable, "-P", "-m", "serving.worker"),
                *(str(self._listener.fileno()), str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(self._listener.fileno(), theirs.fileno()),
                env={"OMP_NUM_THREADS": str(threads), **os.environ, METRICS_DIRECTORY: str(self._metrics)},
                process_group=0,  # Ctrl-C reaches the supervisor alone, which stops them in order
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        writer.write(self._settings.model_dump_json().encode() + b"\n")
        worker = _Worker(process, Link(reader, writer))
        self._workers.add(worker)
        if self._stopping.is_set():
            self._terminate(worker)
        return worker

    async def _attend(self, worker: _Worker) -> int:
        """Listen to a worker until it has ended; its exit code."""
        try:
            while (message := await worker.link.receive()) is not None:
                worker.heard = time.monotonic()
                if message.kind == "ready":
                    self._on_ready(worker, message)
                elif message.kind == "failed":
                    worker.refusal = message.text
                elif message.kind == "alive":
                    pass  # has been heard
                elif message.kind == "wish":
                    self._spawn(self._grant(worker, message))
                else:
                    worker.answer(message)
            return await worker.process.wait()
        finally:
            self._workers.discard(worker)
            self._terminate(worker)  # where this ends before the worker does: the service has given up
            worker.is_gone = True
            worker.answer(None)
            worker.link.close()
            mark_process_dead(worker.process.pid, str(self._metrics))  # type: ignore[no-untyped-call]

    async def _watch(self) -> None:
        """End workers that serve and give no sign of life any more; they are started again like any that died."""
        while True:
            looked = time.monotonic()
            await asyncio.sleep(1)
            now = time.monotonic()
            overslept = now - looked - 1  # the machine slept, or we did: no silence of theirs
            for worker in self._workers:
                worker.heard += overslept
                if worker.model and now - worker.heard > self._settings.hang_timeout_s:
                    facts = {"worker": worker.process.pid, "silent_s": round(now - worker.heard, 1)}
                    logger.error("worker_hung", extra={"facts": facts})
                    worker.model = ""  # said once
                    worker.process.kill()

    def _on_ready(self, worker: _Worker, message: Message) -> None:
        worker.model = message.model
        host, port = self._listener.getsockname()[:2]
        facts = {"model": message.model, "catalog": message.catalog, "host": host, "port": port}
        if not self._has_served:
            self._has_served = True
            logger.info("serving", extra={"facts": {**facts, "workers": self._settings.workers}})
        logger.info("worker_ready", extra={"facts": {**facts, "worker": worker.process.pid}})
        self._agree()

    def _agree(self) -> None:
        """A worker that starts loads what is on disk, which may be newer than what the others have."""
        if len({one.model for one in self._workers if one.model}) > 1 and not self._reloading:
            self._spawn(self._reload_logged())

    async def _grant(self, worker: _Worker, wish: Message) -> None:
        outcome = await self._reload(wish.verify)
        worker.link.send(Message("outcome", wish.id, code=outcome.code, text=outcome.text))

    async def _reload_logged(self) -> None:
        """A reload that no client waits for: what came of it stands in the log."""
        outcome = await self._reload(verify=True)
        if outcome.code:
            facts = {"code": outcome.code, "reason": outcome.text}
            logger.error("reload_refused", extra={"facts": facts})
        else:
            logger.info("reloaded", extra={"facts": {"model": outcome.model}})

    async def _reload(self, verify: bool) -> Message:
        if self._reloading:
            return _refused(
                "reload_in_progress", "expected no other reload to be running, got one; wait for it"
            )
        self._reloading = True
        try:
            outcome = await self._prepare_and_swap(verify)
        finally:
            self._reloading = False
        if not outcome.code:
            self._agree()
        return outcome

    async def _prepare_and_swap(self, verify: bool) -> Message:
        prepared: dict[_Worker, Message] = {}
        refused = None
        for worker in [one for one in self._workers if one.model]:
            # Their files are the same: hashes need comparing once.
            answer = await worker.ask(Message("prepare", verify=verify and not prepared))
            if answer is None:
                continue  # has died; its successor loads what is on disk anyway
            if answer.code:
                refused = _refused(answer.code, answer.text)
                break
            prepared[worker] = answer
        if refused is None and len({one.model for one in prepared.values()}) > 1:
            refused = _refused(
                "bundle_refused", "the bundle was saved anew while it was loaded; reload again"
            )
        if refused is None and not prepared:
            refused = _refused("not_ready", "expected a worker that answers, got none; try again later")
        if refused is not None:
            for worker in prepared:
                worker.link.send(Message("forget"))
            return refused
        for worker, message, swapped in [
            (worker, message, worker.ask(Message("swap"))) for worker, message in prepared.items()
        ]:
            if await swapped is not None:
                worker.model = message.model
        return next(iter(prepared.values()))

    async def _stop(self) -> None:
        """Let all workers end what they do, and end those that do not come to an end."""
        self._stopping.set()
        for worker in self._workers:
            self._terminate(worker)
        waits = [asyncio.ensure_future(one.process.wait()) for one in self._workers]
        if waits:
            await asyncio.wait(waits, timeout=STOP_S)
        for worker in self._workers:
            if worker.process.returncode is None:
                logger.error("worker_killed", extra={"facts": {"worker": worker.process.pid}})
                worker.process.kill()
        for task in self._tasks:
            task.cancel()

    def _terminate(self, worker: _Worker) -> None:
        if worker.process.returncode is None:
            worker.process.terminate()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)  # a task that nobody holds may be collected before it ends
        task.add_done_callback(self._tasks.discard)


def _refused(code: str, text: str) -> Message:
    return Message("outcome", code=code, text=text)
