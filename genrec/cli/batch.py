"""``genrec batch``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from genrec.batch.job import BATCH_USERS, SHARD_USERS, BatchProgress, Engine, run_batch
from genrec.batch.local_engine import LocalEngine
from genrec.batch.ray_engine import RayEngine
from genrec.batch.users_file import open_users
from genrec.cli.options import JsonFlag, QuietFlag, RayAddress, Verify
from genrec.cli.output import answers, print_json, stages
from genrec.cli.recommend import BundlePath
from genrec.cli.wish_options import MaxPer, PriorWish, ids_of, limits_of, prior_of
from genrec.search import Normalize
from genrec.tasks import Mode
from genrec.wishes import Wishes
from index.artifact import open_artifact
from index.counted import counted
from index.errors import RequestError


def batch(
    bundle: BundlePath,
    input: Annotated[
        Path,
        typer.Option(
            help="Users, each once: Parquet (a file, or a directory of parts) or JSON lines with a user and a list "
            "of item ids, oldest first; or a sequence file (user item item …).",
            metavar="FILE",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Parquet file to write.", metavar="FILE")],
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Processes of this machine, or a Ray cluster.")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes or Ray actors; one a CPU where not given.")
    ] = None,
    ray_address: RayAddress = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Items per user.")] = 10,
    beam: Annotated[
        int | None, typer.Option(min=1, help="Prefixes kept per step; the bundle's default where not given.")
    ] = None,
    normalize: Annotated[
        Normalize | None, typer.Option(help="Score over the catalog or the vocabulary; the bundle's default.")
    ] = None,
    mode: Annotated[
        Mode | None, typer.Option(help="What the model writes; the bundle's first mode where not given.")
    ] = None,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Allow items of the history.")] = False,
    where: Annotated[
        str | None, typer.Option(help="Only items for which this holds, such as: year >= 1990.")
    ] = None,
    exclude: Annotated[
        str, typer.Option(help="Item ids never to return, separated by commas.", metavar="IDS")
    ] = "",
    max_per: MaxPer = None,
    prior: PriorWish = None,
    user_column: Annotated[str | None, typer.Option(help="Column of the user.", metavar="NAME")] = None,
    history_column: Annotated[
        str | None, typer.Option(help="Column of the list of item ids.", metavar="NAME")
    ] = None,
    shard_users: Annotated[
        int, typer.Option(min=1, help="Users per shard: what a kill can cost, and what a worker holds.")
    ] = SHARD_USERS,
    batch_users: Annotated[int, typer.Option(min=1, help="Users searched together.")] = BATCH_USERS,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a killed job left off.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw a killed job's work away.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an old output.")] = False,
    verify: Verify = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Recommend for every user of a file: millions of them, resumable, each exactly once.

    The output has one row a user, in the order of the input: user_id, item_ids, scores, certified, unknown (ids of
    the history that are not in the catalog). Local and Ray write the same file, bit for bit.
    """
    started = time.monotonic()
    if resume and restart:
        raise RequestError("expected --resume or --restart, got both; give one")
    if ray_address is not None and engine != "ray":
        raise RequestError(f"expected --engine ray with --ray-address, got --engine {engine}; add it")
    open_artifact(bundle, kind="bundle", verify=verify)
    with stages(quiet) as progress:
        users = open_users(
            input,
            shard_users,
            user=user_column,
            history=history_column,
            progress=lambda seen: progress("looking at the input", seen, None),
        )
        wishes = Wishes(
            k=k,
            mode=mode,
            beam=beam,
            normalize=normalize,
            exclude_seen=not include_seen,
            where=where,
            exclude=ids_of(exclude),
            max_per=limits_of(max_per or []),
            prior=prior_of(prior),
        )
        runs: Engine = (
            LocalEngine(workers or os.cpu_count() or 1)
            if engine == "local"
            else RayEngine(workers, ray_address)
        )
        report = _Report(lambda at: progress("users", at.answered, at.users), progress.note)
        result = run_batch(
            bundle,
            users,
            out,
            wishes,
            runs,
            batch_users=batch_users,
            resume=resume,
            restart=restart,
            overwrite=overwrite,
            progress=report.step,
        )
    seconds = time.monotonic() - started
    new = result.users - result.resumed
    facts = {
        "path": str(result.path),
        "users": result.users,
        "resumed": result.resumed,
        "shards": users.shards,
        "engine": engine,
        "seconds": round(seconds, 1),
        "users_per_second": round(new / result.seconds, 1) if new else None,
    }
    if json:
        print_json(facts)
        return
    earlier = f", {counted(result.resumed, 'user')} of them by an earlier run" if result.resumed else ""
    answers.print(f"Answered {counted(result.users, 'user')}{earlier} in {seconds:.0f} s → {out}")


NOTE_SECONDS = 30.0


class _Report:
    """Bars on a terminal; elsewhere a line now and then with rate and time to go."""

    def __init__(self, bar: Callable[[BatchProgress], None], note: Callable[[str], None]) -> None:
        self._bar, self._note = bar, note
        self._last = 0.0

    def step(self, at: BatchProgress) -> None:
        self._bar(at)
        if at.resumed and at.answered == at.resumed:
            self._note(f"going on behind {counted(at.resumed, 'user')} answered before")
        if at.seconds - self._last >= NOTE_SECONDS and at.answered > at.resumed:
            self._last = at.seconds
            rate = (at.answered - at.resumed) / at.seconds
            self._note(
                f"[{at.seconds:6.0f} s] {at.answered:,} of {at.users:,} users, {rate:,.0f} a second, "
                f"{(at.users - at.answered) / rate:,.0f} s to go"
            )
