"""What does a user's second request cost when one item was added to the history, with the prompt cache?

A random-weight Qwen3-style model (4 layers, hidden 256), exported; histories whose prompts have 512 tokens (4 to
begin with, 4 an item). For every user the prompt is read once, then again with one item more: by a decoder that
remembers it and by one that reads it afresh. Processor time of the second prefill, one thread, the two taking
turns; and what a search of 20 beams answers either way.

Run: ``python -m benchmarks.prompt_cache [--quick] [--json]``. The last line is JSON with ``--json``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serve_bundle import BEAMS, START, write_serve_bundle
from genrec.bench.machine import machine, machine_line
from genrec.bench.measurement import one_thread
from genrec.bench.report import last_line
from genrec.bundle import load_bundle
from genrec.decoders.base import Items, Prompt, ReusesPrompts
from genrec.decoders.exported import history_reader
from genrec.decoders.prompt_cache import prompt_cache_of
from genrec.search import SearchRequest, search

TOKENS = 512
LEVELS = 4
LENGTH = (TOKENS - len(START)) // LEVELS  # items
BLOCK = 16  # items by which a longer history is cut


def prompt(rows: Any) -> tuple[Prompt, ...]:
    return ((Items(np.asarray(rows, np.int64)),),)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer users")
    parser.add_argument("--json", action="store_true", help="print one JSON object, last")
    chosen = parser.parse_args()
    one_thread()
    print(machine_line(machine()), flush=True)
    users, items = (10, 2_000) if chosen.quick else (40, 10_000)
    with tempfile.TemporaryDirectory() as name:
        bundle = load_bundle(write_serve_bundle(Path(name) / "bundle", items))
        # The bundle cuts after 63 items; here it reads 512 tokens.
        form = {"start": list(START), "max_items": LENGTH + BLOCK, "block": BLOCK}
        bundle.artifact.manifest["model"]["history"] = form
        fresh = bundle.decoder("onnx")
        assert isinstance(fresh, ReusesPrompts)
        assert len(fresh.prompt_key(prompt(np.zeros(LENGTH))[0])) == TOKENS
        assert history_reader(bundle.artifact.manifest["model"], bundle.index) is not None
        cached = prompt_cache_of(bundle.decoder("onnx"))  # type: ignore[arg-type]
        rng = np.random.default_rng(0)
        seconds: dict[str, list[float]] = {"fresh": [], "cached": []}
        same = 0
        for user in range(users):
            rows = rng.integers(0, items, LENGTH + 1)
            cached.prefill(prompt(rows[:-1]))
            ways = [("fresh", fresh), ("cached", cached)]
            for way, decoder in ways if user % 2 else ways[::-1]:
                begin = time.process_time()
                decoder.prefill(prompt(rows))
                seconds[way].append(time.process_time() - begin)
            request = [SearchRequest(prompt(rows)[0], k=BEAMS, beam=BEAMS)]
            (one,), (other,) = (search(decoder, bundle.index.trie, request) for decoder in (fresh, cached))
            same += one.ranks.tolist() == other.ranks.tolist() and np.allclose(
                one.scores, other.scores, atol=1e-4
            )
    medians = {way: float(np.median(values)) for way, values in seconds.items()}
    report: dict[str, Any] = {
        "tokens": TOKENS,
        "users": users,
        "fresh_cpu_ms": 1000 * medians["fresh"],
        "cached_cpu_ms": 1000 * medians["cached"],
        "saved": 1 - medians["cached"] / medians["fresh"],
        "same_answers": same,
        "machine": machine(),
    }
    saved = 100 * report["saved"]
    print(
        f"{TOKENS} tokens and one item more: {report['fresh_cpu_ms']:.1f} ms afresh, {report['cached_cpu_ms']:.1f} "
        f"ms remembered, {saved:.1f} % less; same answers for {same} of {users} users"
    )
    if chosen.json:
        print(last_line(report))


if __name__ == "__main__":
    main()
