"""``genrec bench report | redraw | compare``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from genrec.bench.catalog_sizes import usual_sizes
from genrec.bench.compare import Comparison
from genrec.bench.compare import compare as compare_reports
from genrec.bench.decode import DecodeSettings, Progress
from genrec.bench.full_report import ReportSettings, measure_report
from genrec.bench.measurement import threads as thread_limit
from genrec.bench.offline import OfflineSettings
from genrec.bench.percentiles import samples_for
from genrec.bench.plots import plots
from genrec.bench.report import last_line
from genrec.bench.report_files import MARKDOWN, REPORT, check_report_place, read_json, write_report
from genrec.bench.report_text import report_markdown
from genrec.bench.serve import ServeSettings
from genrec.bundle import load_bundle
from genrec.cli.bench_load import users_from
from genrec.cli.bench_options import (
    Json,
    Seed,
    ThreadCount,
    Wanted,
    check_target,
    counts,
    rates,
    say,
    write_json,
)
from genrec.cli.options import (
    ItemColumn,
    OnError,
    OptionalInteractions,
    QuietFlag,
    TimeColumn,
    UserColumn,
)
from genrec.cli.output import print_table, remark, stages
from genrec.cli.recommend import BundlePath
from index.errors import RequestError, require

ReportPath = Annotated[
    Path, typer.Argument(help="A JSON file or a report directory of genrec bench.", metavar="REPORT")
]


def report(
    bundle: BundlePath,
    out: Annotated[
        Path, typer.Option(help="Directory of the report; an earlier one is replaced.", metavar="DIR")
    ],
    interactions: OptionalInteractions = None,
    users: Annotated[
        int, typer.Option(min=1, help=f"Histories asked one at a time; p95 needs {samples_for(0.95)}.")
    ] = samples_for(0.95),
    k: Wanted = 10,
    beams: Annotated[
        str, typer.Option(help="Beam widths, beside the bundle's own.", metavar="N,N,…")
    ] = "10,20,50,100",
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Catalog sizes, beside the bundle's own; 1000 to a million by default, as far as its codes reach.",
            metavar="N,N,…",
        ),
    ] = None,
    batches: Annotated[
        str, typer.Option(help="Requests searched together in the batch part.", metavar="N,N,…")
    ] = "1,8,32,64",
    slo_ms: Annotated[float, typer.Option(help="The limit 99 % of the served must keep.")] = 100.0,
    rate: Annotated[
        str, typer.Option("--rates", help="Rates of the served part; found where not given.", metavar="R,R,…")
    ] = "",
    requests: Annotated[int, typer.Option(min=1, help="Served requests of every rate.")] = 1000,
    exact: Annotated[bool, typer.Option(help="Also measure answers proven to be the best.")] = True,
    recall_cases: Annotated[int, typer.Option(min=1, help="Held-out items to look for, at most.")] = 4000,
    serve: Annotated[bool, typer.Option(help="Also serve the bundle and ask the server.")] = True,
    threads: ThreadCount = 1,
    seed: Seed = 0,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    on_error: OnError = "fail",
    quiet: QuietFlag = False,
) -> None:
    """Measure everything about a bundle and write one directory: report.md, report.json and plots.

    Takes minutes: one request at a time in every scenario, batches, recall, and a server at several rates.
    """
    require("matplotlib", extra="bench", purpose="Drawing the plots of a report")
    check_report_place(out)
    opened = load_bundle(bundle)
    own = len(opened.index.catalog) - len(opened.index.removed)
    others = usual_sizes(opened.index) if sizes is None else counts(sizes, "--sizes")
    settings = ReportSettings(
        decode=DecodeSettings(
            k=k, beams=counts(beams, "--beams"), sizes=tuple(sorted({*others, own})), seed=seed,
            exact=exact,
        ),
        offline=OfflineSettings(k=k, batches=counts(batches, "--batches"), seed=seed),
        serve=ServeSettings(
            k=k, slo_ms=slo_ms, rates=rates(rate, "--rates"), requests=requests, seed=seed
        ) if serve else None,
        users=users,
        recall_cases=recall_cases,
        threads=threads,
        seed=seed,
    )  # fmt: skip
    who = users_from(opened, interactions, on_error, user_column, item_column, time_column)
    with stages(quiet) as progress, thread_limit(threads):

        def named(section: str) -> Progress:
            return lambda stage, done, total: progress(f"{section}: {stage}", done, total)

        measured = measure_report(opened, who, settings, named)
    measured["command"] = f"genrec bench report {measured['name']}" + (
        f" --interactions {interactions.name}" if interactions else ""
    )
    _write(out, measured)


def redraw(
    directory: Annotated[Path, typer.Argument(help="A report of genrec bench report.", metavar="DIR")],
) -> None:
    """Write a report's text and plots again from its report.json; nothing is measured."""
    require("matplotlib", extra="bench", purpose="Drawing the plots of a report")
    measured = read_json(directory)
    if measured["benchmark"] != "report":
        raise RequestError(
            f"expected the directory of genrec bench report, got a {measured['benchmark']!r} report"
        )
    _write(directory, measured)


def compare(
    first: ReportPath,
    second: ReportPath,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Is the second run faster than the first, and by how much?

    Ratios of medians with 95 % intervals by resampling. Reports that asked different questions are refused; other
    hardware, software or company on the machine is flagged. Directories of genrec bench report are compared part by
    part.
    """
    check_target(json)
    found, refused = [], []
    for ours, theirs in _parts(read_json(first), read_json(second)):
        try:
            found.append(compare_reports(ours, theirs, seed))
        except RequestError as error:  # one part of two directories may be incomparable, all of it may not
            refused.append(error)
    if not found:
        raise refused[0]
    for reason in refused:
        remark(f"left out: {reason}")
    if json != "-":
        for one in found:
            _show(one)
    write_json({"benchmark": "compare", "parts": [one.as_json() for one in found]}, json)


def _parts(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    if first["benchmark"] != "report" or second["benchmark"] != "report":
        return [(first, second)]
    shared = [name for name in ("decode", "offline", "serve") if first.get(name) and second.get(name)]
    if not shared:
        raise RequestError("expected reports with a part in common, got none")
    return [(first[name], second[name]) for name in shared]


def _show(found: Comparison) -> None:
    rows = [
        (
            one.name,
            "CPU" if one.clock == "cpu_ms" else "wall",
            f"{one.first:.3g}",
            f"{one.second:.3g}",
            f"{one.ratio:.3f}",
            f"{one.low:.3f}–{one.high:.3f}",
            one.verdict,
        )
        for one in found.rows
    ]
    print_table(
        f"{found.benchmark}: medians in milliseconds, second over first",
        ("", "clock", "first", "second", "ratio", "95 %", ""),
        rows,
        numbers_from=2,
    )
    how = {"pairs": "request by request", "apart": "each run for itself", "blocks": "in blocks of neighbours"}
    say(
        f"resampled {how[found.pairing]}; called different where chance explains it in under 5 % of all rows together"
    )
    for word, names in (("first", found.only_first), ("second", found.only_second)):
        if names:
            say(f"only in the {word}: {', '.join(names)}")
    for flag in found.flags:
        say(f"! {flag}")
    say("")


def _write(out: Path, measured: dict[str, Any]) -> None:
    drawn = plots(measured)
    text = report_markdown(measured, drawn)
    write_report(out, {REPORT: last_line(measured) + "\n", MARKDOWN: text, **drawn})
    say(f"{out / MARKDOWN}, {out / REPORT} and {len(drawn)} plots")
