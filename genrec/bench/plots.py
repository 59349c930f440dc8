"""The plots of a report, each an SVG text made of the numbers in ``report.json`` alone.

Every function draws one question and returns None where the report does not answer it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from genrec.bench.percentiles import BEYOND
from genrec.bench.plot_style import (
    BLUE,
    GREEN,
    GRID,
    INK,
    ORANGE,
    PAPER,
    PURPLE,
    QUIET,
    RED,
    SERIES,
    SKY,
    as_svg,
    canvas,
    label_ends,
    plain_log,
    plotting,
    short,
    width_of,
)
from index.counted import counted

Report = Mapping[str, Any]
_PHASES = {
    "prefill": (BLUE, "read the history"),
    "model": (SKY, "take up prefixes"),
    "head": (GREEN, "score codes"),
    "search": (ORANGE, "trie, filter, top-k"),
    "rest": (PURPLE, "ids and titles"),
}
_POINTS = 160  # of a distribution's line
_TAILS = {"p50": BLUE, "p95": ORANGE, "p99": PURPLE}


def plots(report: Report) -> dict[str, str]:
    """File name to SVG text, of every plot this report can fill.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    with plotting():
        drawn = {f"{name}.svg": draw(report) for name, draw in _DRAWERS.items()}
    return {name: text for name, text in drawn.items() if text is not None}


def latency_by_rate(report: Report) -> str | None:
    """Percentiles against the offered rate, the limit, and the goodput."""
    serve = report.get("serve") or {}
    trials = [one for one in serve.get("trials", ()) if one["planned_rate"] is not None]
    if len(trials) < 2:
        return None
    slo, requests = trials[0]["slo_ms"], trials[0]["requests"]
    figure, axes = canvas(
        "What users wait for, by how many come",
        f"{_arrivals(trials[0])}, {requests:,} requests a point; bands: 95 % intervals; hollow: under 99 % in time",
        "offered requests a second, timed from the planned moment",
        "milliseconds",
    )
    plain_log(axes, "y")
    ends = []
    for name, colour in _TAILS.items():
        points = [(one["planned_rate"], one["latency_ms"][name], one["sustained"]) for one in trials]
        known = [(rate, value, good) for rate, value, good in points if value is not None]
        if not known:
            continue
        rates = [rate for rate, _, _ in known]
        axes.fill_between(
            rates, [one["low"] for _, one, _ in known], [one["high"] for _, one, _ in known],
            color=colour, alpha=0.16, linewidth=0,
        )  # fmt: skip
        axes.plot(rates, [one["value"] for _, one, _ in known], color=colour, linewidth=1.8)
        for rate, one, good in known:
            axes.plot(
                rate, one["value"], "o", color=colour, markersize=5, markerfacecolor=colour if good else PAPER
            )
        if rates[-1] == trials[-1]["planned_rate"]:
            ends.append((rates[-1], known[-1][1]["value"], name, colour))
        else:  # too few answers beyond for this percentile
            axes.annotate(
                name, (rates[-1], known[-1][1]["value"]), xytext=(-7, 7), textcoords="offset points", ha="right",
                color=colour, fontsize=8.5, fontweight="bold",
            )  # fmt: skip
    axes.set_xlim(0, max(one["planned_rate"] for one in trials) * 1.02)
    low, high = axes.get_ylim()
    axes.set_ylim(low * 0.8, max(high, slo * 1.6))
    axes.axhline(slo, color=RED, linewidth=1.2, linestyle=(0, (5, 3)))
    ends.append((axes.get_xlim()[1], slo, f"limit {slo:g} ms", RED))
    if serve["goodput"] is not None:
        axes.axvline(serve["goodput"], color=GREEN, linewidth=1.2, linestyle=(0, (1, 2)))
        axes.annotate(
            f"goodput {serve['goodput']:.3g} a second ", (serve["goodput"], 0.03), xycoords=("data", "axes fraction"),
            ha="right" if serve["goodput"] > axes.get_xlim()[1] / 3 else "left", color=GREEN, fontsize=8.5,
            fontweight="bold",
        )  # fmt: skip
    for one in trials:
        lost = 1 - one["answered"] / max(one["sent"], 1)
        if lost >= 0.005:
            axes.annotate(
                f"{100 * lost:.0f} % refused", (one["planned_rate"], 1.01), xycoords=("data", "axes fraction"),
                ha="center", va="bottom", color=QUIET, fontsize=7.5, annotation_clip=False,
            )  # fmt: skip
    label_ends(axes, ends)
    return as_svg(figure, "Latency percentiles against the offered rate, with the limit and the goodput")


