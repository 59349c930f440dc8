"""``genrec evaluate``."""

from __future__ import annotations

import time
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
    Verify,
    read_histories,
)
from genrec.cli.output import answers, print_json, print_table, stages
from genrec.cli.recommend import BundlePath
from genrec.evaluation.protocol import Part, Split
from genrec.evaluation.protocol import evaluate as run_evaluation
from genrec.recommender import Recommender
from genrec.tasks import TaskDefaults
from index.counted import counted
from index.errors import require
from index.item_index import SEMANTIC_ID

COLUMNS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10", "coverage", "validity")


def evaluate(
    bundle: BundlePath,
    interactions: Interactions,
    split: Annotated[Split, typer.Option(help="How events were held out.")] = "leave-one-out",
    part: Annotated[Part, typer.Option(help="Which held-out part to predict.")] = "test",
    users: Annotated[
        int | None, typer.Option(min=1, help="Sample so many cases; all where not given.")
    ] = None,
    beam: Annotated[int | None, typer.Option(min=1, help="Beam width; the bundle's default.")] = None,
    baselines: Annotated[bool, typer.Option(help="Also measure the baselines.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    threads: Threads = None,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    on_error: OnError = "fail",
    verify: Verify = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Measure a bundle on held-out events, with full ranking and strong baselines beside it.

    Recall and NDCG over one held-out item per case; recall equals the hit rate. A bundle that was trained on
    the events asked for is refused.
    """
    started = time.monotonic()
    if threads is not None:
        require("torch", extra="train", purpose="Setting threads").set_num_threads(threads)
    opened = load_bundle(bundle, verify=verify)
    defaults = opened.tasks[SEMANTIC_ID]
    if beam is not None:
        defaults = TaskDefaults(defaults.normalize, beam)
    histories = read_histories(
        interactions, opened.index.catalog, on_error, user_column, item_column, time_column
    )
    with stages(quiet) as progress:
        result = run_evaluation(
            Recommender(opened.index, opened.decoder(), defaults),
            opened.trained_events(),
            histories,
            split=split,
            part=part,
            users=users,
            baselines=baselines,
            seed=seed,
            progress=progress,
        )
    total = round(time.monotonic() - started, 1)
    if json:
        print_json(
            {
                "users": result.users,
                "split": result.split,
                "part": result.part,
                "items": len(opened.index.catalog),
                "normalize": defaults.normalize,
                "beam": defaults.beam,
                "systems": result.systems,
                "rank_seconds": result.seconds,
                "seconds": total,
            }
        )
        return
    rows = [
        (name, *(f"{figures[column]:.4f}" for column in COLUMNS), f"{result.seconds[name]:.1f}")
        for name, figures in result.systems.items()
    ]
    title = (
        f"{counted(result.users, 'case')}, {split} {part}, "
        f"full ranking over {counted(len(opened.index.catalog), 'item')}"
    )
    print_table(title, ("system", *COLUMNS, "seconds"), rows, numbers_from=1)
    answers.print(f"{defaults.normalize} normalisation, beam {defaults.beam}; {total} s in all")
