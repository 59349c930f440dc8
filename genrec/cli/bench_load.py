"""``genrec bench offline | serve``."""

from __future__ import annotations

import asyncio
import json as json_text
import urllib.request
from pathlib import Path
from typing import Annotated, Any
from urllib.error import URLError
from urllib.parse import urlsplit

import numpy as np
import typer

from genrec.bench.arrivals import BURSTY, ArrivalKind
from genrec.bench.full_report import Users, asked_of, serve_own, users_of
from genrec.bench.machine import CompanyWatch
from genrec.bench.measurement import threads as thread_limit
from genrec.bench.offline import OfflineSettings, measure_offline
from genrec.bench.sections import offline_section, serve_section
from genrec.bench.serve import ServeSettings, measure_serve
from genrec.bundle import Bundle, DecoderName, load_bundle
from genrec.cli.bench_options import (
    Beam,
    Json,
    Seed,
    ThreadCount,
    Wanted,
    check_target,
    counts,
    rates,
    say,
    show_foot,
    write_json,
)
from genrec.cli.options import (
    ItemColumn,
    OnError,
    OnErrorName,
    OptionalInteractions,
    QuietFlag,
    TimeColumn,
    UserColumn,
    read_histories,
)
from genrec.cli.output import Stages, print_table, stages
from genrec.cli.recommend import BundlePath
from index.errors import RequestError
from index.item_index import SEMANTIC_ID

PATH = "/v1/recommendations"


def users_from(
    bundle: Bundle,
    interactions: Path | None,
    on_error: OnErrorName,
    user: str | None,
    item: str | None,
    time: str | None,
) -> Users:
    """Who asks: the users of a file, or nobody in particular."""
    if interactions is None:
        return users_of(bundle, None)
    return users_of(bundle, read_histories(interactions, bundle.index.catalog, on_error, user, item, time))


def offline(
    bundle: BundlePath,
    interactions: OptionalInteractions = None,
    k: Wanted = 10,
    beam: Beam = None,
    batches: Annotated[str, typer.Option(help="Requests searched together.", metavar="N,N,…")] = "1,8,32,64",
    groups: Annotated[
        int, typer.Option(min=2, help="Samples: groups of as many users as the largest batch.")
    ] = 10,
    decoder: Annotated[
        DecoderName, typer.Option(help="What runs the model; auto takes the export where there is one.")
    ] = "auto",
    threads: ThreadCount = 1,
    seed: Seed = 0,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    on_error: OnError = "fail",
    json: Json = None,
    quiet: QuietFlag = False,
) -> None:
    """How many users a second does this bundle answer when nobody waits?

    Every batch size answers the same users; all take turns, so that what disturbs the machine disturbs all of them.
    """
    settings = OfflineSettings(k, beam, counts(batches, "--batches"), groups, seed)
    check_target(json)
    opened = load_bundle(bundle)
    users = users_from(opened, interactions, on_error, user_column, item_column, time_column)
    asked = users.draw(opened.index, settings.users, np.random.default_rng((seed, 1)))
    model, watch = opened.decoder(decoder, task=SEMANTIC_ID, threads=threads), CompanyWatch()
    with stages(quiet or json == "-") as progress, thread_limit(threads):
        measured = measure_offline(
            opened.index, model, opened.tasks[SEMANTIC_ID], asked, settings, progress, opened.prior
        )
    report = offline_section(opened, model, measured, settings, threads, watch.company())
    if json != "-":
        _show_offline(report)
    write_json(report, json)


