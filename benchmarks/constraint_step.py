"""What does one decoding step's constraint cost: children, scores, filter and top-K, against peers that only mask?

Every engine gets the same prefixes and the same log-probabilities [rows, V]; no model runs. The prefixes are those
of a beam search where its beams are full (20 rows: one request, 140: two requests of 70), root
left out. Semantics:

    ours       the fused kernel: children, gather, beam scores added, filter, each request's best K, ended items apart
    catalog    the same and a log-softmax over every row's children first
    peers      mask: log-probabilities with -inf outside the catalog (STATIC: those of the children, padded)
    +select    a peer's mask, and the addition and top-K that ours includes

    sid_l4     100k items, 4 codes of 256, Zipf     sid_l8     100k items, 8 codes of 2,048, uniform
    titles     100k synthetic titles in a vocabulary of 128,000; with --titles spliced from real ones

A ratio is the peer's CPU time over ours, summed over the steps of the walk; median, least and most over rounds, in
which all engines take turns. All run on one thread, so on a quiet machine the ratio of wall times, given beside
it, is the same. ``filter_overhead`` is the largest extra share of a step's time (median over rounds) under filters
over 1M items that keep 50 %, 1 % and 0.01 %, at the prefixes each filtered search stands at.

``edge_ns`` is our cost per edge at 10k items and more; a catalog that fits no cache may at most double it.

Run: ``python -m benchmarks.constraint_step [--quick] [--json] [--static CHECKOUT] [--genre CHECKOUT] [--peers]
[--titles FILE ...]``. ``--peers`` adds what :mod:`benchmarks.text_grammars` measures of xgrammar, llguidance and
outlines-core, each where it is installed.
A full run writes ``benchmarks/results/constraint_step.{json,svg}``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.step_data import (
    TITLE_VOCABULARY,
    Stand,
    real_titles,
    stands,
    synthetic_titles,
    uniform_codes,
    zipf_codes,
)
from benchmarks.step_peers import DictTrie, MarisaTokens, Static, genre_tries, hugging_face, selecting
from benchmarks.text_grammars import text_grammars
from benchmarks.timing import Timing, race, ratio
from genrec.bench.machine import machine, machine_line
from genrec.bench.measurement import one_thread
from genrec.bench.report import last_line, markdown_table
from genrec.kernels import StepKernel, StepRules, step_kernel
from index.catalog import Catalog
from index.item_filter import Allowed
from index.item_rules import ItemRules
from index.trie import TokenTrie, build_trie
from index.types import Int64Array

RESULTS = Path(__file__).parent / "results"
ROWS = {20: (1, 20), 140: (2, 70)}  # requests, beams
KEPT = (0.5, 0.01, 0.0001)
Calls = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Workload:
    name: str
    vocabulary: int
    paths: Sequence[Sequence[int]]
    codes: Int64Array  # [N, L]; titles are padded with 0, their terminator
    dense: int  # STATIC's dense levels: two would need V² cells

    @staticmethod
    def make(name: str, items: int, sources: Sequence[Path] = ()) -> Workload:
        rng = np.random.default_rng(0)
        if name == "titles":
            paths = real_titles(items, sources, rng) if sources else synthetic_titles(items, rng)
            codes = np.zeros((items, max(map(len, paths))), np.int64)
            for row, path in enumerate(paths):
                codes[row, : len(path)] = path
            return Workload(name, TITLE_VOCABULARY, paths, codes, 1)
        codes = zipf_codes(items, rng) if name == "sid_l4" else uniform_codes(items, rng)
        return Workload(name, 256 if name == "sid_l4" else 2048, codes.tolist(), codes, 2)


def kernel_for(trie: TokenTrie, rows: int, catalog: bool, allowed: Allowed | None = None) -> StepKernel:
    requests, beams = ROWS[rows]
    limits = np.full(requests, beams)
    rules = StepRules(limits, limits, [allowed or Allowed()] * requests, np.zeros(requests, bool), catalog)
    return step_kernel(trie, rules)


def step_of(kernel: StepKernel, stand: Stand) -> Callable[[], Any]:
    return lambda: kernel.step(stand.request, stand.places, stand.score, stand.log_prob)


def total(timings: list[dict[str, Timing]], name: str) -> Timing | None:
    """One engine's walk: its steps together; None where it took no part in some."""
    if not all(name in one for one in timings) or not timings:
        return None
    result = timings[0][name]
    for one in timings[1:]:
        result = result + one[name]
    return result


