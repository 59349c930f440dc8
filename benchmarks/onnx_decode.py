"""How much CPU does a request take with the exported model against the same model in torch?

One thread, the same requests in one process, interleaved; the answers are compared while at it.

    native    the model trained from scratch, random weights, default shape: histories of 20 items, 50 beams,
              12,000 items of 4 codes
    qwen3     4 layers, hidden 256: prompts of 256 tokens, 20 beams, 10,000 items of 4 codes, vocabulary 4,096

Each is asked one request at a time and eight together, and its phases are timed alone: the prefill, the prefill
of a prompt that goes on by one item, and a step of one row per beam.

Run: ``python -m benchmarks.onnx_decode [--quick] [--json]``. The last line is JSON with ``--json``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.beam_workloads import CODES, FIRST_CODE, LEVELS, codes_workload
from benchmarks.timing import Timing, race, ratio
from genrec.bench.machine import machine, machine_line
from genrec.bench.measurement import one_thread
from genrec.bench.report import last_line, markdown_table
from genrec.decoders.base import Decoder, Items, Prompt, ReusesPrompts, Tokens
from genrec.decoders.export_files import write_causal_lm, write_native
from genrec.decoders.exported import FLOAT32, MATRICES
from genrec.decoders.native_decoder import NativeDecoder
from genrec.decoders.onnx_decoder import OnnxDecoder
from genrec.decoders.onnx_native import OnnxNativeDecoder
from genrec.native_model import NativeConfig, NativeModel
from genrec.search import SearchRequest, SearchResult, search
from index.trie import TokenTrie, build_trie

TOP = 10
BATCH = 8
NEAR = 1e-4  # scores closer than this may trade places


@dataclass(frozen=True)
class Case:
    """One model in both forms, and what it is asked."""

    name: str
    torch: Decoder
    onnx: ReusesPrompts
    trie: TokenTrie
    prompts: Sequence[Prompt]
    longer: Sequence[Prompt]  # each gone on with by one item
    first: tuple[int, int]  # tokens of the first level, from and to
    beam: int


def native_case(directory: Path, items: int, requests: int) -> Case:
    """Random weights and codes."""
    rng = np.random.default_rng(0)
    codes = np.unique(rng.integers(0, CODES, (items, LEVELS)), axis=0).astype(np.int32)
    config = NativeConfig(code_sizes=(CODES,) * LEVELS)
    torch.manual_seed(0)
    model = NativeModel(config, codes).eval()
    shape = write_native(model, directory)
    onnx = OnnxNativeDecoder(directory / FLOAT32, directory / MATRICES, config, shape, codes)
    trie = build_trie(codes + np.array(config.offsets[:-1]))
    histories = [rng.integers(0, len(codes), 20) for _ in range(requests)]
    prompts: list[Prompt] = [(Items(rows),) for rows in histories]
    longer: list[Prompt] = [(Items(np.append(rows, 7)),) for rows in histories]
    return Case("native", NativeDecoder(model), onnx, trie, prompts, longer, (0, CODES), beam=50)


def qwen3_case(directory: Path, items: int, requests: int) -> Case:
    """The model and catalog of ``benchmarks/beam_search.py``."""
    work = codes_workload(items, requests)
    shape = write_causal_lm(work.model, directory)
    onnx = OnnxDecoder.open(directory / FLOAT32, directory / MATRICES, shape, work.decoder.max_positions)
    item = FIRST_CODE + CODES * np.arange(LEVELS)
    prompts: list[Prompt] = [(Tokens(ids),) for ids in work.prompts]
    longer: list[Prompt] = [(Tokens(np.concatenate([ids, item])),) for ids in work.prompts]
    first = (FIRST_CODE, FIRST_CODE + CODES)
    return Case("qwen3", work.decoder, onnx, work.trie, prompts, longer, first, beam=20)


def asked(decoder: Decoder, case: Case, together: int) -> Callable[[], list[SearchResult]]:
    """All requests of a case, so many at a time."""
    requests = [SearchRequest(prompt, k=TOP, beam=case.beam) for prompt in case.prompts]

    def ask() -> list[SearchResult]:
        chunks = [requests[i : i + together] for i in range(0, len(requests), together)]
        return [result for chunk in chunks for result in search(decoder, case.trie, chunk)]

    return ask


def stepped(decoder: Decoder, case: Case) -> Callable[[], object]:
    """One row per beam behind the first prompt, whose tree is cut back again."""
    state = decoder.prefill(case.prompts[:1]).states[0]
    token = np.random.default_rng(1).integers(*case.first, case.beam)
    request, parent, nothing = np.zeros(case.beam, np.int64), np.full(case.beam, -1), np.zeros(0, np.int64)

    def step() -> object:
        hidden = decoder.extend([state], request, token, parent)
        state.compact(nothing)
        return hidden

    return step


def same_answers(left: Sequence[SearchResult], right: Sequence[SearchResult]) -> tuple[bool, float]:
    """Whether all items agree in their order, near ties aside, and how far scores are apart."""
    agree, apart = True, 0.0
    for one, other in zip(left, right, strict=True):
        apart = max(apart, float(np.abs(one.scores - other.scores).max()))
        moved = one.ranks != other.ranks
        agree &= bool((np.abs(one.scores - other.scores)[moved] < NEAR).all()) and len(one.ranks) == TOP
    return agree, apart


def report_case(case: Case, rounds: int) -> dict[str, Any]:
    """Medians of CPU milliseconds, and the ratios of the rounds."""
    both = {"torch": case.torch, "onnx": case.onnx}
    agree, apart = same_answers(*(asked(decoder, case, BATCH)() for decoder in both.values()))
    report: dict[str, Any] = {"same_items_in_order": agree, "largest_score_difference": apart}
    phases: dict[str, tuple[dict[str, Callable[[], object]], int]] = {
        "request_alone": ({name: asked(one, case, 1) for name, one in both.items()}, len(case.prompts)),
        "request_of_8": ({name: asked(one, case, BATCH) for name, one in both.items()}, len(case.prompts)),
        "prefill": ({name: lambda one=one: one.prefill(case.prompts[:1]) for name, one in both.items()}, 1),
        "step": ({name: stepped(one, case) for name, one in both.items()}, 1),
    }
    kept = {
        name: (one, one.prefill(case.prompts[:1]).states)
        for name, one in both.items()
        if isinstance(one, ReusesPrompts)
    }
    phases["prefill_of_one_more_item"] = (
        {
            name: lambda one=one, kept=kept: one.prefill(case.longer[:1], kept)
            for name, (one, kept) in kept.items()
        },
        1,
    )
    for phase, (calls, divide) in phases.items():
        timings = race(calls, rounds)
        per_call = {name: Timing(one.wall / divide, one.cpu / divide) for name, one in timings.items()}
        report[phase] = {name: round(float(np.median(one.cpu)) * 1e3, 3) for name, one in per_call.items()}
        if "torch" in per_call:
            report[phase]["torch_over_onnx"] = ratio(per_call["torch"], per_call["onnx"])
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer requests and rounds")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    requests, rounds = (BATCH, 5) if options.quick else (4 * BATCH, 15)
    described = machine()
    print(machine_line(described))
    report: dict[str, Any] = {"machine": described}
    rows: list[tuple[object, ...]] = []
    with one_thread(), tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        cases = (native_case(Path(first), 12_000, requests), qwen3_case(Path(second), 10_000, requests))
        for case in cases:
            report[case.name] = found = report_case(case, rounds)
            for phase, numbers in found.items():
                if isinstance(numbers, dict):
                    times = numbers.get("torch_over_onnx")
                    rows.append(
                        (
                            f"{case.name}: {phase.replace('_', ' ')}",
                            f"{numbers['torch']:.2f}" if "torch" in numbers else "–",
                            f"{numbers['onnx']:.2f}",
                            f"{times['median']} ({times['min']}–{times['max']})" if times else "–",
                        )
                    )
            print(
                f"{case.name}: {requests} requests, items and order "
                f"{'equal' if found['same_items_in_order'] else 'DIFFERENT'}, "
                f"scores at most {found['largest_score_difference']:.1e} apart"
            )
    print(f"CPU milliseconds per request or call, medians of {rounds} rounds, one thread")
    print(markdown_table(("", "torch", "onnx", "torch / onnx"), rows))
    if options.json:
        print(last_line(report))


if __name__ == "__main__":
    main()
