"""``genrec evaluate``."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
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
from genrec.cli.output import answers, print_json, print_table, remark, stages
from genrec.cli.recommend import BundlePath
from genrec.cli.wish_options import ids_of
from genrec.evaluation.protocol import DEPTH, ROWS, Evaluation, Part, Split
from genrec.evaluation.protocol import evaluate as run_evaluation
from genrec.evaluation.segments import SPARSE_EVENTS
from genrec.modes import AnyMode, QueryMode
from genrec.recommender import Recommender
from genrec.tasks import QueryDefaults, TaskDefaults
from index.artifact import replace_file
from index.counted import counted
from index.errors import RequestError, require

COLUMNS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10", "coverage", "validity")
LIST_COLUMNS = ("recall@40", "diversity@40", "coverage@40")
BEYOND_COLUMNS = ("gini@10", "novelty@10", "distance@10", "ece@10", "list_ece@10")
HARD_COLUMNS = ("sparse_recall@10", "sparse_ndcg@10", "cold_recall@10", "cold_ndcg@10")


def evaluate(
    bundle: BundlePath,
    interactions: Interactions,
    mode: Annotated[
        str | None,
        typer.Option(
            help="Modes to measure, separated by commas: semantic_id,title,query. All the bundle has by default.",
            metavar="MODES",
        ),
    ] = None,
    variants: Annotated[
        bool,
        typer.Option(
            "--variants",
            help="Also ask the text modes in other ways: the other normalisation, titles by length-normalised and "
            "by unconstrained beams, one query instead of m, queries under the other constraint.",
        ),
    ] = False,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Catalog fields, separated by commas, that say what kind of thing an item is, for diversity@40 "
            "and coverage@40. Lists and fields of shared values by default.",
            metavar="FIELDS",
        ),
    ] = None,
    split: Annotated[Split, typer.Option(help="How events were held out.")] = "leave-one-out",
    part: Annotated[Part, typer.Option(help="Which held-out part to predict.")] = "test",
    users: Annotated[
        int | None, typer.Option(min=1, help="Sample so many cases; all where not given.")
    ] = None,
    beam: Annotated[int | None, typer.Option(min=1, help="Beam width; the bundle's default.")] = None,
    baselines: Annotated[bool, typer.Option(help="Also measure the baselines.")] = True,
    reliability: Annotated[
        Path | None,
        typer.Option(
            "--reliability-plot",
            help="Draw probabilities against what happened, as SVG (pip install 'genrec[bench]').",
            metavar="FILE",
        ),
    ] = None,
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

    Recall and NDCG over one held-out item per case; recall equals the hit rate. coverage is the share of the catalog
    in anybody's first ten; coverage@40 the share of the labels of a user's history that the list of forty has;
    diversity@40 how unlike the labels of two of its items are. A bundle that was trained on the events asked for
    is refused.

    Of the first ten: gini@10 is 0 where all items are shown alike, near 1 where few are; novelty@10 the mean
    surprise that a random user has met an item, in bits; distance@10 how unlike the texts of two items are
    (1 - cosine). ece@10 is how far an item's probability is from how often it comes next, list_ece@10 the same of a
    list's sum. sparse_ and cold_: users of at most five training events, targets that training has never seen.

    For example: genrec evaluate runs/movies --interactions ratings.csv --users 2500 --mode title,query --variants
    """
    started = time.monotonic()
    if reliability is not None:
        require("matplotlib", extra="bench", purpose="Drawing plots")
    if threads is not None:
        require("torch", extra="train", purpose="Setting threads").set_num_threads(threads)
    opened = load_bundle(bundle, verify=verify)
    modes = None if mode is None else ids_of(mode)
    recommender = Recommender.of_bundle(opened, modes=modes)
    if beam is not None:
        recommender = with_beam(recommender, beam)
    histories = read_histories(
        interactions, opened.index.catalog, on_error, user_column, item_column, time_column
    )
    with stages(quiet) as progress:
        result = run_evaluation(
            recommender,
            opened.trained_events(),
            histories,
            split=split,
            part=part,
            users=users,
            baselines=baselines,
            with_variants=variants,
            label_fields=None if labels is None else ids_of(labels),
            seed=seed,
            progress=progress,
        )
    if reliability is not None:
        _draw_reliability(result, reliability)
    total = round(time.monotonic() - started, 1)
    if json:
        print_json(
            {
                "users": result.users,
                "split": result.split,
                "part": result.part,
                "items": len(opened.index.catalog),
                "normalize": recommender.defaults.normalize,
                "beam": recommender.defaults.beam,
                "modes": {name: one.defaults.to_dict() for name, one in recommender.modes.items()},
                "labels": list(result.label_fields),
                "sparse_users": result.sparse_users,
                "cold_targets": result.cold_targets,
                "systems": result.systems,
                "calibration": {name: one.to_dict() for name, one in result.calibration.items()},
                "rank_seconds": result.seconds,
                "seconds": total,
            }
        )
        return
    title = (
        f"{counted(result.users, 'case')}, {split} {part}, "
        f"full ranking over {counted(len(opened.index.catalog), 'item')}"
    )
    print_table(title, ("system", *COLUMNS), _rows(result, COLUMNS), numbers_from=1)
    answers.print()
    about = f"The lists of {DEPTH}; labels are the values of {', '.join(result.label_fields) or 'no field'}"
    print_table(
        about, ("system", *LIST_COLUMNS, "seconds"), _rows(result, LIST_COLUMNS, seconds=True), numbers_from=1
    )
    answers.print()
    print_table(
        "Beyond accuracy, first ten",
        ("system", *BEYOND_COLUMNS),
        _rows(result, BEYOND_COLUMNS),
        numbers_from=1,
    )
    answers.print()
    hard = (
        f"{counted(result.sparse_users, 'sparse user')} (at most {SPARSE_EVENTS} training events), "
        f"{counted(result.cold_targets, 'cold target')} (in no training event)"
    )
    print_table(hard, ("system", *HARD_COLUMNS), _rows(result, HARD_COLUMNS), numbers_from=1)
    for name, one in recommender.modes.items():
        answers.print(f"{ROWS[name]}: {_asked(one.defaults)}")
    answers.print(f"{total} s in all")


