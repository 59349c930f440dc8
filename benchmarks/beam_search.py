"""How much CPU does genrec's search take against Hugging Face `generate`, for the same results?

Both run the same random-weight Qwen3-style model (4 layers, hidden 256) on the same prompts of 256 tokens, one
thread, one request at a time, interleaved.

    peer      generate(num_beams=K, prefix_allowed_tokens_fn=<trie of dicts>, length_penalty=0.0,
              early_stopping=False, do_sample=False)
    parity    search(synchronize="token", normalize="vocabulary"): checked in this run to give the peer's items
              and scores
    default   search(synchronize="leaf", normalize="catalog"): probabilities over the catalog, its own ranking

genrec runs the model as it serves it, exported to ONNX; ``parity_torch`` and ``default_torch`` are the same searches
over the model in torch.

    codes     10,000 items of 4 codes out of 256 each, Zipf-skewed; vocabulary 4,096
    titles    100,000 titles under a byte-level BPE trained here, ended by a terminator; vocabulary 32,768. They
              are spliced from the titles in ``--titles FILE...`` (JSON lines with a `title`); without it, from
              titles and descriptions of the demo catalog, at the lengths of real product titles

Run: ``python -m benchmarks.beam_search [--quick] [--json] [--titles FILE...]``. A full run takes about ten
minutes and writes ``benchmarks/results/beam_search.{json,svg}``.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from benchmarks.beam_workloads import PROMPT, Workload, codes_workload, exported, titles_workload
from genrec.bench.machine import machine, machine_line, matrix_throughput
from genrec.bench.measurement import Run, Spread, one_thread, run
from genrec.bench.report import last_line, markdown_table
from genrec.decoders.base import Decoder, Tokens
from genrec.search import SearchRequest, search
from index.types import Int64Array

RESULTS = Path(__file__).parent / "results"
OURS = ("parity", "default", "parity_torch", "default_torch")
TIE = 1e-4


@dataclass(frozen=True)
class Found:
    """One answer's paths, best first, and their log-probabilities."""

    paths: list[tuple[int, ...]]
    scores: list[float]


@dataclass(frozen=True)
class Line:
    """One line of the report: a workload at a beam width, over several prompts; dicts are by mode."""

    workload: str
    items: int
    prompt: int
    beams: int
    cpu: dict[str, Spread]  # seconds
    wall: dict[str, Spread]
    ratio: dict[str, Spread]  # peer CPU time over ours, prompt by prompt
    peak_mb: dict[str, float | None]  # most memory above what was held before the call
    vocabulary: int
    model_calls: dict[str, float]  # median, prefill included
    expansions: dict[str, float]  # median; prefixes whose next tokens were scored
    same_results: int  # prompts on which parity mode gave the peer's items and scores
    largest_difference: float  # of a score


def peer(work: Workload, prompt: Int64Array, beams: int) -> Found:
    """Hugging Face's constrained beam search. Every prefix's tokens are listed before: only looked up here."""
    ids = torch.from_numpy(prompt)[None]
    width, nothing = len(prompt), [0 if work.eos is None else work.eos]
    output = work.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        num_beams=beams,
        num_return_sequences=beams,
        prefix_allowed_tokens_fn=lambda _, sequence: work.following.get(
            tuple(sequence[width:].tolist()), nothing
        ),
        length_penalty=0.0,
        early_stopping=False,
        do_sample=False,
        max_new_tokens=work.trie.longest_path,
        eos_token_id=work.eos,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    paths = []
    for row in output.sequences[:, width:].tolist():
        end = row.index(work.eos) + 1 if work.eos in row else len(row)
        paths.append(tuple(row[:end]))
    return Found(paths, output.sequences_scores.tolist())


def answer(work: Workload, decoders: Decoders, prompt: Int64Array, beams: int, mode: str) -> Answer:
    """One prompt through the peer, or through genrec's search in one of its modes."""
    if mode == "peer":
        return Answer(peer(work, prompt, beams), 0, 0)
    kind, _, runtime = mode.partition("_")
    decoder = decoders[runtime]
    request = SearchRequest((Tokens(prompt),), k=beams, beam=beams)
    (result,) = (
        search(decoder, work.trie, [request], normalize="vocabulary", synchronize="token")
        if kind == "parity"
        else search(decoder, work.trie, [request])
    )
    paths = [tuple(work.trie.path(int(rank))) for rank in result.ranks]
    return Answer(Found(paths, result.scores.tolist()), result.model_calls, result.expansions)


