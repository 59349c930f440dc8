"""``genrec bench decode | constraint``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from genrec.bench.decode import (
    PHASE_WORDS,
    PHASES,
    DecodeReport,
    DecodeSettings,
    ScenarioResult,
    measure_decode,
)
from genrec.bench.machine import machine, machine_line
from genrec.bench.measurement import threads as thread_limit
from genrec.bench.percentiles import BEYOND, Summary, samples_for
from genrec.bench.report import last_line
from genrec.bench.request_histories import random_items, resampled
from genrec.bundle import load_bundle
from genrec.cli.options import ItemColumn, OnError, QuietFlag, TimeColumn, UserColumn, read_histories
from genrec.cli.output import answers, print_table, stages
from genrec.cli.recommend import BundlePath
from index.artifact import Artifact
from index.item_index import SEMANTIC_ID

app = typer.Typer(
    help="Measure on this machine, with your own bundle: what a decode costs, and what its constraint costs.",
    no_args_is_help=True,
)

Seed = Annotated[int, typer.Option(help="Seed of every random choice.")]
ThreadCount = Annotated[int, typer.Option(min=1, help="CPU threads.")]
Json = Annotated[
    str | None,
    typer.Option(
        "--json", help="Write the report as JSON to a file, or - for standard output alone.", metavar="FILE"
    ),
]


@app.command(
    epilog="Example: genrec bench decode runs/movies --histories ratings.csv --users 200 --json decode.json"
)
def decode(
    bundle: BundlePath,
    histories: Annotated[
        Path | None,
        typer.Option(
            help="User histories to resample, as for training; random items where not given.", metavar="FILE"
        ),
    ] = None,
    users: Annotated[
        int, typer.Option(min=1, help=f"Histories; p95 needs {samples_for(0.95)} of them.")
    ] = samples_for(0.95),
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Items wanted.")] = 10,
    beams: Annotated[
        str, typer.Option(help="Beam widths, beside the bundle's own.", metavar="N,N,…")
    ] = "5,10,20,50",
    prompts: Annotated[
        str, typer.Option(help="History lengths, beside as they come.", metavar="N,N,…")
    ] = "5,20,50",
    filters: Annotated[
        str, typer.Option(help="Random filters, by the percentage of items they keep.", metavar="P,P,…")
    ] = "50,1,0.01",
    where: Annotated[
        str | None, typer.Option(help="A filter of your own, such as: year >= 1990 and kind == 'film'.")
    ] = None,
    exact: Annotated[bool, typer.Option(help="Also measure answers proven to be the best.")] = True,
    threads: ThreadCount = 1,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Stop after so many seconds, with what was measured by then.")
    ] = None,
    seed: Seed = 0,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    on_error: OnError = "fail",
    json: Json = None,
    quiet: QuietFlag = False,
) -> None:
    """What does a decode cost with this bundle on this machine, and where does the time go?

    One request at a time. Every row varies one thing of the bundle's defaults; all rows take turns on the same
    histories. CPU time is what a busy neighbour hardly touches.
    """
    settings = DecodeSettings(
        k=k,
        beams=_counts(beams, "--beams"),
        lengths=_counts(prompts, "--prompts"),
        kept=_shares(filters, "--filters"),
        where=where,
        exact=exact,
        seconds=seconds,
        seed=seed,
    )
    opened = load_bundle(bundle)
    rng = np.random.default_rng((seed, 0))
    if histories is None:
        asked = random_items(len(opened.index.catalog), users, rng)
    else:
        read = read_histories(
            histories, opened.index.catalog, on_error, user_column, item_column, time_column
        )
        asked = resampled(read, users, rng)
    decoder, defaults = opened.decoder(), opened.tasks[SEMANTIC_ID]
    with stages(quiet or json == "-") as progress, thread_limit(threads):
        measured = measure_decode(opened.index, decoder, defaults, asked, settings, progress)
    report = {
        **_head("decode", opened.artifact, seed, threads),
        "items": len(opened.index.catalog),
        "model": opened.family,
        "normalize": defaults.normalize,
        "k": k,
        "histories": measured.source,
        "requests": measured.requests,
        "requests_planned": measured.planned,
        "loaded_mb": measured.loaded_mb,
        "base": measured.base,
        "scenarios": [one.as_json() for one in measured.results],
    }
    if json != "-":
        _show_decode(report, measured)
    _write_json(report, json)


def _show_decode(report: dict[str, Any], measured: DecodeReport) -> None:
    title = f"One request, k = {report['k']}, {report['items']:,} items, {report['normalize']} scores: milliseconds"
    columns = (
        "",
        "median",
        "p95",
        "CPU",
        "model calls",
        "expansions",
        "certified",
        "items",
        "state KB",
        "peak MB",
    )
    print_table(title, columns, [_costs(one) for one in measured.results], numbers_from=1)
    answers.print()
    rows = [
        (one.scenario.name, *(_median_and_p95(one.phase(phase, "wall")) for phase in PHASES))
        for one in measured.results
    ]
    print_table("Where the time goes: milliseconds, median (p95)", ("", *PHASES), rows, numbers_from=1)
    answers.print()
    for phase, words in PHASE_WORDS.items():
        answers.print(f"{phase:<8} {words}", highlight=False)
    answers.print()
    answers.print(
        f"{measured.base} is the bundle's default; prompts, filters and exact vary that one thing of it"
    )
    answers.print(
        f"{report['histories']}; {measured.requests:,} of {measured.planned:,} requests a row measured"
    )
    if measured.requests < samples_for(0.95):
        answers.print(
            f"no p95: it needs {samples_for(0.95)} requests ({BEYOND} beyond it), got {measured.requests}; "
            f"raise --users or --seconds"
        )
    _show_foot(report)


def _costs(one: ScenarioResult) -> tuple[str, ...]:
    wall, share = one.whole("wall"), one.certified_share
    return (
        one.scenario.name,
        f"{wall.median.value:.2f}",
        "–" if wall.p95 is None else f"{wall.p95.value:.2f}",
        f"{one.whole('cpu').median.value:.2f}",
        f"{one.mean('model_calls'):.1f}",
        f"{one.mean('expansions'):.0f}",
        "–" if share is None else f"{100 * share:.0f} %",
        f"{one.mean('found'):.1f}",
        f"{one.mean('state_bytes') / 1024:.0f}",
        "–" if one.peak_mb is None else f"{one.peak_mb:.1f}",
    )


def _median_and_p95(times: Summary) -> str:
    return f"{times.median.value:.2f}" + ("" if times.p95 is None else f" ({times.p95.value:.2f})")


def _head(benchmark: str, artifact: Artifact, seed: int, threads: int) -> dict[str, Any]:
    """What every report opens with: enough to know whether two of them may be compared."""
    return {
        "benchmark": benchmark,
        "machine": machine(),
        "threads": threads,
        "seed": seed,
        "path": str(artifact.path),
        "manifest_sha256": artifact.content_hash,
    }


def _show_foot(report: dict[str, Any]) -> None:
    answers.print(
        f"{report['path']}, manifest {report['manifest_sha256'][:16]}, seed {report['seed']}", highlight=False
    )
    answers.print(f"{machine_line(report['machine'])}; threads {report['threads']}", highlight=False)


def _write_json(report: dict[str, Any], target: str | None) -> None:
    if target == "-":
        typer.echo(last_line(report))
    elif target is not None:
        Path(target).write_text(last_line(report) + "\n", "utf-8")


def _counts(text: str, option: str) -> tuple[int, ...]:
    """Numbers of at least one from ``5,10``; an empty text is none."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(
            f"expected whole numbers above 0 such as 5,10, got {text!r}", param_hint=option
        )
    return tuple(dict.fromkeys(map(int, parts)))


def _shares(text: str, option: str) -> tuple[float, ...]:
    """Shares in (0, 1] from percentages such as ``50,0.01``."""
    try:
        percentages = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        percentages = [-1.0]
    if not all(0 < one <= 100 for one in percentages):
        raise typer.BadParameter(
            f"expected percentages above 0 such as 50,0.01, got {text!r}", param_hint=option
        )
    return tuple(one / 100 for one in dict.fromkeys(percentages))