def against_peers(work: Workload, rows: int, options: argparse.Namespace, rounds: int) -> dict[str, Any]:
    """All engines on one workload: milliseconds per step and ratios over the walk."""
    requests, beams = ROWS[rows]
    trie = build_trie(work.paths)
    engines: dict[str, Callable[[Stand], Callable[[], Any]]] = {}
    ours, catalog = kernel_for(trie, rows, catalog=False), kernel_for(trie, rows, catalog=True)
    engines["ours"] = lambda stand: step_of(ours, stand)
    engines["ours_catalog"] = lambda stand: step_of(catalog, stand)
    tries: dict[str, Any] = {"hf": DictTrie(work.paths), "marisa": MarisaTokens(work.paths)}
    if options.genre:
        tries |= genre_tries(options.genre, [list(path) for path in work.paths])
    for name, trie_of_peer in tries.items():
        engines[name] = lambda stand, one=trie_of_peer: hugging_face(one, stand, beams)
    engines["hf+select"] = lambda stand: selecting(engines["hf"](stand), stand, requests, beams)
    if options.static:
        static = Static(options.static, work.codes, work.vocabulary, work.dense)
        engines["static_eager"] = lambda stand: static.step(stand, compiled=False)
        if (
            work.name != "titles"
        ):  # every step has its shape, and each takes torch most of a minute to compile
            engines["static_compiled"] = lambda stand: static.step(stand, compiled=True)
    walk = stands(trie, work.vocabulary, requests, beams, np.random.default_rng(1))
    timings = []
    for stand in walk:
        calls: Calls = {name: make(stand) for name, make in engines.items()}
        timings.append(race(calls, rounds))
    mine = total(timings, "ours")
    assert mine is not None
    edges = [len(ours.edges(stand.places.node).row) for stand in walk]
    widest = int(np.argmax(edges))
    return {
        "workload": work.name,
        "rows": rows,
        "edges": edges,
        "ms": {name: [one[name].summary() for one in timings] for name in engines},
        "ratio": {name: ratio(total(timings, name), mine) for name in engines},
        "ratio_at_widest_step": {
            name: ratio(timings[widest][name], timings[widest]["ours"]) for name in engines
        },
    }


def cost_per_edge(sizes: Sequence[int], rounds: int) -> list[dict[str, float]]:
    """Our step at 140 rows over growing catalogs: nanoseconds an edge, the fixed cost of a call taken off."""
    report = []
    for items in sizes:
        begin = time.perf_counter()
        trie = build_trie(zipf_codes(items, np.random.default_rng(0)))
        kernel = kernel_for(trie, 140, catalog=False)
        walk = stands(trie, 256, *ROWS[140], np.random.default_rng(1))
        edges = sum(len(kernel.edges(stand.places.node).row) for stand in walk)
        nothing = Stand(
            0, *(_none(walk[0], field) for field in ("request", "places", "score", "prefix", "log_prob"))
        )
        steps = total([race({"step": step_of(kernel, stand)}, rounds) for stand in walk], "step")
        empty = race({"empty": step_of(kernel, nothing)}, rounds)["empty"]
        assert steps is not None
        spent = float(np.median(steps.cpu)) - len(walk) * float(np.median(empty.cpu))
        report.append(
            {
                "items": items,
                "edges": edges,
                "steps": len(walk),
                "ms_per_step": round(float(np.median(steps.cpu)) * 1e3 / len(walk), 5),
                "ns_per_edge": round(spent / edges * 1e9, 3),
                "call_us": round(float(np.median(empty.cpu)) * 1e6, 2),
                "prepared_s": round(time.perf_counter() - begin, 1),
            }
        )
    return report


def _none(stand: Stand, field: str) -> Any:
    value = getattr(stand, field)
    return value.take(slice(0)) if field == "places" else value[:0]


