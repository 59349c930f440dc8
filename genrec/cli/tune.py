"""``genrec tune``."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from genrec.bundle import load_bundle
from genrec.cli.options import (
    Interactions,
    ItemColumn,
    JsonFlag,
    OnError,
    QuietFlag,
    Threads,
    TimeColumn,
    UserColumn,
    read_histories,
)
from genrec.cli.output import answers, print_json, print_table, stages
from genrec.cli.recommend import BundlePath
from genrec.evaluation.bundle_tuning import tune_bundle
from genrec.evaluation.query_tuning import DEPTH
from index.counted import counted


def tune(
    bundle: BundlePath,
    interactions: Interactions,
    seed: Annotated[int, typer.Option(help="Of the sample of users that is looked at.")] = 0,
    threads: Threads = None,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    on_error: OnError = "fail",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Choose k1 and b of BM25 for the queries a bundle's model writes, on validation, and keep them in the bundle.

    Training does it already; do it again when the catalog has changed much. Test events are not looked at.
    """
    started = time.monotonic()
    opened = load_bundle(bundle)
    histories = read_histories(
        interactions, opened.index.catalog, on_error, user_column, item_column, time_column
    )
    with stages(quiet) as progress:
        tuned = tune_bundle(opened, histories, threads=threads or 1, seed=seed, progress=progress)
    total = round(time.monotonic() - started, 1)
    if json:
        print_json({**asdict(tuned), "seconds": total})
        return
    every_b = sorted({b for _, b, _ in tuned.tried})
    found = {(k1, b): recall for k1, b, recall in tuned.tried}
    rows = [
        (f"k1 {k1:g}", *(f"{found[k1, b]:.4f}" if (k1, b) in found else "" for b in every_b))
        for k1 in sorted({k1 for k1, _, _ in tuned.tried})
    ]
    title = f"recall@{DEPTH} of {counted(tuned.users, 'validation case')}"
    print_table(title, ("", *(f"b {b:g}" for b in every_b)), rows, numbers_from=1)
    answers.print(
        f"k1 {tuned.k1:g}, b {tuned.b:g}: {tuned.recall:.4f}, where the index has {tuned.built:.4f}; "
        f"written into {bundle} in {total} s"
    )
