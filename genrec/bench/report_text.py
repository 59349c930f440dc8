"""A report as Markdown: what was found in a few sentences, the plots, the tables, and what they stand on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from genrec.bench.decode import PHASE_WORDS, PHASES
from genrec.bench.machine import machine_line
from genrec.bench.percentiles import samples_for
from genrec.bench.report import markdown_table
from index.counted import counted

Report = Mapping[str, Any]


def report_markdown(report: Report, plots: Iterable[str]) -> str:
    """The whole text; ``plots`` are the names of the SVG files beside it."""
    drawn = set(plots)
    parts = [f"# {report['name']}: what it costs and what it finds", _findings(report)]
    for title, section, write, pictures in (
        ("Served", "serve", serve_table, ("latency-by-rate", "latency-tail")),
        ("One request", "decode", decode_table, ("latency-by-beam", "phases", "catalog-size")),
        ("Held-out items", "recall", recall_table, ("recall-by-latency",)),
        ("In batches", "offline", offline_table, ("throughput-by-batch",)),
    ):
        if report.get(section) is None:
            continue
        parts.append(f"## {title}")
        parts += [f"![{one.replace('-', ' ')}]({one}.svg)" for one in pictures if f"{one}.svg" in drawn]
        parts.append(write(report[section]))
    parts += ["## What this stands on", _circumstances(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def serve_table(serve: Report) -> str:
    """Every trial, what became of its requests, and what the percentiles needed."""
    rows = [
        (
            one["name"],
            one["sent"],
            *(_value(one["latency_ms"][name]) for name in ("p50", "p90", "p95", "p99", "p99.9")),
            "–" if one["within"] is None else f"{100 * one['within']:.1f} %",
            f"{one['achieved_rate']:.1f}",
            one["shed"],
            one["timed_out"],
            one["failed"],
            _share(one["answers"]["validity"]),
            "–" if one["server_cpu_ms"] is None else f"{one['server_cpu_ms']:.1f}",
        )
        for one in serve["trials"]
    ]
    header = (
        "load", "sent", "p50 ms", "p90", "p95", "p99", "p99.9", "in time", "answers/s", "shed", "timed out", "failed",
        "valid ids", "server CPU ms",
    )  # fmt: skip
    closed = "" if serve["arrival"] != "closed" else (
        "A closed loop: each client waits for its answer before it asks again. It says what the server can do, never "
        "what users wait. "
    )  # fmt: skip
    words = (
        f"{closed}Milliseconds from the planned moment, with 95 % intervals; in time: answered within "
        f"{serve['slo_ms']:g} ms, of those sent. A percentile the sample cannot support is refused (–): p99 needs "
        f"{samples_for(0.99):,} answers, p99.9 {samples_for(0.999):,}. Server: {serve['server']}. The first request "
        f"took {serve['cold_ms']:.0f} ms."
    )
    return f"{markdown_table(header, rows)}\n\n{words}"


def decode_table(decode: Report) -> str:
    """Every scenario with its phases."""
    rows = [
        (
            one["name"],
            _with(one["wall_ms"], "median"),
            _with(one["wall_ms"], "p95"),
            f"{one['cpu_ms']['mean']:.2f}",
            *(f"{one['phases'][phase]['cpu_ms']['mean']:.2f}" for phase in PHASES),
            f"{one['model_calls']:.1f}",
            f"{one['expansions']:.0f}",
            _share(one["certified_share"]),
        )
        for one in decode["scenarios"]
    ]
    header = ("", "median ms", "p95 ms", "CPU ms", *PHASES, "model calls", "prefixes", "proven")
    words = "; ".join(f"{phase}: {PHASE_WORDS[phase]}" for phase in PHASES)
    sources = dict.fromkeys(
        f"{one['items']:,} items: {one['items_from']}" for one in decode["scenarios"] if one["items"]
    )
    told = (
        f"One request at a time, {decode['requests']:,} requests a row, k = {decode['k']}, {decode['normalize']} "
        f"scores; a row varies one thing of {decode['base']}. Phases are mean CPU milliseconds: {words}."
    )
    if sources:
        told += f" Catalog sizes: {'; '.join(sources)}."
    return f"{markdown_table(header, rows)}\n\n{told}"


def offline_table(offline: Report) -> str:
    """Every batch size."""
    rows = [
        (
            one["batch"],
            f"{one['users_per_second']:.1f} ({'–'.join(f'{end:.1f}' for end in one['users_per_second_95'])})",
            f"{one['cpu_ms']:.2f}",
            "–" if one["peak_mb"] is None else f"{one['peak_mb']:.1f}",
        )
        for one in offline["batches"]
    ]
    table = markdown_table(("batch", "users a second", "CPU ms a user", "peak MB above the model"), rows)
    return (
        f"{table}\n\nBeam {offline['beam']}, k = {offline['k']}, {counted(offline['threads'], 'thread')}; "
        f"{offline['users']:,} users a row."
    )


def recall_table(recall: Report) -> str:
    """Every beam width."""
    k = recall["k"]
    rows = [
        (
            one["beam"],
            f"{one[f'recall@{k}']:.4f} ({one[f'recall@{k}_95'][0]:.4f}–{one[f'recall@{k}_95'][1]:.4f})",
            f"{one[f'ndcg@{k}']:.4f}",
            f"{one['widest_finds_more_95'][0]:+.4f} to {one['widest_finds_more_95'][1]:+.4f}",
        )
        for one in recall["beams"]
    ]
    table = markdown_table(("beam", f"recall@{k}", f"ndcg@{k}", "the widest finds more"), rows)
    return (
        f"{table}\n\n{recall['beams'][0]['cases']:,} held-out items, the same at every width; 95 % intervals."
    )


def _findings(report: Report) -> str:
    """The sentences somebody repeats."""
    said = []
    serve, decode = report.get("serve"), report.get("decode")
    if serve is not None:
        said += [_goodput(serve), _validity(serve)]
    if decode is not None:
        base = next(one for one in decode["scenarios"] if one["name"] == decode["base"])
        said.append(
            f"One request alone takes **{_with(base['wall_ms'], 'median')} ms** (median; {decode['base']}, "
            f"{decode['items']:,} items), {base['cpu_ms']['mean']:.1f} ms of CPU time."
        )
    offline = report.get("offline")
    if offline is not None:
        best = max(offline["batches"], key=lambda one: one["users_per_second"])
        said.append(
            f"In batches of {best['batch']} it answers **{best['users_per_second']:.0f} users a second**."
        )
    recall = report.get("recall")
    if recall is not None:
        k, last = recall["k"], recall["beams"][-1]
        said.append(f"Recall@{k} is {last[f'recall@{k}']:.4f} at beam {last['beam']}.")
    elif report.get("no_recall"):
        said.append(f"Recall was not measured: {report['no_recall']}.")
    return "\n".join(f"- {one}" for one in said)


def _goodput(serve: Report) -> str:
    limit = f"within {serve['slo_ms']:g} ms"
    if serve["arrival"] == "closed":
        return "The server was asked in a closed loop, which makes no goodput."
    if serve["goodput"] is None:
        return f"No rate that was tried kept 99 % of the requests {limit}."
    beyond = serve["not_sustained"]
    next_rate = f"(at {beyond:.3g} it does not)" if beyond else "(the highest rate tried)"
    shared = " Others were at work on the machine meanwhile: on a quiet one it may be more."
    return (
        f"One server answers **{serve['goodput']:.3g} requests a second** with 99 % of them {limit} {next_rate}."
        + (shared if serve["company"]["crowded"] else "")
    )


def _validity(serve: Report) -> str:
    answers = [one["answers"] for one in serve["trials"]]
    returned = sum(one["items_returned"] for one in answers)
    valid = sum(one["items_returned"] * (one["validity"] or 0.0) for one in answers)
    return (
        f"Of {returned:,} items returned {_share(valid / returned if returned else None)} are in the catalog."
    )


def _circumstances(report: Report) -> str:
    company = report["company"]
    others = (
        "the system does not say who else was at work"
        if company["other_cores"] is None
        else f"others used {company['other_cores']:.2f} cores, steal {100 * company['steal']:.1f} %"
    )
    crowded = (
        " **The machine was shared: read CPU times and ratios, not wall times.**"
        if company["crowded"]
        else ""
    )
    lines = [
        f"Made by `{report['command']}` in {company['seconds']:.0f} s.",
        f"Bundle {report['name']}, manifest {report['manifest_sha256'][:16]}, seed {report['seed']}; "
        f"{report['histories']}.",
        f"Machine: {machine_line(report['machine'])}; threads of the model: {report['threads']}; {others}.{crowded}",
    ]  # fmt: skip
    return "\n\n".join(line for line in lines if line)


def _value(percentile: Mapping[str, Any] | None) -> str:
    if percentile is None:
        return "–"
    return f"{percentile['value']:.1f} ({_bound(percentile['low'])}–{_bound(percentile['high'])})"


def _bound(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f}"


def _with(summary: Mapping[str, Any], field: str) -> str:
    """A percentile of a summary with its interval."""
    if summary[field] is None:
        return "–"
    low, high = summary[f"{field}_95"]
    return f"{summary[field]:.2f} ({'?' if low is None else f'{low:.2f}'}–{'?' if high is None else f'{high:.2f}'})"


def _share(value: float | None) -> str:
    """A percentage that says 100 only of all."""
    if value is None:
        return "–"
    return "100 %" if value == 1 else f"{min(100 * value, 99.99):.4g} %"
