"""How fast is a catalog compiled into a trie, how large is it on disk and in memory, how soon is it open?

``sid_l4``: Zipf-skewed codes of 4 levels by 256. ``sid_l8``: uniform codes of 8 levels by 2,048. ``titles``: token
paths of mixed lengths in a vocabulary of 128,000. Everything is counted: nodes, item ranges, whole paths, and both
directions between items and ranks. Peers in the same run: a trie of dicts and marisa-trie, up to 100k items (their
memory is that of the process, so only their build time is given).

    items/s     build_trie from an int array (titles: from lists of token ids), one process
    MB          bytes of all arrays, 1 MB = 10^6 bytes
    open        load from the saved directory (memory-mapped), and the first step from the root

Run: ``python -m benchmarks.index_build [--quick] [--json]``. A full run goes to 10M items, takes some minutes and
writes ``benchmarks/results/index_build.{json,svg}``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.step_data import synthetic_titles, uniform_codes, zipf_codes
from benchmarks.step_peers import DictTrie, MarisaTokens
from genrec.bench.machine import machine, machine_line
from genrec.bench.measurement import Spread, one_thread, run
from genrec.bench.report import last_line, markdown_table
from index.trie import ARRAY_NAMES, TokenTrie, build_trie
from index.types import IntArray
from index.walk import TrieWalk

RESULTS = Path(__file__).parent / "results"
MAKE: dict[str, Callable[[int, np.random.Generator], Any]] = {
    "sid_l4": zipf_codes,
    "sid_l8": uniform_codes,
    "titles": synthetic_titles,
}
PEERS_UP_TO = 100_000  # a million items are a gigabyte of dicts


def measure(shape: str, items: int, repeats: int) -> dict[str, Any]:
    """Build, save and open one catalog."""
    paths = MAKE[shape](items, np.random.default_rng(0))
    runs = [run(lambda: build_trie(paths)) for _ in range(repeats)]
    trie = runs[0].result
    rate = Spread.of([items / one.wall for one in runs])
    cpu_rate = Spread.of([items / one.cpu for one in runs])
    opened, first_step = opening(trie, max(5, repeats))
    peers = {}
    if items <= PEERS_UP_TO:
        rows = paths.tolist() if isinstance(paths, np.ndarray) else paths
        peers = {
            name: round(run(lambda make=make: make(rows)).cpu, 3)  # type: ignore[misc]
            for name, make in (("dict_trie", DictTrie), ("marisa", MarisaTokens))
        }
    return {
        "shape": shape,
        "items": items,
        "nodes": trie.nodes,
        "items_per_second": round(rate.median),
        "items_per_second_quartiles": [round(rate.low), round(rate.high)],
        "items_per_cpu_second": round(cpu_rate.median),
        "build_peak_mb": None if runs[0].peak_mb is None else round(runs[0].peak_mb),
        "mb": round(trie.nbytes / 1e6, 3),
        "mb_per_million": round(trie.nbytes / items, 2),
        "bytes_per_item": {name: round(array.nbytes / items, 2) for name, array in trie.arrays().items()},
        "open_ms": round(opened.median * 1e3, 3),
        "first_step_ms": round(first_step.median * 1e3, 3),
        "build_cpu_s": {"ours": round(float(np.median([one.cpu for one in runs])), 4), **peers},
    }


def opening(trie: TokenTrie, repeats: int) -> tuple[Spread, Spread]:
    """Seconds to map a saved trie, and to list the root's children on the fresh map (pages are warm)."""
    opened, first = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, array in trie.arrays().items():
            np.save(Path(folder) / f"{name}.npy", array, allow_pickle=False)
        for _ in range(repeats):
            begin = time.perf_counter()
            mapped = TokenTrie(**{name: _mapped(Path(folder) / f"{name}.npy") for name in ARRAY_NAMES})
            opened.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            walk = TrieWalk(mapped)
            walk.children(walk.root(1))
            first.append(time.perf_counter() - begin)
            del mapped, walk
    return Spread.of(opened), Spread.of(first)


def _mapped(path: Path) -> IntArray:
    array: IntArray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="up to 1M items; nothing is written")
    parser.add_argument("--json", action="store_true", help="only the last line")
    options = parser.parse_args()
    say: Callable[[str], None] = (lambda _: None) if options.json else print
    described = machine()
    say(machine_line(described))
    sizes: Sequence[int] = (100_000, 1_000_000) if options.quick else (10_000, 100_000, 1_000_000, 10_000_000)
    cells = []
    with one_thread():
        for shape in MAKE:
            for items in sizes:
                if shape == "titles" and items > 1_000_000:
                    continue  # ten million Python lists say nothing of the trie
                cells.append(measure(shape, items, 3 if items >= 1_000_000 else 7))
                say(json.dumps(cells[-1]))
    say(table_of(cells))
    report = {"benchmark": "index_build", "machine": described, "cells": cells} | headline(cells)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "index_build.json").write_text(json.dumps(report, indent=1) + "\n")
        plot(cells, RESULTS / "index_build.svg")
    print(last_line(report))


def headline(cells: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The figures other reports quote, all at a million items."""

    def at_million(shape: str, key: str) -> float:
        return float(next(c[key] for c in cells if (c["shape"], c["items"]) == (shape, 1_000_000)))

    return {
        "items_per_second": at_million("sid_l4", "items_per_second"),
        "items_per_cpu_second": at_million("sid_l4", "items_per_cpu_second"),
        "mb_per_million_4": at_million("sid_l4", "mb_per_million"),
        "mb_per_million_8": at_million("sid_l8", "mb_per_million"),
    }


def table_of(cells: Sequence[dict[str, Any]]) -> str:
    """All sizes of all shapes."""
    keys = (
        "items",
        "nodes",
        "items_per_second",
        "items_per_cpu_second",
        "build_peak_mb",
        "mb_per_million",
        "open_ms",
        "first_step_ms",
    )
    return markdown_table(["shape", *keys], [[cell["shape"], *(cell[key] for key in keys)] for cell in cells])


def plot(cells: Sequence[dict[str, Any]], path: Path) -> None:
    """Build rate and size over the number of items."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text: half the bytes
    mpl.rcParams["svg.hashsalt"] = "genrec"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3.5))
    for axis, key, label in (
        (axes[0], "items_per_second", "items built per second"),
        (axes[1], "mb_per_million", "MB per million items"),
    ):
        for shape in MAKE:
            mine = [cell for cell in cells if cell["shape"] == shape]
            axis.plot([cell["items"] for cell in mine], [cell[key] for cell in mine], "o-", label=shape)
        axis.set_xscale("log")
        axis.set_xlabel("items")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
