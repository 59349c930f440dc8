"""``genrec bench decode | constraint``; the other verbs are in ``bench_load`` and ``bench_reports``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from genrec.bench.constraint import ConstraintReport, ConstraintSettings, FilterTimes, measure_constraint
from genrec.bench.decode import (
    PHASE_WORDS,
    PHASES,
    DecodeReport,
    DecodeSettings,
    ScenarioResult,
    measure_decode,
)
from genrec.bench.machine import CompanyWatch
from genrec.bench.measurement import threads as thread_limit
from genrec.bench.percentiles import BEYOND, Summary, samples_for
from genrec.bench.race import Ratio
from genrec.bench.request_histories import random_items, resampled
from genrec.bench.sections import decode_section, head
from genrec.bundle import DecoderName, load_bundle
from genrec.cli import bench_load, bench_reports
from genrec.cli.bench_options import (
    Filters,
    Json,
    Seed,
    ThreadCount,
    Wanted,
    Where,
    check_target,
    counts,
    say,
    shares,
    show_foot,
    write_json,
)
from genrec.cli.options import (
    IndexPath,
    ItemColumn,
    OnError,
    QuietFlag,
    TimeColumn,
    UserColumn,
    read_histories,
)
from genrec.cli.output import print_table, stages
from genrec.cli.recommend import BundlePath
from index.artifact import open_artifact
from index.item_index import SEMANTIC_ID, index_of

app = typer.Typer(
    help="Measure on this machine, with your own bundle: what a request costs, alone, in batches and served.",
    no_args_is_help=True,
)


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
    k: Wanted = 10,
    beams: Annotated[
        str, typer.Option(help="Beam widths, beside the bundle's own.", metavar="N,N,…")
    ] = "5,10,20,50",
    prompts: Annotated[
        str, typer.Option(help="History lengths, beside as they come.", metavar="N,N,…")
    ] = "5,20,50",
    filters: Filters = "50,1,0.01",
    where: Where = None,
    exact: Annotated[bool, typer.Option(help="Also measure answers proven to be the best.")] = True,
    sizes: Annotated[
        str,
        typer.Option(
            help="Catalog sizes beside your own: random parts of it, or with invented items.", metavar="N,N,…"
        ),
    ] = "",
    grid: Annotated[
        bool, typer.Option("--grid", help="Also every beam with every history length and every size.")
    ] = False,
    decoder: Annotated[
        DecoderName, typer.Option(help="What runs the model; auto takes the export where there is one.")
    ] = "auto",
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
    histories. CPU time is what a busy neighbour hardly touches. The history prior is left out: it is in bench offline
    and bench serve.
    """
    settings = DecodeSettings(
        k=k,
        beams=counts(beams, "--beams"),
        lengths=counts(prompts, "--prompts"),
        kept=shares(filters, "--filters"),
        where=where,
        exact=exact,
        sizes=counts(sizes, "--sizes"),
        grid=grid,
        seconds=seconds,
        seed=seed,
    )
    check_target(json)
    opened = load_bundle(bundle)
    rng = np.random.default_rng((seed, 0))
    if histories is None:
        asked = random_items(len(opened.index.catalog), users, rng)
    else:
        read = read_histories(
            histories, opened.index.catalog, on_error, user_column, item_column, time_column
        )
        asked = resampled(read, users, rng)
    model, defaults = opened.decoder(decoder, task=SEMANTIC_ID, threads=threads), opened.tasks[SEMANTIC_ID]
    watch = CompanyWatch()
    with stages(quiet or json == "-") as progress, thread_limit(threads):
        measured = measure_decode(opened.index, model, defaults, asked, settings, progress)
    report = decode_section(opened, model, measured, settings, threads, watch.company())
    if json != "-":
        _show_decode(report, measured)
    write_json(report, json)


@app.command(
    epilog="Example: genrec bench constraint runs/movies --where 'year >= 1990' --json constraint.json"
)
def constraint(
    index: IndexPath,
    rows: Annotated[str, typer.Option(help="Prefixes a step takes up, at most.", metavar="N,N,…")] = "20,140",
    filters: Filters = "50,1,0.01",
    where: Where = None,
    peers: Annotated[
        bool, typer.Option(help="Also run Hugging Face's prefix processor, where transformers is installed.")
    ] = True,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in which all engines take turns.")] = 21,
    threads: ThreadCount = 1,
    seed: Seed = 0,
    json: Json = None,
    quiet: QuietFlag = False,
) -> None:
    """What does the constraint cost a decoding step over your own catalog? No model runs.

    A step of genrec is children, scores, filter and top-k in one call; the peers only mask. Works on an index
    too, without torch.
    """
    beams = counts(rows, "--rows")
    if not beams:
        raise typer.BadParameter(
            f"expected at least one number such as 20, got {rows!r}", param_hint="--rows"
        )
    settings = ConstraintSettings(
        rows=beams,
        kept=shares(filters, "--filters"),
        where=where,
        peers=peers,
        rounds=rounds,
        seed=seed,
    )
    check_target(json)
    artifact = open_artifact(index)
    opened = index_of(artifact)
    with stages(quiet or json == "-") as progress, thread_limit(threads):
        measured = measure_constraint(opened, settings, progress)
    report = {
        **head("constraint", artifact, seed, threads),
        "items": len(opened.catalog),
        "trie_nodes": opened.trie.nodes,
        "rounds": rounds,
        "ours": measured.ours,
        "walks": {str(beam): walk.as_json(measured.ours) for beam, walk in measured.walks.items()},
        "filters": [one.as_json() for one in measured.filters],
        "left_out": dict(measured.left_out),
    }
    if json != "-":
        _show_constraint(report, measured)
    write_json(report, json)


