"""How much CPU does genrec's search take against Hugging Face `generate`, for the same results?

Both run the same random-weight Qwen3-style model (4 layers, hidden 256) on the same prompts of 256 tokens, one
thread, one request at a time, interleaved.

    peer      generate(num_beams=K, prefix_allowed_tokens_fn=<trie of dicts>, length_penalty=0.0,
              early_stopping=False, do_sample=False)
    parity    search(synchronize="token", normalize="vocabulary"): checked in this run to give the peer's items
              and scores
    default   search(synchronize="leaf", normalize="catalog"): probabilities over the catalog, its own ranking

    codes     10,000 items of 4 codes out of 256 each, Zipf-skewed; vocabulary 4,096
    titles    100,000 titles under a byte-level BPE trained here, ended by a terminator; vocabulary 32,768. They
              are spliced from the titles in ``--titles FILE...`` (JSON lines with a `title`); without it, from
              titles and descriptions of the demo catalog, at the lengths of real product titles

Run: ``python -m benchmarks.beam_search [--quick] [--json] [--titles FILE...]``. A full run takes about half an
hour and writes ``benchmarks/results/beam_search.{json,svg}``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from benchmarks.harness import (
    Run,
    Spread,
    last_line,
    machine,
    machine_line,
    markdown_table,
    matrix_throughput,
    one_thread,
    run,
)
from genrec.decoders.base import Tokens
from genrec.decoders.torch_decoder import TorchDecoder
from genrec.search import SearchRequest, search
from index.trie import TokenTrie, build_trie
from index.types import Int64Array

RESULTS = Path(__file__).parent / "results"
DEMO = Path(__file__).parent.parent / "genrec" / "demo" / "works.jsonl"
OURS = ("parity", "default")
PROMPT, TIE = 256, 1e-4
LEVELS, CODES, FIRST_CODE = 4, 256, 3072
TITLE_VOCABULARY = 32_768
# Deciles (10 % to 90 %) of the words in 36,522 real titles: the 5-core items of Amazon Beauty 2014, Video Games
# 2018 and Industrial 2018, and MovieLens 1M.
WORDS_PER_TITLE = (3, 4, 5, 6, 7, 9, 10, 11, 14)


@dataclass(frozen=True)
class Workload:
    """A model, a catalog and prompts."""

    name: str
    model: Any  # a PreTrainedModel; its `generate` is typed as a tensor's attribute
    decoder: TorchDecoder
    trie: TokenTrie
    following: dict[tuple[int, ...], list[int]]  # the peer's trie: every prefix's next tokens
    prompts: Sequence[Int64Array]
    eos: int | None


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
    model_calls: dict[str, float]  # median, prefill included
    same_results: int  # prompts on which parity mode gave the peer's items and scores
    largest_difference: float  # of a score


def random_model(vocabulary: int, eos: int | None = None, seed: int = 0) -> PreTrainedModel:
    """4 layers, hidden 256, 4 heads over 2 key heads of 64, gated unit 768, tied head.

    Five times the usual spread of weights: at 0.02 all scores nearly tie, at 0.1 they are told apart.
    """
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        initializer_range=0.1,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    model.train(False)
    return model


def codes_workload(items: int, prompts: int, prompt_length: int = PROMPT, seed: int = 0) -> Workload:
    """Codes whose every level is Zipf-skewed (exponent 0.8); a prompt is the codes of random items."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, CODES + 1) ** 0.8
    rows = np.zeros((0, LEVELS), np.int64)
    while len(rows) < items:
        drawn = rng.choice(CODES, (items, LEVELS), p=share / share.sum())
        rows = np.unique(np.concatenate([rows, drawn]), axis=0)
    codes = rng.permutation(rows)[:items]
    codes = np.stack([rng.permutation(CODES)[level] for level in codes.T], axis=1)  # popular is not low
    codes += FIRST_CODE + CODES * np.arange(LEVELS)
    asked = [
        codes[rng.integers(0, items, -(-prompt_length // LEVELS))].ravel()[:prompt_length]
        for _ in range(prompts)
    ]
    return _workload("codes", random_model(FIRST_CODE + LEVELS * CODES), codes.tolist(), asked, None)


def titles_workload(items: int, prompts: int, sources: Sequence[Path], seed: int = 0) -> Workload:
    """Titles spliced from two real ones, so openings are shared as in a catalog; a prompt is random titles."""
    from tokenizers import ByteLevelBPETokenizer

    rng = np.random.default_rng(seed)
    texts = [_words(source) for source in sources or [DEMO]]
    lines = [words for text in texts for words in text if len(words) > 1]
    titles: set[str] = set()
    while len(titles) < items:
        first, second = (lines[i] for i in rng.integers(0, len(lines), 2))
        words = [*first[: rng.integers(1, len(first))], *second[rng.integers(1, len(second)) :]]
        if not sources:
            words = [*words, *second][: rng.choice(WORDS_PER_TITLE)]
        titles.add(" ".join(words))
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        (" ".join(words) for words in lines), TITLE_VOCABULARY - 1, min_frequency=2, show_progress=False
    )
    eos = TITLE_VOCABULARY - 1
    paths = [encoded.ids for encoded in tokenizer.encode_batch(sorted(titles))]
    asked = [
        np.concatenate([paths[i] for i in rng.integers(0, items, PROMPT)])[:PROMPT] for _ in range(prompts)
    ]
    model = random_model(TITLE_VOCABULARY, eos)
    return _workload("titles", model, [[*path, eos] for path in paths], asked, eos)


def _words(source: Path) -> list[list[str]]:
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    extra = "description" if source == DEMO else ""
    return [f"{row.get('title', '')} {row.get(extra, '')}".split() for row in rows]


def _workload(
    name: str, model: PreTrainedModel, paths: list[list[int]], prompts: Sequence[Int64Array], eos: int | None
) -> Workload:
    following: dict[tuple[int, ...], dict[int, None]] = {}
    for path in paths:
        for depth, token in enumerate(path):
            following.setdefault(tuple(path[:depth]), {})[token] = None
    listed = {prefix: list(tokens) for prefix, tokens in following.items()}
    return Workload(name, model, TorchDecoder(model), build_trie(paths), listed, prompts, eos)


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


def answer(work: Workload, prompt: Int64Array, beams: int, mode: str) -> Answer:
    """One prompt through the peer, or through genrec's search in parity or default mode."""
    if mode == "peer":
        return Answer(peer(work, prompt, beams), 0)
    request = SearchRequest((Tokens(prompt),), k=beams, beam=beams)
    (result,) = (
        search(work.decoder, work.trie, [request], normalize="vocabulary", synchronize="token")
        if mode == "parity"
        else search(work.decoder, work.trie, [request])
    )
    paths = [tuple(work.trie.path(int(rank))) for rank in result.ranks]
    return Answer(Found(paths, result.scores.tolist()), result.model_calls)


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


Modes: TypeAlias = dict[str, list[Run[Answer]]]


def measure(work: Workload, beams: int) -> Line:
    """Every prompt through the peer, parity mode and default mode, in turn; a first prompt warms them up."""
    runs: Modes = {"peer": [], "parity": [], "default": []}
    for prompt in [work.prompts[0], *work.prompts]:
        for mode, done in runs.items():
            done.append(run(partial(answer, work, prompt, beams, mode)))
    runs = {mode: done[1:] for mode, done in runs.items()}
    pairs = list(zip(runs["parity"], runs["peer"], strict=True))
    differences = [differs(mine.result.found, theirs.result.found) for mine, theirs in pairs]
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
        same_results=sum(difference < TIE for difference in differences),
        largest_difference=max(differences),
    )


def table(lines: Sequence[Line]) -> str:
    """The report for people: CPU milliseconds, median and quartiles."""
    header = ["workload", "beams", "peer CPU ms", "parity CPU ms", "ratio", "default CPU ms", "ratio"]
    header += ["wall ms, all three", "peak MB, all three", "same results", "our model calls"]
    rows = []
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
                " / ".join(f"{wall.median * 1e3:.0f}" for wall in line.wall.values()),
                " / ".join("–" if mb is None else f"{mb:.0f}" for mb in line.peak_mb.values()),
                f"{line.same_results}/{line.cpu['peer'].count}, Δ ≤ {line.largest_difference:.0e}",
                " / ".join(f"{calls:.0f}" for calls in line.model_calls.values()),
            ]
        )
    return markdown_table(header, rows)


