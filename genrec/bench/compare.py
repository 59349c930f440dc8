"""Two reports of the same question side by side: ratios with intervals, and which of them chance does not explain.

A ratio is that of medians, second over first: below 1 the second is faster. Its interval comes from resampling the
requests of both runs (:mod:`genrec.bench.bootstrap`): in pairs where both asked the same users in the same order, in
blocks of neighbours where requests waited in one queue. Many rows are compared at once, so what is called significant
is held to Holm's correction (1979): one chance finding in twenty comparisons of two equal runs, not one in each.

The intervals hold what varies between the requests of a run. What varies between runs (a machine that was warmer,
busier or another one) is in no single run: repeat both, and read the flags.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from genrec.bench.bootstrap import block_draws, draws
from index.errors import RequestError
from index.types import Float64Array, Int64Array

Report: TypeAlias = Mapping[str, Any]
Pairing: TypeAlias = Literal["pairs", "apart", "blocks"]
RESAMPLES = 2000
LEVEL = 0.05  # of all rows together
ROWS = {"decode": "scenarios", "offline": "batches", "serve": "trials"}
"""By benchmark, where its rows are. A row has a name and samples in milliseconds."""
_QUESTION = {
    "decode": ("k", "items", "normalize", "histories"),
    "offline": ("k", "beam", "items", "normalize", "histories"),
    "serve": ("k", "beam", "items", "histories", "slo_ms", "arrival"),
}
"""By benchmark, what must agree for two reports to have asked the same."""
_SETTING = ("manifest_sha256", "threads", "seed", "decoder", "prompt_cache_mb")
_HARDWARE = ("cpu", "cores", "memory_gb", "system")


@dataclass(frozen=True, slots=True)
class RatioRow:
    """One figure of both reports."""

    name: str
    clock: str  # "wall_ms" or "cpu_ms"
    first: float  # median, milliseconds
    second: float
    ratio: float  # second over first
    low: float  # 95 % interval of the ratio
    high: float
    p: float  # two-sided, before correction
    significant: bool  # after Holm's correction over all rows

    @property
    def verdict(self) -> str:
        """In words."""
        if not self.significant:
            return "no difference shown"
        return "faster" if self.ratio < 1 else "slower"


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows two reports share."""

    benchmark: str
    pairing: Pairing
    rows: tuple[RatioRow, ...]
    only_first: tuple[str, ...]  # rows the other does not have
    only_second: tuple[str, ...]
    flags: tuple[str, ...]  # what else differs, or makes the figures doubtful

    def as_json(self) -> dict[str, Any]:
        """For a report."""
        return {
            "benchmark": "compare",
            "of": self.benchmark,
            "pairing": self.pairing,
            "rows": [
                {
                    "name": one.name,
                    "clock": one.clock,
                    "first_ms": round(one.first, 4),
                    "second_ms": round(one.second, 4),
                    "ratio": round(one.ratio, 4),
                    "ratio_95": [round(one.low, 4), round(one.high, 4)],
                    "p": float(f"{one.p:.3g}"),
                    "significant": one.significant,
                    "verdict": one.verdict,
                }
                for one in self.rows
            ],
            "only_first": list(self.only_first),
            "only_second": list(self.only_second),
            "flags": list(self.flags),
        }


def compare(first: Report, second: Report, seed: int = 0) -> Comparison:
    """Compare two reports that ``genrec bench decode | offline | serve`` wrote.

    Raises:
        RequestError: they did not ask the same question, or have no row in common; says what differs.
    """
    benchmark = _same_question(first, second)
    ours, theirs = ({row["name"]: row["samples"] for row in one[ROWS[benchmark]]} for one in (first, second))
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise RequestError(
            f"expected reports with rows in common, got {', '.join(map(repr, ours))} and "
            f"{', '.join(map(repr, theirs))}" + _rates_of(first if benchmark == "serve" else {})
        )
    pairing = _pairing(benchmark, first, second)
    raw = [
        (name, clock, *_ratio(ours[name][clock], theirs[name][clock], pairing, seed))
        for name in shared
        for clock in ours[name]
        if clock in theirs[name] and ours[name][clock] and theirs[name][clock]
    ]
    significant = holm([row[-1] for row in raw])
    rows = tuple(RatioRow(*row, significant=one) for row, one in zip(raw, significant, strict=True))
    return Comparison(
        benchmark=benchmark,
        pairing=pairing,
        rows=rows,
        only_first=tuple(name for name in ours if name not in theirs),
        only_second=tuple(name for name in theirs if name not in ours),
        flags=tuple(_flags(first, second)),
    )