def _draw_reliability(result: Evaluation, path: Path) -> None:
    """The plot of the first system that gives probabilities.

    Raises:
        RequestError: none does.
    """
    from genrec.bench.quality_plots import reliability

    if not result.calibration:
        raise RequestError(
            "expected a system that gives probabilities for --reliability-plot, got none; measure a mode under "
            "catalog normalisation"
        )
    name, said = next(iter(result.calibration.items()))
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, reliability(name, said, result.users).encode())
    remark(f"drew {path}")


def with_beam(recommender: Recommender, beam: int) -> Recommender:
    """The same with another beam in every mode."""
    modes: dict[str, AnyMode] = {}
    for name, mode in recommender.modes.items():
        if isinstance(mode, QueryMode):
            modes[name] = replace(mode, defaults=replace(mode.defaults, beam=beam))
        else:
            modes[name] = replace(mode, defaults=replace(mode.defaults, beam=beam))
    return Recommender(recommender.index, modes=modes)


def _rows(result: Evaluation, columns: tuple[str, ...], *, seconds: bool = False) -> list[tuple[str, ...]]:
    return [
        (
            name,
            *(f"{figures[column]:.4f}" if column in figures else "–" for column in columns),
            *([f"{result.seconds[name]:.1f}"] if seconds else []),
        )
        for name, figures in result.systems.items()
    ]


def _asked(defaults: TaskDefaults) -> str:
    how = f"{defaults.normalize} normalisation, beam {defaults.beam}"
    if isinstance(defaults, QueryDefaults):
        behind = f", {counted(defaults.context, 'title')} behind each" if defaults.context else ""
        queries = counted(defaults.queries, "query", "queries")
        return f"{queries}, {defaults.constraint}{behind}, beam {defaults.beam}"
    return how