def differs(mine: Found, theirs: Found) -> float:
    """Largest difference of scores place by place; infinite where an item is not the peer's (ties aside)."""
    if len(mine.paths) != len(theirs.paths):
        return np.inf
    gaps = np.abs(np.array(mine.scores) - np.array(theirs.scores))
    for path, score in zip(mine.paths, mine.scores, strict=True):
        twins = {p for p, s in zip(theirs.paths, theirs.scores, strict=True) if abs(s - score) < TIE}
        if path not in twins and score > theirs.scores[-1] + TIE:  # at the last place a tie may be cut off
            return np.inf
    return float(gaps.max())


@dataclass(frozen=True)
class Answer:
    """What one of the three gave on one prompt."""

    found: Found
    model_calls: int  # prefill included; 0 for the peer, which does not count them
    expansions: int  # prefixes whose next tokens were scored; 0 for the peer


Modes: TypeAlias = dict[str, list[Run[Answer]]]
Decoders: TypeAlias = dict[str, Decoder]
"""The model by what runs it: "" the export, "torch"."""


def measure(work: Workload, beams: int) -> Line:
    """Every prompt through the peer and our modes, in turn; a first prompt warms them up."""
    decoders: Decoders = {"": exported(work), "torch": work.decoder}
    gc.collect()
    gc.freeze()  # or the collector would go through the peer's millions of lists before every call
    runs: Modes = {mode: [] for mode in ("peer", *OURS)}
    for prompt in [work.prompts[0], *work.prompts]:
        for mode, done in runs.items():
            done.append(run(partial(answer, work, decoders, prompt, beams, mode)))
    gc.unfreeze()
    runs = {mode: done[1:] for mode, done in runs.items()}
    pairs = list(zip(runs["parity"], runs["peer"], strict=True))
    differences = [differs(mine.result.found, theirs.result.found) for mine, theirs in pairs]
    in_torch = zip(runs["parity_torch"], runs["peer"], strict=True)
    assert all(differs(mine.result.found, theirs.result.found) < TIE for mine, theirs in in_torch)
    return Line(
        workload=work.name,
        items=len(work.trie),
        prompt=len(work.prompts[0]),
        beams=beams,
        cpu={mode: Spread.of([one.cpu for one in done]) for mode, done in runs.items()},
        wall={mode: Spread.of([one.wall for one in done]) for mode, done in runs.items()},
        ratio={
            mode: Spread.of([a.cpu / b.cpu for a, b in zip(runs["peer"], runs[mode], strict=True)])
            for mode in OURS
        },
        peak_mb={
            mode: max((one.peak_mb for one in done if one.peak_mb is not None), default=None)
            for mode, done in runs.items()
        },
        model_calls={mode: float(np.median([one.result.model_calls for one in runs[mode]])) for mode in OURS},
        vocabulary=work.decoder.vocabulary,
        expansions={mode: float(np.median([one.result.expansions for one in runs[mode]])) for mode in OURS},
        same_results=sum(difference < TIE for difference in differences),
        largest_difference=max(differences),
    )


def table(lines: Sequence[Line]) -> str:
    """The report for people: CPU milliseconds, median and quartiles."""
    header = ["workload", "beams", "peer CPU ms", "parity CPU ms", "ratio", "default CPU ms", "ratio"]
    header += [
        "in torch: parity, default",
        "wall ms: peer, parity, default",
        "peak MB",
        "same results",
        "model calls",
    ]
    rows, shown = [], ("peer", "parity", "default")
    for line in lines:
        rows.append(
            [
                f"{line.workload} {line.items:,}, prompt {line.prompt}",
                line.beams,
                line.cpu["peer"].text(1e3, 0),
                line.cpu["parity"].text(1e3),
                line.ratio["parity"].text(),
                line.cpu["default"].text(1e3),
                line.ratio["default"].text(),
                f"{line.ratio['parity_torch'].text()}, {line.ratio['default_torch'].text()}",
                " / ".join(f"{line.wall[mode].median * 1e3:.0f}" for mode in shown),
                " / ".join(
                    "–" if line.peak_mb[mode] is None else f"{line.peak_mb[mode]:.0f}" for mode in shown
                ),
                f"{line.same_results}/{line.cpu['peer'].count}, Δ ≤ {line.largest_difference:.0e}",
                " / ".join(f"{line.model_calls[mode]:.0f}" for mode in shown[1:]),
            ]
        )
    return markdown_table(header, rows)