def ratio_of_medians(
    first: Float64Array, second: Float64Array, pairing: Pairing, seed: int = 0
) -> tuple[Float64Array, float]:
    """float64[RESAMPLES]: second median over first median of each resample; and that of the samples themselves."""
    ratio = float(np.median(second) / np.median(first))
    places = _draws(len(first), pairing, seed)
    others = places if pairing == "pairs" else _draws(len(second), pairing, seed + 1)
    drawn = np.median(second[others], axis=1) / np.median(first[places], axis=1)
    return np.asarray(drawn, np.float64), ratio


def holm(p: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which of these hypotheses fall when all of them together may fall by chance in ``level`` of the cases."""
    fallen = [False] * len(p)
    for rank, place in enumerate(sorted(range(len(p)), key=lambda one: p[one])):
        if p[place] > level / (len(p) - rank):
            break
        fallen[place] = True
    return fallen


def _ratio(
    first: Sequence[float], second: Sequence[float], pairing: Pairing, seed: int
) -> tuple[float, float, float, float, float, float]:
    """Medians, ratio, low, high, p."""
    ours, theirs = np.asarray(first, np.float64), np.asarray(second, np.float64)
    drawn, ratio = ratio_of_medians(ours, theirs, pairing, seed)
    low, high = np.quantile(drawn, (0.025, 0.975))
    spread = float(np.log(drawn).std())
    # Normal on the log scale: a ratio's resamples are skewed, their logarithms hardly.
    p = math.erfc(abs(math.log(ratio)) / spread / math.sqrt(2)) if spread > 0 else float(ratio == 1)
    return float(np.median(ours)), float(np.median(theirs)), ratio, float(low), float(high), p


def _draws(count: int, pairing: Pairing, seed: int) -> Int64Array:
    return (block_draws if pairing == "blocks" else draws)(count, seed, RESAMPLES)


def _pairing(benchmark: str, first: Report, second: Report) -> Pairing:
    if benchmark == "serve":
        return "blocks"
    requests = "requests" if benchmark == "decode" else "users"
    same = all(first.get(name) == second.get(name) for name in ("seed", requests))
    return "pairs" if same else "apart"


def _same_question(first: Report, second: Report) -> str:
    kinds = [str(one.get("benchmark")) for one in (first, second)]
    if kinds[0] != kinds[1] or kinds[0] not in ROWS:
        raise RequestError(
            f"expected two reports of one benchmark among {', '.join(ROWS)}, got {kinds[0]!r} and {kinds[1]!r}"
        )
    differing = [
        f"{name} {first.get(name)!r} and {second.get(name)!r}"
        for name in _QUESTION[kinds[0]]
        if first.get(name) != second.get(name)
    ]
    if differing:
        raise RequestError(
            f"expected two answers to the same question, got reports that differ in {'; '.join(differing)}; "
            f"measure both alike"
        )
    return kinds[0]


def _rates_of(report: Report) -> str:
    rates = [f"{one['planned_rate']:g}" for one in report.get("trials", ()) if one.get("planned_rate")]
    return f"; measure the second with --rates {','.join(rates)}" if rates else ""


def _flags(first: Report, second: Report) -> list[str]:
    flags = []
    for name in _HARDWARE:
        ours, theirs = first["machine"].get(name), second["machine"].get(name)
        if ours != theirs:
            flags.append(
                f"different hardware: {name} {ours} and {theirs}; ratios say as much of it as of genrec"
            )
    for name, ours in first["machine"].items():
        theirs = second["machine"].get(name)
        if name not in (*_HARDWARE, "load_average") and ours != theirs:
            flags.append(f"different software: {name} {ours} and {theirs}")
    for name in _SETTING:
        if first.get(name) != second.get(name):
            ours, theirs = (str(one.get(name))[:16] for one in (first, second))
            flags.append(f"different {name}: {ours} and {theirs}")
    for word, report in (("first", first), ("second", second)):
        company = report.get("company") or {}
        if company.get("crowded"):
            flags.append(
                f"the {word} shared its machine (others used {company['other_cores']:.2f} cores, steal "
                f"{100 * company['steal']:.1f} %): read its CPU times, not its wall times"
            )
    return flags