def filters(items: int, rounds: int) -> dict[str, Any]:
    """Preparing a filter over so many items, and what it adds to a step."""
    rng = np.random.default_rng(2)
    trie = build_trie(zipf_codes(items, np.random.default_rng(0)))
    catalog = Catalog(
        pl.DataFrame(
            {
                "item_id": [str(row) for row in range(items)],
                "title": ["x"] * items,
                "year": rng.integers(0, 10_000, items),
                "kind": rng.choice(["book", "film", "game", "song"], items),
            }
        )
    )
    rules = ItemRules(catalog, trie, cache_bytes=0)
    report: dict[str, Any] = {"items": items, "prepare_ms": {}, "overhead": {}}
    for where in ("year < 5000", 'kind == "film"', 'year < 100 and kind in ["film", "song"]'):
        rules.allowed(where)
        took = []
        for number in range(30):
            begin = time.perf_counter()
            rules.allowed(f"{where} and year >= {-1 - number}")  # never the filter of the time before
            took.append((time.perf_counter() - begin) * 1e3)
        report["prepare_ms"][where] = {
            "median": round(float(np.median(took)), 3),
            "min": round(min(took), 3),
            "max": round(max(took), 3),
        }
    for kept in KEPT:
        allowed = Allowed.build(rng.random(items) < kept)
        for rows in ROWS:
            plain, filtered = kernel_for(trie, rows, catalog=True), kernel_for(trie, rows, True, allowed)
            walk = stands(trie, 256, *ROWS[rows], np.random.default_rng(1), allowed)
            timings = [
                race({"plain": step_of(plain, stand), "filtered": step_of(filtered, stand)}, rounds)
                for stand in walk
            ]
            without = total(timings, "plain")
            if without is not None:
                more = ratio(total(timings, "filtered"), without)
                assert more is not None
                report["overhead"][f"{kept:.2%}, {rows} rows"] = {
                    key: round(value - 1, 3) for key, value in more.items()
                }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--static", type=Path, help="a checkout of youtube/static-constraint-decoding")
    parser.add_argument("--genre", type=Path, help="a checkout of facebookresearch/GENRE")
    parser.add_argument("--peers", action="store_true", help="xgrammar, llguidance, outlines-core as well")
    parser.add_argument("--titles", type=Path, nargs="+", default=[], help="JSON lines with a field 'title'")
    parser.add_argument("--quick", action="store_true", help="under five minutes; nothing is written")
    parser.add_argument("--json", action="store_true", help="only the last line")
    options = parser.parse_args()
    say: Callable[[str], None] = (lambda _: None) if options.json else print
    rounds = 5 if options.quick else 15
    described = machine()
    say(machine_line(described))
    plan = [("sid_l4", 20), ("sid_l4", 140), ("titles", 20)]
    if not options.quick:
        plan += [("titles", 140), ("sid_l8", 140)]
    report: dict[str, Any] = {"benchmark": "constraint_step", "machine": described, "workloads": []}
    report["titles"] = "spliced from real ones" if options.titles else "synthetic"
    with one_thread():
        for name in dict.fromkeys(name for name, _ in plan):
            work = Workload.make(name, 100_000, options.titles)
            for rows in (rows for other, rows in plan if other == name):
                report["workloads"].append(against_peers(work, rows, options, rounds))
                say(table_of(report["workloads"][-1]))
        sizes = (10_000, 100_000, 1_000_000) if options.quick else (10_000, 100_000, 1_000_000, 10_000_000)
        report["sizes"] = cost_per_edge(sizes, rounds)
        report["filters"] = filters(1_000_000, rounds)
        report["text_grammars"] = text_grammars(rounds) if options.peers else None
    report |= headline(report)
    say(json.dumps({key: report[key] for key in ("sizes", "filters", "text_grammars")}, indent=1))
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "constraint_step.json").write_text(json.dumps(report, indent=1) + "\n")
        plot(report, RESULTS / "constraint_step.svg")
    print(last_line(report))


def headline(report: dict[str, Any]) -> dict[str, Any]:
    """The figures other reports quote."""

    def of(rows: int, engine: str) -> float | None:
        (codes,) = (w for w in report["workloads"] if (w["workload"], w["rows"]) == ("sid_l4", rows))
        found = codes["ratio"].get(engine)
        return None if found is None else float(found["median"])

    widest = [
        w["ratio_at_widest_step"]["static_eager"]["median"]
        for w in report["workloads"]
        if w["workload"] == "titles" and "static_eager" in w["ratio_at_widest_step"]
    ]
    titles_at_widest = min(widest, default=None)  # the lesser of the widths
    return {
        "ratio_hf_rows20": of(20, "hf"),
        "ratio_hf_rows140": of(140, "hf"),
        "ratio_static_compiled_rows20": of(20, "static_compiled"),
        "ratio_static_compiled_rows140": of(140, "static_compiled"),
        "ratio_static_titles_widest": titles_at_widest,
        "edge_ns": {str(size["items"]): size["ns_per_edge"] for size in report["sizes"]},
        "ratio_edge_ns": round(report["sizes"][-1]["ns_per_edge"] / report["sizes"][0]["ns_per_edge"], 2),
        "filter_overhead": max(one["median"] for one in report["filters"]["overhead"].values()),
    }


def table_of(measured: dict[str, Any]) -> str:
    """One workload as a table: milliseconds of every step, ratio over the walk."""
    rows = []
    for name, steps in measured["ms"].items():
        found = measured["ratio"][name]
        rows.append(
            [
                name,
                *(f"{step['cpu_median_ms']:.4f}" for step in steps),
                f"{found['median']} ({found['min']}–{found['max']})",
                found["wall"],
            ]
        )
    header = [
        f"{measured['workload']}, {measured['rows']} rows: ms",
        *(f"{edges} edges" for edges in measured["edges"]),
        "ratio",
        "by wall time",
    ]
    return markdown_table(header, rows) + "\n"


def plot(report: dict[str, Any], path: Path) -> None:
    """Milliseconds of the whole walk, every engine, one panel a workload."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text: half the bytes
    mpl.rcParams["svg.hashsalt"] = "genrec"
    from matplotlib import pyplot

    panels = report["workloads"]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(3.2 * len(panels), 4), squeeze=False)
    for axis, measured in zip(axes[0], panels, strict=True):
        names = [name for name in measured["ms"] if not name.endswith("+select")]
        heights = [sum(step["cpu_median_ms"] for step in measured["ms"][name]) for name in names]
        axis.barh(names, heights, color=["tab:green" if n.startswith("ours") else "tab:gray" for n in names])
        axis.set_xscale("log")
        axis.invert_yaxis()
        axis.set_title(f"{measured['workload']}, {measured['rows']} rows", fontsize=9)
        axis.set_xlabel("ms for all steps of a walk")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