def _show_constraint(report: dict[str, Any], measured: ConstraintReport) -> None:
    say(f"One step of a search over {report['items']:,} items, by CPU time\n")
    for beam, walk in measured.walks.items():
        shape = ", ".join(
            f"{rows} of {edges:,} edges" for rows, edges in zip(walk.rows, walk.edges, strict=True)
        )
        ours = walk.whole(measured.ours)
        table = []
        for engine, times in walk.steps.items():
            ratio = Ratio.of(walk.whole(engine), ours)
            table.append(
                (
                    engine,
                    f"{walk.whole(engine).us / len(times):.1f}",
                    f"{walk.per_edge_ns(engine):.2f}",
                    f"{ratio.median:.1f} ({ratio.low:.1f}–{ratio.high:.1f})",
                )
            )
        print_table(
            f"Beam {beam}: prefixes {shape}",
            ("", "us a step", "ns an edge", "times ours"),
            table,
            numbers_from=1,
        )
        say("")
    say("genrec: children, scores, filter and top-k (softmax: and a softmax over the children first);")
    say("hf: Hugging Face's prefix processor over a trie of dicts or a marisa trie, which only masks\n")
    if measured.filters:
        header = ("", "items", "ready in ms", *(f"more at {beam} rows" for beam in measured.walks))
        print_table("Filters", header, [_filter_costs(one) for one in measured.filters], numbers_from=1)
        say(
            "more: what the filter adds to a step, where the filtered search stands (– : it has no step there)\n"
        )
    for engine, reason in measured.left_out.items():
        say(f"{engine} did not run: {reason}")
    show_foot(report)


def _filter_costs(one: FilterTimes) -> tuple[str, ...]:
    overhead = (
        "–" if ratio is None else f"{100 * (ratio.median - 1):+.0f} %" for ratio in one.overhead.values()
    )
    return one.name, f"{one.items_allowed:,}", f"{np.median(one.prepare_ms):.3f}", *overhead


def _show_decode(report: dict[str, Any], measured: DecodeReport) -> None:
    k = report["k"]
    title = f"One request, k = {k}, {report['items']:,} items, {report['normalize']} scores: milliseconds"
    columns = ("", "median", "p95", "CPU", "calls", "prefixes", "proven", "items", "KB")
    print_table(title, columns, [_costs(one) for one in measured.results], numbers_from=1)
    say(
        f"CPU: median; calls of the model; prefixes expanded; share of items proven to be in their place;\n"
        f"items: mean, of {k} wanted; KB of model state\n"
    )
    rows = [
        (one.scenario.name, *(_median_and_p95(one.phase(phase, "wall")) for phase in PHASES))
        for one in measured.results
    ]
    print_table("Where the time goes: milliseconds, median (p95)", ("", *PHASES), rows, numbers_from=1)
    say("\n".join(f"{phase:<8} {words}" for phase, words in PHASE_WORDS.items()) + "\n")
    say(f"{measured.base} is the bundle's default; the rows below the beams vary one thing of it")
    if min(report["beams_asked"], default=k) < k:
        say(f"a beam below k is raised to k = {k}")
    say(f"the {report['model']} model runs in {report['decoder']}")
    say(f"{report['histories']}; requests a row: {measured.requests:,} of {measured.planned:,}")
    peaks = [one.peak_mb for one in measured.results if one.peak_mb is not None]
    if peaks and measured.loaded_mb is not None:
        say(f"memory: a search takes at most {max(peaks):.1f} MB above the {measured.loaded_mb:.0f} MB held")
    if measured.requests < samples_for(0.95):
        say(
            f"no p95: it needs {samples_for(0.95)} requests ({BEYOND} beyond it), got {measured.requests}; "
            f"raise --users or --seconds"
        )
    show_foot(report)


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
    )


def _median_and_p95(times: Summary) -> str:
    return f"{times.median.value:.2f}" + ("" if times.p95 is None else f" ({times.p95.value:.2f})")


_EXAMPLES: dict[Callable[..., None], str] = {
    bench_load.offline: "genrec bench offline runs/movies --interactions ratings.csv --batches 1,16,64",
    bench_load.serve: "genrec bench serve runs/movies --interactions ratings.csv --slo-ms 50 --json serve.json",
    bench_reports.compare: "genrec bench compare before.json after.json",
    bench_reports.report: "genrec bench report runs/movies --interactions ratings.csv --out reports/movies",
    bench_reports.redraw: "genrec bench redraw reports/movies",
}
for _verb, _example in _EXAMPLES.items():
    app.command(_verb.__name__, epilog=f"Example: {_example}")(_verb)