def roofline(line: Line, throughput: float) -> str:
    """What the matrix products of one request need at the measured throughput, beside what it took."""
    layer = (
        256 * (256 + 128 + 128 + 256) + 3 * 256 * 768
    )  # weights: queries, keys, values, output; gated unit
    # The last layer needs only keys and values of the prompt.
    prefill = line.prompt * (3 * layer + 256 * 256)
    steps = (line.model_calls["parity"] - 1) * line.beams * 4 * layer
    normalizers = line.model_calls["parity"] * line.beams * 256 * (FIRST_CODE + LEVELS * CODES)
    needed = 2 * (prefill + steps + normalizers) / throughput / 1e9
    return (
        f"Roofline: {throughput:.0f} GFLOP/s measured (float32, 256x256x768). The matrix products of a parity "
        f"request on codes at {line.beams} beams ({2 * prefill / 1e9:.2f} + {2 * steps / 1e9:.2f} + "
        f"{2 * normalizers / 1e9:.2f} GFLOP for prompt, steps and normalisers) need {needed * 1e3:.0f} ms; "
        f"it took {line.cpu['parity'].median * 1e3:.0f} ms."
    )


def plot(lines: Sequence[Line], path: Path) -> None:
    """CPU time against beams, and against the prompt's length: peer, parity and default."""
    import matplotlib as mpl

    mpl.use("Agg")
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
    prompts = 5 if quick else 20
    codes = codes_workload(10_000, prompts)
    lines = [measure(codes, 20)]
    spliced = titles_workload(20_000 if quick else 100_000, 3 if quick else 10, titles)
    lengths = [len(path) for path in map(spliced.trie.path, range(0, len(spliced.trie), 97))]
    print(f"titles: {np.mean(lengths):.1f} tokens on average, {max(lengths)} at most of those looked at")
    lines.append(measure(spliced, 20))
    if quick:
        return lines
    lines += [measure(codes, 100), measure(spliced, 100)]
    lines += [measure(codes_workload(10_000, 5), beams) for beams in (1, 5, 50)]
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
        print(roofline(lines[0], throughput))
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
