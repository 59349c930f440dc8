"""Shards on a Ray cluster, by Ray Data: what was lost with a node is answered again on another.

Workers read the input and the bundle themselves, so both must lie at the same path on every node (a shared file
system, or an image that carries them). Answers come back to the process that started the job, which alone writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from genrec.batch.job import ShardAnswer
from genrec.batch.shard_answers import AnswerPlan, ShardAnswerer
from genrec.batch.users_file import UsersFile
from index.errors import BatchError, require


@dataclass(frozen=True, slots=True)
class RayEngine:
    """Implements :class:`genrec.batch.job.Engine` with Ray Data.

    Raises:
        MissingDependencyError: Ray is not installed.
    """

    workers: int | None = None
    """Actors that hold a bundle each; None takes as many as the cluster has CPUs."""
    address: str | None = None
    """Of a running cluster, ``auto`` or ``ray://…``; None starts one on this machine."""

    def run(self, plan: AnswerPlan, users: UsersFile, shards: list[int]) -> Iterator[ShardAnswer]:
        """See the contract."""
        ray = require("ray", extra="ray", purpose="Running a batch on a cluster")
        data = require("ray.data", extra="ray", purpose="Running a batch on a cluster")
        started = not ray.is_initialized()
        if started:
            ray.init(address=self.address, include_dashboard=False, logging_level="warning")
        context = data.DataContext.get_current()
        bars, context.enable_progress_bars = context.enable_progress_bars, False  # the command has its own
        try:
            most = self.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
            most = min(most, len(shards))
            answers = data.from_items(
                [{"shard": one} for one in shards], override_num_blocks=len(shards)
            ).map_batches(
                _ShardActor,
                fn_constructor_args=(plan, users),
                batch_size=1,
                batch_format="numpy",
                num_cpus=1,
                # From one up: where fewer CPUs are free (or left) than wanted, the job goes on with those.
                compute=data.ActorPoolStrategy(min_size=1, max_size=most, max_tasks_in_flight_per_actor=2),
            )
            for row in answers.iter_rows():
                yield ShardAnswer(int(row["shard"]), bytes(row["parquet"]))
        except ray.exceptions.RayError as error:
            raise BatchError(
                f"expected the cluster to answer every shard, got {type(error).__name__}: "
                f"{str(error).strip().splitlines()[-1] if str(error).strip() else 'no message'}; finished shards are "
                f"kept: go on with --resume"
            ) from error
        finally:
            context.enable_progress_bars = bars
            if started:
                ray.shutdown()


class _ShardActor:
    """A bundle, opened once on its node."""

    def __init__(self, plan: AnswerPlan, users: UsersFile) -> None:
        self._answerer, self._users = ShardAnswerer(plan), users

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        shards = [int(one) for one in batch["shard"]]
        return {
            "shard": shards,
            "parquet": [self._answerer.answer(self._users.read(one)) for one in shards],
        }
