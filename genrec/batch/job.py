"""A batch job: recommendations for every user of a file, each exactly once, however often it is killed.

The input is cut into fixed shards. Each shard's answer is a file of its own beside the output, written at once and
named by the shard; a job that is killed loses the shards it was at, and ``resume`` goes on with those that have no
file. When all are there they are joined into the output in one ``os.replace``::

    recs.parquet.parts/       while the job runs
      job.json                what is being asked of what: bundle, input, wishes, shard size
      part-000000.parquet …   finished shards
    recs.parquet              when it is done

Engines (:mod:`genrec.batch.local_engine`, :mod:`genrec.batch.ray_engine`) only say where shards are answered. Shards
and the batches inside them are the same for both, so the output is the same to the last bit on machines of one kind.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from genrec.batch.shard_answers import SCHEMA, AnswerPlan, open_recommender
from genrec.batch.users_file import UsersFile
from genrec.bundle import load_bundle
from genrec.prior import Prior
from genrec.wishes import Wishes
from index.artifact import replace_file
from index.errors import BatchError

JOB = "job.json"
SHARD_USERS = 4096  # about ten seconds of one core with a small model: what a kill can cost
BATCH_USERS = 256  # searched together; more gains nothing on a CPU and costs memory
ROW_GROUP = 65_536


@dataclass(frozen=True, slots=True)
class ShardAnswer:
    """One finished shard."""

    shard: int
    parquet: bytes


class Engine(Protocol):
    """Where shards are answered."""

    def run(self, plan: AnswerPlan, users: UsersFile, shards: list[int]) -> Iterable[ShardAnswer]:
        """Answer the shards named, in any order; one that comes twice counts once.

        Raises:
            BatchError: a worker is gone for good; what was finished stays.
        """


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """What a progress callback sees after every shard."""

    users: int  # of the whole file
    answered: int  # users whose shard is finished, those of earlier runs included
    resumed: int  # users answered by earlier runs
    seconds: float  # of this run


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What a finished job left."""

    path: Path
    users: int
    resumed: int
    seconds: float


def run_batch(
    bundle: Path,
    users: UsersFile,
    out: Path,
    wishes: Wishes,
    engine: Engine,
    *,
    batch_users: int = BATCH_USERS,
    resume: bool = False,
    restart: bool = False,
    overwrite: bool = False,
    progress: Callable[[BatchProgress], None] | None = None,
) -> BatchResult:
    """Answer every user of a file.

    Args:
        bundle: what ``genrec train`` wrote.
        users: an opened file, cut into shards.
        out: the Parquet file to write, columns as in :data:`genrec.batch.shard_answers.SCHEMA`.
        wishes: asked for every user alike.
        engine: where shards are answered.
        batch_users: users searched together.
        resume: go on with a job that was killed: same bundle, input and wishes.
        restart: throw away what such a job has done.
        overwrite: an old output may be replaced.
        progress: called at the start and after every shard.

    Raises:
        BatchError: there is unfinished work and neither ``resume`` nor ``restart`` was asked for, the work is of
            another job, ``out`` exists, or a worker was lost.
        IndexFormatError, RequestError, FilterError: bundle and wishes do not go together.
    """
    started = time.monotonic()
    if isinstance(wishes.prior, Prior):
        raise BatchError(
            "expected wishes without a prior of your own, got one: what a resumed job was begun with is kept as text"
        )
    if out.exists() and not overwrite:
        raise BatchError(f"expected no file at {out}, found one; pass --overwrite, or another --out")
    plan = AnswerPlan(bundle, load_bundle(bundle).artifact.content_hash, wishes, batch_users)
    facts = {
        "bundle": plan.content_hash,
        "input": users.sha256,
        "reading": users.reading,
        "users": users.users,
        "shards": users.shards,
        "batch_users": batch_users,
        "wishes": {name: one for name, one in asdict(wishes).items() if one not in (None, (), [], {})},
    }
    parts = out.with_name(f"{out.name}.parts")
    _begin(parts, facts, resume=resume, restart=restart)
    open_recommender(plan).recommend_batch(
        [[]], wishes
    )  # a wish that cannot be met is refused before any work
    done = {shard for shard in range(users.shards) if _part(parts, shard).is_file()}
    answered = sum(_rows(_part(parts, shard)) for shard in sorted(done))
    resumed = answered
    tell = progress or (lambda at: None)
    tell(BatchProgress(users.users, answered, resumed, time.monotonic() - started))
    todo = [shard for shard in range(users.shards) if shard not in done]
    for one in engine.run(plan, users, todo) if todo else ():
        if one.shard in done:  # a cluster may answer a shard again after it lost a node
            continue
        replace_file(_part(parts, one.shard), one.parquet)
        done.add(one.shard)
        answered += _rows(_part(parts, one.shard))
        tell(BatchProgress(users.users, answered, resumed, time.monotonic() - started))
    if len(done) < users.shards or answered != users.users:
        raise BatchError(
            f"expected answers for {users.users:,} users, got {answered:,} from {len(done)} of {users.shards} "
            f"shards; the same command with --resume goes on"
        )
    _join(parts, users.shards, out)
    return BatchResult(out, users.users, resumed, time.monotonic() - started)


def _begin(parts: Path, facts: dict[str, Any], *, resume: bool, restart: bool) -> None:
    """Make the directory of parts, or find it as a job of the same kind left it."""
    facts = json.loads(json.dumps(facts))  # as it will be read back
    job = parts / JOB
    if parts.exists() and restart:
        shutil.rmtree(parts)
    if parts.exists() and job.is_file():
        if not resume:
            raise BatchError(
                f"expected no unfinished job, found one in {parts}; the same command with --resume goes on with it, "
                f"with --restart begins anew"
            )
        before = json.loads(job.read_text("utf-8"))
        other = sorted(name for name in {*facts, *before} if facts.get(name) != before.get(name))
        if other:
            raise BatchError(
                f"expected the job that was begun in {parts}, got another {', '.join(other)}; "
                f"resume it with what it was begun with, or begin anew with --restart"
            )
        return
    parts.mkdir(parents=True, exist_ok=True)
    if any(
        not one.name.startswith(f".{JOB}.") for one in parts.iterdir()
    ):  # half a job.json of a killed start
        raise BatchError(
            f"expected {parts} to be a job's own directory, found other files in it; move them away"
        )
    replace_file(job, (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode())


def _part(parts: Path, shard: int) -> Path:
    return parts / f"part-{shard:06d}.parquet"


def _rows(part: Path) -> int:
    return int(pl.scan_parquet(part).select(pl.len()).collect().item())


def _join(parts: Path, shards: int, out: Path) -> None:
    """All parts in order as one file, in one moment; memory does not grow with their number."""
    beside = parts / "joined.parquet"
    files: Iterator[Path] = (_part(parts, shard) for shard in range(shards))
    table = pl.scan_parquet(list(files), schema=SCHEMA)
    table.sink_parquet(
        beside, compression="zstd", row_group_size=ROW_GROUP, maintain_order=True, sync_on_close="all"
    )
    beside.replace(out)
    shutil.rmtree(parts)
