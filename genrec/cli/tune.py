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
from genrec.evaluation.bundle_tuning import tune_bundle, tune_prior
from genrec.evaluation.query_tuning import CONTEXT, DEPTH
from index.counted import counted


def tune(
    bundle: BundlePath,
    interactions: Interactions,
    prior: Annotated[
        bool,
        typer.Option(
            "--prior",
            help="Fit the history prior anew and choose its weight, instead: for a bundle that has none, or one "
            "trained by an earlier version.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the sample of users that is looked at.")] = 0,
    threads: Threads = None,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    on_error: OnError = "fail",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Choose on validation how a bundle is asked, and keep it in the bundle.

    That is k1 and b of BM25 and how many titles of a history stand behind each of the model's queries; with --prior,
    the history prior and its weight against the model.

    Training does it already; do it again when the catalog has changed much. Test events are not looked at.
    """
    started = time.monotonic()
    opened = load_bundle(bundle)
    histories = read_histories(
        interactions, opened.index.catalog, on_error, user_column, item_column, time_column
    )
    if prior:
        with stages(quiet) as progress:
            chosen = tune_prior(opened, histories, threads=threads or 1, seed=seed, progress=progress)
        total = round(time.monotonic() - started, 1)
        if json:
            print_json({**asdict(chosen), "seconds": total})
            return
        said = ", ".join(f"{name} {value:g}" for name, value in asdict(chosen.settings).items())
        answers.print(
            f"weight {chosen.weight:g} ({said}): ndcg@10 {chosen.ndcg:.4f}; written into {bundle} in {total} s"
        )
        return
    with stages(quiet) as progress:
        tuned = tune_bundle(opened, histories, threads=threads or 1, seed=seed, progress=progress)
    total = round(time.monotonic() - started, 1)
    if json:
        print_json({**asdict(tuned), "seconds": total})
        return
    print_table(
        f"recall@{DEPTH} with k1 {tuned.tried[0].k1:g}, b {tuned.tried[0].b:g}",
        ("titles of the history behind a query", f"recall@{DEPTH}"),
        [(f"{one.context}", f"{one.recall:.4f}") for one in tuned.tried[: len(CONTEXT)]],
        numbers_from=1,
    )
    found = {(one.k1, one.b): one.recall for one in tuned.tried if one.context == tuned.context}
    every_b = sorted({b for _, b in found})
    rows = [
        (f"k1 {k1:g}", *(f"{found[k1, b]:.4f}" if (k1, b) in found else "" for b in every_b))
        for k1 in sorted({k1 for k1, _ in found})
    ]
    title = f"recall@{DEPTH} of {counted(tuned.users, 'validation case')}"
    print_table(title, ("", *(f"b {b:g}" for b in every_b)), rows, numbers_from=1)
    answers.print(
        f"k1 {tuned.k1:g}, b {tuned.b:g}, {counted(tuned.context, 'title')} of the history: {tuned.recall:.4f}, "
        f"where the index alone has {tuned.built:.4f}; "
        f"written into {bundle} in {total} s"
    )