def serve(
    target: Annotated[
        str,
        typer.Argument(
            help="A bundle, which is served on this machine for the test, or the address of a server.",
            metavar="BUNDLE|URL",
        ),
    ],
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="With an address: the bundle that is served there, for its items.", metavar="BUNDLE"
        ),
    ] = None,
    interactions: OptionalInteractions = None,
    rate: Annotated[
        str,
        typer.Option(
            "--rates",
            help="Requests a second to offer; by default shares of what the server can do at most.",
            metavar="R,R,…",
        ),
    ] = "",
    arrival: Annotated[
        ArrivalKind,
        typer.Option(
            help="Gaps between requests. poisson is what users do; constant is easier, gamma burstier."
        ),
    ] = "poisson",
    shape: Annotated[
        float, typer.Option(help="Of gamma arrivals; the smaller, the burstier; 1 is poisson.")
    ] = BURSTY,
    concurrency: Annotated[
        str,
        typer.Option(
            help="Closed loops of so many clients instead of rates; makes no goodput.", metavar="N,N,…"
        ),
    ] = "",
    slo_ms: Annotated[float, typer.Option(help="The limit: 99 % must be answered within it.")] = 100.0,
    requests: Annotated[
        int, typer.Option(min=1, help="Of every rate; p99 needs 1,000, p99.9 needs 10,000.")
    ] = 1000,
    refine: Annotated[
        int, typer.Option(min=0, help="Further rates to find the goodput between two of the sweep.")
    ] = 3,
    k: Wanted = 10,
    beam: Beam = None,
    timeout_s: Annotated[float, typer.Option(help="The client's patience, in seconds.")] = 10.0,
    prompt_cache_mb: Annotated[
        int, typer.Option(min=0, help="MiB of remembered prompts, of a server that is started here.")
    ] = 0,
    api_key: Annotated[
        str | None, typer.Option(envvar="GENREC_API_KEY", help="Sent as a bearer token.", metavar="KEY")
    ] = None,
    seed: Seed = 0,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    on_error: OnError = "fail",
    json: Json = None,
    quiet: QuietFlag = False,
) -> None:
    """How many users does a server answer in time, and what do they wait for?

    Requests are sent at planned moments, whatever comes back, and timed from those moments. The goodput is the
    highest rate at which 99 % of those sent were answered within the limit. Every returned id is looked up in the
    catalog; with --interactions the last event of every user is held out and looked for.
    """
    settings = ServeSettings(
        k=k,
        beam=beam,
        slo_ms=slo_ms,
        requests=requests,
        rates=rates(rate, "--rates"),
        arrival=arrival,
        shape=shape,
        concurrency=counts(concurrency, "--concurrency"),
        refine=refine,
        timeout_s=timeout_s,
        seed=seed,
    )
    check_target(json)
    is_url = "://" in target
    if is_url and bundle is None:
        raise typer.BadParameter(
            "expected the bundle that is served there, to know its items; name it", param_hint="--bundle"
        )
    opened = load_bundle(Path(target) if bundle is None else bundle)
    users = users_from(opened, interactions, on_error, user_column, item_column, time_column)
    with stages(quiet or json == "-") as progress:
        report = (
            _serve_there(target, opened, users, settings, api_key, progress)
            if is_url
            else serve_own(opened, users, settings, progress, prompt_cache_mb)
        )
    if json != "-":
        _show_serve(report, users)
    write_json(report, json)


def _serve_there(
    url: str, bundle: Bundle, users: Users, settings: ServeSettings, api_key: str | None, progress: Stages
) -> dict[str, Any]:
    """Somebody else's server."""
    if urlsplit(url).path in ("", "/"):
        url = url.rstrip("/") + PATH
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    served = _served_model(url, headers)
    short_hash = bundle.artifact.content_hash[:8]
    if served is not None and short_hash not in served:
        progress.note(
            f"the server says it serves {served}; the bundle given is {short_hash}: validity may be off"
        )
    asked = users.draw(bundle.index, 2 * settings.requests, np.random.default_rng((settings.seed, 2)))
    watch = CompanyWatch()
    measured = asyncio.run(
        measure_serve(
            url,
            asked_of(bundle.index, asked, with_targets=users.no_recall is None),
            frozenset(bundle.index.catalog.item_ids),
            settings,
            headers=headers,
            progress=progress,
        )
    )
    return serve_section(
        bundle.artifact,
        len(bundle.index.catalog),
        measured,
        settings,
        watch.company(),
        server=f"{served or 'a server'} at an address given; its processor time is not known",
        prompt_cache_mb=None,
    )


