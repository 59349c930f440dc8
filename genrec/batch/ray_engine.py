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
from index.ray_cluster import cluster_cpus, map_shards, ray_cluster


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
        with ray_cluster(self.address, "finished shards are kept: go on with --resume") as data:
            most = self.workers or cluster_cpus()
            rows = [{"shard": one} for one in shards]
            for row in map_shards(data, rows, _ShardActor, (plan, users), most):
                yield ShardAnswer(int(row["shard"]), bytes(row["parquet"]))


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