def latency_tail(report: Report) -> str | None:
    """Share of requests that wait longer than so long, at a low rate, at the goodput, and beyond it."""
    trials = [one for one in (report.get("serve") or {}).get("trials", ()) if one["samples"]["wall_ms"]]
    if not trials:
        return None
    good = [one for one in trials if one["sustained"]]
    middle = good[-1] if good else trials[len(trials) // 2]
    shown = {one["name"]: one for one in (trials[0], middle, trials[-1])}
    figure, axes = canvas(
        "How long the slowest wait",
        f"{_arrivals(trials[0])}; lines end where fewer than {BEYOND} requests are left; refused ones wait for ever",
        "milliseconds from the planned moment",
        "share of requests that wait longer",
        labels_need=0.2,
    )  # fmt: skip
    plain_log(axes, "x")
    axes.set_yscale("log")
    ends = []
    for colour, one in zip(SERIES, shown.values(), strict=False):
        ordered = np.sort(one["samples"]["wall_ms"])
        sent = max(one["sent"], 1)
        last = len(ordered) - max(0, BEYOND - (sent - len(ordered)))
        if last < 2:
            continue
        # Evenly along the curve as it is drawn: most points where few requests are left.
        left = np.geomspace(sent, max(sent - last, 1), _POINTS)
        places = np.unique(np.clip(sent - left, 0, last - 1).astype(int))
        share = 1 - (places + 1) / sent
        axes.plot(ordered[places], share, color=colour, linewidth=1.8)
        rate = one["planned_rate"]
        text = one["loop"] if rate is None else f"{rate:.3g} a second"
        ends.append((float(ordered[places[-1]]), float(share[-1]), text, colour))
    slo = trials[0]["slo_ms"]
    ticks = {0.5: "50 %  p50", 0.1: "10 %  p90", 0.01: "1 %  p99", 0.001: "0.1 %  p99.9"}
    lowest = min(end[1] for end in ends) if ends else 0.01
    kept = [share for share in ticks if share >= lowest * 0.8]
    axes.set_yticks(kept, [ticks[share] for share in kept])
    axes.minorticks_off()
    axes.set_ylim(min(lowest, kept[-1]) * 0.7, 1.15)
    axes.axvline(slo, color=RED, linewidth=1.2, linestyle=(0, (5, 3)))
    axes.annotate(
        f" limit {slo:g} ms", (slo, 1.0), xycoords=("data", "axes fraction"), color=RED, fontsize=8.5,
        fontweight="bold", va="bottom", ha="center", annotation_clip=False,
    )  # fmt: skip
    box = axes.get_position()
    axes.set_position((box.x0 + 0.05, box.y0, box.width - 0.05, box.height))
    label_ends(axes, ends, falling=True)
    return as_svg(figure, "Share of requests that wait longer than a time, on logarithmic scales")


def latency_by_beam(report: Report) -> str | None:
    """Median and p95 of one request against the beam width."""
    rows = _beams(report)
    if len(rows) < 2:
        return None
    decode = report["decode"]
    figure, axes = canvas(
        "What a wider beam costs",
        f"one request at a time over {decode['items']:,} items, k = {decode['k']}; "
        f"{rows[0]['wall_ms']['count']:,} requests a point; bands: 95 % intervals",
        "beam width",
        "milliseconds",
    )  # fmt: skip
    plain_log(axes, "x")
    beams = [one["beam"] for one in rows]
    axes.set_xticks(beams, [str(one) for one in beams])
    ends = []
    for clock, field, text, colour in (
        ("wall_ms", "median", "median", BLUE),
        ("wall_ms", "p95", "p95", ORANGE),
        ("cpu_ms", "median", "median CPU", GREEN),
    ):
        values = [one[clock][field] for one in rows]
        if None in values:
            continue
        bounds = [one[clock][f"{field}_95"] for one in rows]
        if all(None not in one for one in bounds):
            axes.fill_between(
                beams, [one[0] for one in bounds], [one[1] for one in bounds], color=colour, alpha=0.16, linewidth=0
            )  # fmt: skip
        axes.plot(beams, values, "o-", color=colour, linewidth=1.8, markersize=5)
        ends.append((beams[-1], values[-1], text, colour))
    axes.set_ylim(0)
    label_ends(axes, ends)
    return as_svg(figure, "Median and p95 latency of one request against the beam width")


def phases(report: Report) -> str | None:
    """Where the time of one request goes, as stacked bars."""
    rows = [one for one in (report.get("decode") or {}).get("scenarios", ()) if _is_simple(one)]
    if not rows:
        return None
    figure, axes = canvas(
        "Where the time goes",
        f"mean CPU time of one request; all but one thing as in '{report['decode']['base']}'",
        "milliseconds of CPU time",
        "",
        labels_need=0.06,
    )
    figure.set_size_inches(7.4, 1.9 + 0.24 * len(rows))
    height = figure.get_figheight()
    axes.set_position((0.17, 0.52 / height, 0.76, 1 - 1.55 / height))
    texts = figure.texts
    for text, inches in zip(texts, (0.25, 0.5, 0.8), strict=True):
        text.set_y(1 - inches / height)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    places = np.arange(len(rows))[::-1]
    left = np.zeros(len(rows))
    for name, (colour, _) in _PHASES.items():
        widths = np.array([one["phases"][name]["cpu_ms"]["mean"] for one in rows])
        axes.barh(places, widths, left=left, height=0.68, color=colour, linewidth=0)
        left += widths
    for place, whole in zip(places, left, strict=True):
        axes.annotate(
            f"{whole:.1f}", (whole, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8,
            color=INK,
        )  # fmt: skip
    axes.set_yticks(places, [one["name"] for one in rows], color=INK)
    axes.set_xlim(0, left.max() * 1.08)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    begin = 0.022
    for colour, words in _PHASES.values():
        figure.text(begin, 1 - 0.8 / height, "■", color=colour, fontsize=10, va="center")
        figure.text(begin + 0.021, 1 - 0.8 / height, words, color=INK, fontsize=8.5, va="center")
        begin += 0.05 + width_of(words, 8.5)
    return as_svg(figure, "CPU time of one request by phase, stacked, for every scenario")


def recall_by_latency(report: Report) -> str | None:
    """Recall against the median time, one point a beam width; CPU time where the machine was shared."""
    front = (report.get("recall") or {}).get("beams", ())
    rows = {one["beam"]: one for one in _beams(report)}
    points = [(rows[one["beam"]], one) for one in front if one["beam"] in rows]
    if len(points) < 2:
        return None
    k, crowded = report["decode"]["k"], report["decode"]["company"]["crowded"]
    figure, axes = canvas(
        "What waiting longer finds",
        f"{points[0][1]['cases']:,} held-out items; bars: 95 % interval of the gap to the widest beam, user by user",
        "milliseconds of CPU time, median" if crowded else "milliseconds, median",
        f"recall@{k}",
        labels_need=0.12,
    )
    x = [row["cpu_ms" if crowded else "wall_ms"]["median"] for row, _ in points]
    y = [one[f"recall@{k}"] for _, one in points]
    gaps = np.array([one["widest_finds_more_95"] for _, one in points])  # [beams, 2]
    low, high = y[-1] - gaps[:, 1], y[-1] - gaps[:, 0]
    axes.vlines(x, low, high, color=BLUE, linewidth=6, alpha=0.2)
    axes.plot(x, y, "o-", color=BLUE, linewidth=1.8, markersize=6)
    margin = max(0.25 * float(high.max() - low.min()), 0.03 * max(y), 1e-4)
    axes.set_ylim(float(low.min()) - margin, float(high.max()) + margin)
    reach = max(max(x) - min(x), 0.05 * max(x))
    axes.set_xlim(min(x) - 0.12 * reach, max(x) + 0.12 * reach)
    for place, (time, value, (_, one)) in enumerate(zip(x, y, points, strict=True)):
        axes.annotate(
            f"beam {one['beam']}", (time, value), xytext=(0, 12 if place % 2 else -14), textcoords="offset points",
            fontsize=8.5, fontweight="bold", color=BLUE, ha="center", va="center",
        )  # fmt: skip
    return as_svg(figure, "Recall against latency, one point for every beam width")


def catalog_size(report: Report) -> str | None:
    """Time of the model and of the trie against the number of items."""
    decode = report.get("decode") or {}
    rows = [one for one in decode.get("scenarios", ()) if one["items"] and "history" not in one["name"]]
    if len(rows) < 2:
        return None
    rows = sorted(rows, key=lambda one: one["items"])
    figure, axes = canvas(
        "What a larger catalog costs",
        f"one request, {decode['base']}; fewer items: a random part of the catalog, more: invented ones beside it",
        "items",
        "milliseconds of CPU time, mean",
        labels_need=0.22,
    )
    plain_log(axes, "x", base=(1,))
    items = [one["items"] for one in rows]
    series: tuple[tuple[str, str, Callable[[Mapping[str, Any]], float]], ...] = (
        ("whole request", BLUE, lambda one: float(one["cpu_ms"]["mean"])),
        ("trie, filter, top-k", ORANGE, lambda one: _phase(one, "search")),
        ("take up prefixes", PURPLE, lambda one: _phase(one, "model")),
        ("score codes", GREEN, lambda one: _phase(one, "head")),
    )
    ends = []
    for text, colour, value in series:
        heights = [value(one) for one in rows]
        axes.plot(items, heights, "o-", color=colour, linewidth=1.8, markersize=5)
        ends.append((items[-1], heights[-1], text, colour))
    axes.set_ylim(0)
    if decode["items"] in items:
        axes.axvline(decode["items"], color=QUIET, linewidth=1, linestyle=(0, (1, 2)), zorder=0)
        axes.annotate(
            "this catalog", (decode["items"], 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom",
            fontsize=8, color=QUIET, annotation_clip=False,
        )  # fmt: skip
    label_ends(axes, ends)
    return as_svg(figure, "CPU time of one request and of its parts against the number of items")


def throughput_by_batch(report: Report) -> str | None:
    """Users a second against how many are searched together."""
    offline = report.get("offline") or {}
    rows = offline.get("batches", ())
    if len(rows) < 2:
        return None
    figure, axes = canvas(
        "Users a second when nobody waits",
        f"beam {offline['beam']}, {counted(offline['threads'], 'thread')}; {offline['users']:,} users a point; "
        f"bars: 95 % intervals",
        "requests in a batch",
        "users a second",
        labels_need=0.06,
    )  # fmt: skip
    plain_log(axes, "x")
    batches = [one["batch"] for one in rows]
    axes.set_xticks(batches, [str(one) for one in batches])
    values = [one["users_per_second"] for one in rows]
    axes.vlines(
        batches,
        *np.array([one["users_per_second_95"] for one in rows]).T,
        color=BLUE,
        linewidth=1.2,
        alpha=0.5,
    )
    axes.plot(batches, values, "o-", color=BLUE, linewidth=1.8, markersize=6)
    for batch, value, one in zip(batches, values, rows, strict=True):
        axes.annotate(
            short(round(value)), (batch, one["users_per_second_95"][1]), xytext=(0, 7), textcoords="offset points",
            ha="center", fontsize=8.5, fontweight="bold", color=BLUE,
        )  # fmt: skip
    axes.set_ylim(0, max(values) * 1.2)
    return as_svg(figure, "Users a second against the batch size")


_DRAWERS: dict[str, Callable[[Report], str | None]] = {
    "latency-by-rate": latency_by_rate,
    "latency-tail": latency_tail,
    "latency-by-beam": latency_by_beam,
    "recall-by-latency": recall_by_latency,
    "phases": phases,
    "catalog-size": catalog_size,
    "throughput-by-batch": throughput_by_batch,
}


def _arrivals(trial: Mapping[str, Any]) -> str:
    return {
        "poisson": "Poisson arrivals",
        "constant": "evenly spaced arrivals (easier than users are)",
        "gamma": "bursty arrivals (gamma)",
    }.get(trial["loop"], f"closed loop ({trial['loop']}): not what users meet")


def _beams(report: Report) -> list[Mapping[str, Any]]:
    """The rows that vary the beam alone, narrowest first."""
    rows = (report.get("decode") or {}).get("scenarios", ())
    return sorted((one for one in rows if one["name"] == f"beam {one['beam']}"), key=lambda one: one["beam"])


def _is_simple(row: Mapping[str, Any]) -> bool:
    """Varies one thing, and goes no further than a usual search: a proof may take a hundred times as long."""
    return not row["exact"] and not row["items"] and ", history" not in row["name"]


def _phase(row: Mapping[str, Any], name: str) -> float:
    return float(row["phases"][name]["cpu_ms"]["mean"])