def roofline(line: Line, throughput: float) -> str:
    """What the matrix products of a parity request need at the measured throughput, beside what it took."""
    layer = (
        256 * (256 + 128 + 128 + 256) + 3 * 256 * 768
    )  # weights: queries, keys, values, output; gated unit
    # The last layer needs only keys and values of the prompt.
    prefill = 2e-9 * line.prompt * (3 * layer + 256 * 256)
    steps = 2e-9 * (line.expansions["parity"] - 1) * 4 * layer
    normalizers = 2e-9 * line.expansions["parity"] * 256 * line.vocabulary
    needed = (prefill + steps + normalizers) / throughput
    return (
        f"{line.workload}, {line.beams} beams, parity: {prefill:.2f} (prompt) + {steps:.2f} (steps) + "
        f"{normalizers:.2f} (normalisers) GFLOP in matrix products are {needed * 1e3:.0f} ms at the measured "
        f"{throughput:.0f} GFLOP/s; the request took {line.cpu['parity'].median * 1e3:.0f} ms, so no "
        f"implementation in float32 is more than {line.cpu['peer'].median / needed:.1f} times faster than the peer"
    )


def plot(lines: Sequence[Line], path: Path) -> None:
    """CPU time against beams, and against the prompt's length: peer, parity and default."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text: half the bytes
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 4))
    panels = {
        "beams, 10k codes": (
            "beams",
            lambda li: (li.workload, li.items, li.prompt) == ("codes", 10_000, PROMPT),
        ),
        "prompt tokens, 10k codes, 20 beams": (
            "prompt",
            lambda li: (li.workload, li.items, li.beams) == ("codes", 10_000, 20),
        ),
        "beams, 100k titles": ("beams", lambda li: li.workload == "titles"),
    }
    colours = {"peer": "#888888", "parity": "#1f77b4", "default": "#2ca02c"}
    for axis, (label, (field, chosen)) in zip(axes, panels.items(), strict=True):
        points = sorted(filter(chosen, lines), key=lambda line: getattr(line, field))
        x = [getattr(line, field) for line in points]
        for name, colour in colours.items():
            spreads: list[Spread] = [line.cpu[name] for line in points]
            shown = "Hugging Face generate" if name == "peer" else f"genrec, {name}"
            axis.plot(x, [s.median * 1e3 for s in spreads], "o-", color=colour, label=shown)
            axis.fill_between(
                x, [s.low * 1e3 for s in spreads], [s.high * 1e3 for s in spreads], color=colour, alpha=0.2
            )
        axis.set(xlabel=label, ylabel="CPU ms a request", xscale="log", yscale="log", xticks=x)
        axis.set_xticks(x, [str(value) for value in x], minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def run_all(quick: bool, titles: Sequence[Path]) -> list[Line]:
    """The lines of the issue's targets first; a full run then sweeps beams, prompts and items."""
    codes = codes_workload(10_000, 10 if quick else 20)
    lines = [measure(codes, 20)]
    spliced = titles_workload(100_000, 5 if quick else 10, titles)
    lengths = [len(path) for path in map(spliced.trie.path, range(0, len(spliced.trie), 97))]
    print(f"titles: {np.mean(lengths):.1f} tokens on average, {max(lengths)} at most of those looked at")
    lines.append(measure(spliced, 20))
    if quick:
        return lines
    lines += [measure(codes, 100), measure(spliced, 100)]
    lines += [measure(codes_workload(10_000, 5), beams) for beams in (2, 5, 50)]
    lines += [measure(codes_workload(10_000, 5, length), 20) for length in (32, 128, 512)]
    lines += [measure(codes_workload(items, 5), 20) for items in (100_000, 1_000_000)]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="the three headline ratios in under five minutes"
    )
    parser.add_argument("--json", action="store_true", help="end in one line of JSON")
    parser.add_argument("--titles", nargs="+", type=Path, default=[], help="JSON lines with a title each")
    options = parser.parse_args()
    with one_thread():
        described = machine()
        print(machine_line(described))
        lines = run_all(options.quick, options.titles)
        print(table(lines))
        throughput = matrix_throughput()
        print("Roofline:")
        for line in lines[:2]:
            print(f"- {roofline(line, throughput)}")
    report: dict[str, Any] = {
        f"ratio_{mode}_{line.workload}_k{line.beams}": line.ratio[mode].median
        for line in lines
        if (line.workload, line.items) in {("codes", 10_000), ("titles", lines[1].items)}
        and line.prompt == PROMPT
        for mode in OURS
    }
    report["same_results"] = all(line.same_results == line.cpu["peer"].count for line in lines)
    report["gflops"] = throughput
    report["machine"] = described
    report["lines"] = [asdict(line) for line in lines]
    if not options.quick:
        plot(lines, RESULTS / "beam_search.svg")
        (RESULTS / "beam_search.json").write_text(last_line(report) + "\n", encoding="utf-8")
    if options.json:
        print(last_line(report))


if __name__ == "__main__":
    main()
