"""Shards on this machine: one process a core, each with the bundle mapped into memory once for all.

A worker answers with one thread, whatever the number of workers, so that results do not depend on it. Workers end
when the process that started them is gone, however it went.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from genrec.batch.job import ShardAnswer
from genrec.batch.shard_answers import AnswerPlan, ShardAnswerer
from genrec.batch.users_file import Users, UsersFile
from index.errors import BatchError

AHEAD = 2  # shards handed out per worker, so that none waits for its next one


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Implements :class:`genrec.batch.job.Engine` with processes."""

    workers: int

    def run(self, plan: AnswerPlan, users: UsersFile, shards: list[int]) -> Iterator[ShardAnswer]:
        """See the contract. Shards are read here and only as many as are worked on."""
        waiting = iter(shards)
        with ProcessPoolExecutor(
            min(self.workers, len(shards)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start,
            initargs=(plan,),
        ) as pool:
            running: dict[Future[bytes], int] = {}
            try:
                while True:
                    while len(running) < AHEAD * self.workers:
                        shard = next(waiting, None)
                        if shard is None:
                            break
                        running[pool.submit(_answer, users.read(shard))] = shard
                    if not running:
                        return
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    for one in finished:
                        yield ShardAnswer(running.pop(one), one.result())
            except BrokenProcessPool as error:
                raise BatchError(
                    "expected workers to live, got one that was killed (out of memory?) or could not start; finished "
                    "shards are kept: go on with --resume, with fewer --workers or a smaller --batch-users"
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)


_answerer: ShardAnswerer | None = None  # of a worker process


def _start(plan: AnswerPlan) -> None:
    global _answerer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _answerer = ShardAnswerer(plan)
    if "torch" in sys.modules:  # a bundle without an export: the workers are the parallelism here, too
        sys.modules["torch"].set_num_threads(1)


def _answer(users: Users) -> bytes:
    assert _answerer is not None
    return _answerer.answer(users)


def _end_with_parent() -> None:
    """A pool's worker waits for work on a pipe it holds both ends of, so it would outlive a killed parent."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
