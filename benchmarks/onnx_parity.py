"""Does an exported model give the answers of the model in torch, filters and batch sizes as they come?

Random requests: histories (or prompts), filters that allow from all items to one in a thousand, seen items left
out, wishes for 1 to 20 items, by catalog scores and by vocabulary scores. Torch answers each batch of one size,
the export the same requests in batches of another. Counted are answers whose items or order differ, those where
two items change places within a near tie, and the largest difference of a score.

    native    a bundle's model on real histories (``--bundle``, ``--interactions``); without them, random weights
    qwen3     4 layers, hidden 256, random weights: prompts of 256 tokens (``benchmarks/beam_search.py``)

Run: ``python -m benchmarks.onnx_parity [--bundle DIR --interactions FILE] [--requests 1000] [--json]``. Exits
with 1 where an answer differs. The last line is JSON with ``--json``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from benchmarks.onnx_decode import native_case, qwen3_case
from genrec.bench.machine import machine, machine_line
from genrec.bench.measurement import one_thread
from genrec.bench.report import last_line, markdown_table
from genrec.bundle import load_bundle
from genrec.decoders.base import Decoder, Items, Prompt
from genrec.decoders.export_files import write_native
from genrec.decoders.exported import FLOAT32, MATRICES
from genrec.decoders.native_decoder import NativeDecoder
from genrec.decoders.onnx_native import OnnxNativeDecoder
from genrec.search import Normalize, SearchRequest, SearchResult, search
from index.histories import leave_one_out
from index.history_readers import read_interactions
from index.item_filter import Allowed
from index.trie import TokenTrie

ALLOWED = (1.0, 0.5, 0.1, 0.01, 0.001)
BATCHES = (1, 2, 3, 8, 20, 32)
MOST_ITEMS = 20
NEAR_TIE = 1e-5


@dataclass(frozen=True)
class Case:
    """One model in both forms, and prompts."""

    name: str
    torch: Decoder
    onnx: Decoder
    trie: TokenTrie
    prompts: Sequence[Prompt]
    beam: int


def trained_case(bundle: Path, interactions: Path, directory: Path, requests: int) -> Case:
    """A trained bundle, exported here and left as it is; the histories of users drawn from the file."""
    opened = load_bundle(bundle)
    decoder = opened.decoder("torch")
    assert isinstance(decoder, NativeDecoder)
    shape = write_native(decoder.model, directory)
    onnx = OnnxNativeDecoder(
        directory / FLOAT32, directory / MATRICES, decoder.config, shape, opened.index.codes
    )
    cases = leave_one_out(read_interactions(interactions, opened.index.catalog).histories, "test")
    users = np.random.default_rng(0).choice(len(cases), min(requests, len(cases)), replace=False)
    prompts: list[Prompt] = [(Items(cases.history_of(int(user)).astype(np.int64)),) for user in users]
    return Case(f"native ({bundle.name})", decoder, onnx, opened.index.trie, prompts, beam=50)


def requests_of(case: Case, seed: int = 0) -> list[SearchRequest]:
    """One request per prompt, each with a filter and wishes of its own."""
    rng = np.random.default_rng(seed)
    items = len(case.trie)
    requests = []
    for prompt in case.prompts:
        share = rng.choice(ALLOWED)
        mask = None if share == 1.0 else rng.random(items) < share
        seen = rng.integers(0, items, rng.integers(0, 20))
        k = int(rng.integers(1, MOST_ITEMS + 1))
        requests.append(
            SearchRequest(prompt, k=k, beam=case.beam, allowed=Allowed.build(mask, np.unique(seen)))
        )
    return requests


def answered(
    decoder: Decoder, case: Case, requests: Sequence[SearchRequest], normalize: Normalize, seed: int
) -> list[SearchResult]:
    """All answers, in batches of sizes drawn from the seed."""
    rng = np.random.default_rng(seed)
    results: list[SearchResult] = []
    while len(results) < len(requests):
        batch = requests[len(results) : len(results) + int(rng.choice(BATCHES))]
        results.extend(search(decoder, case.trie, batch, normalize=normalize))
    return results


def compared(case: Case, normalize: Normalize) -> dict[str, float]:
    """What the docstring says is counted."""
    requests = requests_of(case)
    theirs = answered(case.torch, case, requests, normalize, 1)
    ours = answered(case.onnx, case, requests, normalize, 2)
    different = ties = 0
    apart = 0.0
    for left, right in zip(theirs, ours, strict=True):
        if len(left.ranks) != len(right.ranks):
            different += 1
            continue
        gaps = np.abs(left.scores - right.scores)
        apart = max(apart, float(gaps.max(initial=0.0)))
        moved = left.ranks != right.ranks
        if moved.any():
            near = bool((gaps[moved] < NEAR_TIE).all())
            ties += near
            different += not near
    return {
        "requests": len(requests),
        "items_returned": int(sum(len(one.ranks) for one in ours)),
        "different": different,
        "swapped_near_ties": ties,
        "largest_score_difference": apart,
        "certified_alike": int(sum(a.certified == b.certified for a, b in zip(theirs, ours, strict=True))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--interactions", type=Path)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    described = machine()
    print(machine_line(described))
    report: dict[str, object] = {"machine": described}
    rows = []
    with one_thread(), tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        if options.bundle and options.interactions:
            native = trained_case(options.bundle, options.interactions, Path(first), options.requests)
        else:
            made = native_case(Path(first), 12_000, options.requests)
            native = Case("native (random)", made.torch, made.onnx, made.trie, made.prompts, made.beam)
        large = qwen3_case(Path(second), 10_000, options.requests)
        qwen3 = Case("qwen3 (random)", large.torch, large.onnx, large.trie, large.prompts, large.beam)
        for case in (native, qwen3):
            for normalize in get_args(Normalize):
                found = compared(case, normalize)
                name = f"{case.name}, {normalize} scores"
                report[name] = found
                rows.append((name, *(f"{value:g}" for value in found.values())))
    print(markdown_table(("model", *(name.replace("_", " ") for name in found)), rows))
    if options.json:
        print(last_line(report))
    sys.exit(any(row[3] != "0" for row in rows))


if __name__ == "__main__":
    main()