def _served_model(url: str, headers: dict[str, str]) -> str | None:
    """What the server says it serves; None where it does not say.

    Raises:
        RequestError: nobody answers there.
    """
    parts = urlsplit(url)
    if parts.scheme != "http":
        raise RequestError(f"expected an address like http://127.0.0.1:8000, got {url}")
    asked = urllib.request.Request(f"http://{parts.netloc}/v1/models", headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=10) as reply:
            return str(json_text.load(reply)["data"][0]["id"])
    except urllib.error.HTTPError:
        return None  # it answers, but not this
    except (ValueError, KeyError, IndexError, TypeError):
        return None  # another API behind the same path
    except (URLError, OSError) as error:
        raise RequestError(f"expected a server at {parts.netloc}, got: {error}; start it first") from error


def _show_offline(report: dict[str, Any]) -> None:
    rows = [
        (
            one["batch"],
            f"{one['users_per_second']:.1f}",
            "–".join(f"{end:.1f}" for end in one["users_per_second_95"]),
            f"{one['cpu_ms']:.2f}",
            *(f"{value:.2f}" for value in one["phases_cpu_ms"].values()),
            "–" if one["peak_mb"] is None else f"{one['peak_mb']:.0f}",
        )
        for one in report["batches"]
    ]
    names = tuple(report["batches"][0]["phases_cpu_ms"])
    title = f"{report['users']:,} users a row, k = {report['k']}, beam {report['beam']}, {report['items']:,} items"
    print_table(
        title, ("batch", "users a second", "95 %", "CPU ms a user", *names, "peak MB"), rows, numbers_from=0
    )
    say("\nCPU milliseconds a user, in all and by phase; memory above what the model holds")
    say(report["histories"])
    show_foot(report)


def _show_serve(report: dict[str, Any], users: Users) -> None:
    slo = report["slo_ms"]
    rows = []
    for one in report["trials"]:
        times = (one["latency_ms"][name] for name in ("p50", "p95", "p99", "p99.9"))
        answers = one["answers"]
        rows.append(
            (
                one["loop"] if one["planned_rate"] is None else f"{one['planned_rate']:.4g}",
                *("–" if time is None else f"{time['value']:.1f}" for time in times),
                f"{100 * one['within']:.1f} %",
                f"{one['achieved_rate']:.1f}",
                f"{one['shed']}/{one['timed_out']}/{one['failed']}",
                "–" if answers["validity"] is None else f"{100 * answers['validity']:.6g} %",
                "–" if answers["recall"] is None else f"{answers['recall']:.4f}",
                "–" if one["server_cpu_ms"] is None else f"{one['server_cpu_ms']:.1f}",
            )
        )
    open_loop = report["arrival"] != "closed"
    load = f"{report['arrival']} arrivals" if open_loop else "CLOSED LOOP: clients that wait for their answer"
    title = f"{load}, {report['trials'][0]['requests']:,} requests a row, k = {report['k']}: milliseconds"
    columns = (
        "a second" if open_loop else "clients",
        "p50",
        "p95",
        "p99",
        "p99.9",
        f"≤ {slo:g} ms",
        "answers/s",
    )
    more = ("shed/late/failed", "valid", f"recall@{report['k']}", "CPU ms")
    print_table(title, (*columns, *more), rows, numbers_from=1)
    say("")
    if open_loop:
        good, bad = report["goodput"], report["not_sustained"]
        say(
            f"goodput: {good:.4g} requests a second with 99 % within {slo:g} ms"
            + (f"; {bad:.4g} is too many" if bad else "; the highest rate tried, so it may be more")
            if good is not None
            else f"no rate that was tried kept 99 % within {slo:g} ms"
        )
    say(
        f"first request {report['cold_ms']:.0f} ms; –: the sample is too small for this percentile, see --requests"
    )
    errors: dict[str, int] = {}
    for one in report["trials"]:
        for name, count in one["answers"]["errors"].items():
            errors[name] = errors.get(name, 0) + count
    if errors:
        say("refusals: " + ", ".join(f"{count:,} times {name}" for name, count in errors.items()))
    if users.no_recall is not None:
        say(f"no recall: {users.no_recall}")
    say(f"{report['server']}; {report['histories']}")
    show_foot(report)
