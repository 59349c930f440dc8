"""What does the history prior cost a request, and does that stay the same in a catalog of a million items?

Processor time on one thread, over validation users of a bundle that has a prior: its shares alone, and whole
searches with it and without, request by request and in batches. Then the shares of a made-up catalog of a million
items, whose lists are as long as they get.

Run: ``python -m benchmarks.history_prior BUNDLE INTERACTIONS [--users N] [--json]``. The last line is JSON with
``--json``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from genrec.bench.machine import machine, machine_line
from genrec.bench.measurement import one_thread
from genrec.bench.report import last_line
from genrec.bundle import load_bundle
from genrec.history_prior import FOLLOWERS, NEIGHBOURS, HistoryPrior, NeighbourLists
from genrec.recommender import Recommender
from genrec.wishes import Wishes
from index.histories import leave_one_out
from index.history_readers import read_interactions

BATCH = 64
MILLION = 1_000_000
DIMENSION = 384  # of MiniLM's texts


def cpu_ms(call: Callable[[list[Any]], object], histories: list[Any], batch: int) -> float:
    """Milliseconds of processor time per history, after one batch to warm up."""
    call(histories[:batch])
    begin = time.process_time()
    for start in range(0, len(histories), batch):
        call(histories[start : start + batch])
    return 1000 * (time.process_time() - begin) / len(histories)


def large_prior(rng: np.random.Generator) -> HistoryPrior:
    """A million items with full lists."""
    lists = NeighbourLists(
        np.arange(MILLION + 1) * FOLLOWERS,
        rng.integers(0, MILLION, MILLION * FOLLOWERS, dtype=np.int32),
        rng.random(MILLION * FOLLOWERS, dtype=np.float32),
        np.arange(MILLION + 1) * NEIGHBOURS,
        rng.integers(0, MILLION, MILLION * NEIGHBOURS, dtype=np.int32),
    )
    text = rng.standard_normal((MILLION, DIMENSION), dtype=np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return HistoryPrior(lists, text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("interactions", type=Path)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--json", action="store_true", help="print one JSON object, last")
    chosen = parser.parse_args()
    one_thread()
    print(machine_line(machine()), flush=True)
    bundle = load_bundle(chosen.bundle)
    if bundle.prior is None:
        parser.error(f"expected a bundle with a history prior, got {chosen.bundle}; train it again")
    recommender = Recommender.of_bundle(bundle)
    cases = leave_one_out(
        read_interactions(chosen.interactions, bundle.index.catalog).histories, "validation"
    )
    rng = np.random.default_rng(0)
    picked = rng.choice(len(cases), min(chosen.users, len(cases)), replace=False).tolist()
    histories = [cases.history_of(case) for case in picked]
    report: dict[str, Any] = {"users": len(histories), "items": len(bundle.index.catalog), "cpu_ms": {}}
    ways: dict[str, Callable[[list[Any]], object]] = {
        "shares": bundle.prior.shares,
        "without": lambda some: recommender.search_rows(some, Wishes(prior="none")),
        "with": lambda some: recommender.search_rows(some, Wishes()),
    }
    for batch in (1, BATCH):
        for name, way in ways.items():
            report["cpu_ms"][f"{name}, batch {batch}"] = round(cpu_ms(way, histories, batch), 3)
    lengths = [len(one) for one in histories]
    large = large_prior(rng)
    made_up = [rng.integers(0, MILLION, length) for length in lengths]
    report["cpu_ms"]["shares of a million items, batch 64"] = round(cpu_ms(large.shares, made_up, BATCH), 3)
    report["machine"] = machine()
    for name, value in report["cpu_ms"].items():
        print(f"{name}: {value:.2f} ms of CPU a request")
    if chosen.json:
        print(last_line(report))


if __name__ == "__main__":
    main()
