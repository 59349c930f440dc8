"""What do engines that constrain text cost, when the text is a catalog: xgrammar, llguidance, outlines-core?

They take a grammar and say which tokens may come next; scores, items and the choice are the caller's. A catalog of
codes becomes a grammar of as many alternatives: a code is two hexadecimal digits and one token, an item four of
them. That is kind to them: one tokenisation a string, a vocabulary of 257. In use each beam has a matcher of its own;
here the matchers stand at the prefixes already, and what is timed is a step of 20 beams: fill 20 masks, apply them.

Each engine runs in a process of its own with growing catalogs, until compiling one takes more than a minute. This
file run by itself, ``python -m benchmarks.text_grammars ENGINE ITEMS ROUNDS``, measures one engine and prints a line
of JSON. ``pip install xgrammar llguidance outlines-core``; what is not installed is left out (null).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.step_data import Stand, stands, zipf_codes
from benchmarks.timing import race, ratio
from genrec.kernels import StepRules, step_kernel
from index.item_filter import Allowed
from index.trie import build_trie

SIZES = (1_000, 10_000, 100_000)
COMPILE_SECONDS = 60
ROWS, CODES, EOS = 20, 256, 256
VOCABULARY = [f"{code:02x}" for code in range(CODES)]
Mask = Callable[[], Any]


def text_grammars(rounds: int) -> dict[str, Any]:
    """Every engine that is installed at every size it compiles in a minute; None for one that is not."""
    report: dict[str, Any] = {}
    for engine in COMPILERS:
        if find_spec(engine) is None:
            report[engine] = None
            continue
        report[engine] = []
        for items in SIZES:
            measured = _in_a_process(engine, items, rounds)
            report[engine].append({"items": items, **measured})
            if "failed" in measured:
                break
    return report


def _in_a_process(engine: str, items: int, rounds: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.text_grammars", engine, str(items), str(rounds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=COMPILE_SECONDS + 30,
            cwd=Path(__file__).parent.parent,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not compiled in {COMPILE_SECONDS} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][:200]}
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def measure(engine: str, items: int, rounds: int) -> dict[str, Any]:
    """Seconds to compile; milliseconds of a step's masks, and of our whole step at the same prefixes."""
    torch.set_num_threads(1)
    codes = zipf_codes(items, np.random.default_rng(0))
    texts = ["".join(VOCABULARY[code] for code in path) for path in codes.tolist()]
    trie = build_trie(codes)
    rules = StepRules(np.array([ROWS]), np.array([ROWS]), [Allowed()], np.zeros(1, bool), catalog=False)
    kernel = step_kernel(trie, rules)
    compiler, module = COMPILERS[engine]
    import_module(module)
    begin = time.perf_counter()
    matcher = compiler(texts)
    compiled = time.perf_counter() - begin
    report: dict[str, Any] = {"compile_s": round(compiled, 3), "steps": []}
    if compiled > COMPILE_SECONDS:
        return {"failed": f"not compiled in {COMPILE_SECONDS} s"}
    for stand in stands(trie, CODES, 1, ROWS, np.random.default_rng(1)):
        try:
            mask = matcher(stand)
        except AssertionError as error:  # what it got right before stays in the report
            report["failed"] = f"depth {stand.depth}: " + (str(error).splitlines() or ["wrong mask"])[0]
            break
        calls: dict[str, Mask] = {
            engine: mask,
            "ours": lambda one=stand: kernel.step(one.request, one.places, one.score, one.log_prob),
        }
        timings = race(calls, rounds)
        report["steps"].append(
            {
                "depth": stand.depth,
                "ms": timings[engine].summary()["cpu_median_ms"],
                "ours_ms": timings["ours"].summary()["cpu_median_ms"],
                "ratio": ratio(timings[engine], timings["ours"]),
            }
        )
    return report


def _logits(stand: Stand) -> torch.Tensor:
    return torch.nn.functional.pad(torch.from_numpy(stand.log_prob), (0, 1), value=-torch.inf)


def _check(logits: torch.Tensor, stand: Stand) -> None:
    """A mask must leave at least one token of every row, and not all."""
    alive = (logits > -torch.inf).sum(dim=1)
    assert int(alive.min()) > 0
    assert int(alive.min()) < CODES


def _xgrammar(texts: list[str]) -> Callable[[Stand], Mask]:
    import xgrammar

    info = xgrammar.TokenizerInfo([*VOCABULARY, "<eos>"], stop_token_ids=[EOS])
    compiler = xgrammar.GrammarCompiler(info, max_threads=1)
    compiled = compiler.compile_grammar("root ::= " + " | ".join(f'"{text}"' for text in texts))

    def at(stand: Stand) -> Mask:
        matchers = [xgrammar.GrammarMatcher(compiled) for _ in stand.prefix]
        for matcher, prefix in zip(matchers, stand.prefix.tolist(), strict=True):
            for token in prefix:
                assert matcher.accept_token(token)
        bits, logits = xgrammar.allocate_token_bitmask(len(matchers), CODES + 1), _logits(stand)

        def mask() -> None:
            for row, matcher in enumerate(matchers):
                matcher.fill_next_token_bitmask(bits, row)
            xgrammar.apply_token_bitmask_inplace(logits, bits)

        mask()
        _check(logits, stand)
        return mask

    return at


class _Tokens:
    """A tokenizer as llguidance asks for one."""

    eos_token_id, bos_token_id, special_token_ids = EOS, None, (EOS,)
    tokens = (*(text.encode() for text in VOCABULARY), b"<eos>")

    def __call__(self, text: bytes | str) -> list[int]:
        digits = text.decode() if isinstance(text, bytes) else text
        return [int(digits[place : place + 2], 16) for place in range(0, len(digits) - 1, 2)]


def _llguidance(texts: list[str]) -> Callable[[Stand], Mask]:
    import llguidance
    from llguidance.torch import (
        allocate_token_bitmask,
        apply_token_bitmask_inplace,
        fill_next_token_bitmask,
    )

    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Tokens()))
    grammar = llguidance.LLMatcher.grammar_from_regex("|".join(texts))
    # Its defaults allow a step as much work as some thousand alternatives need, and stop the matcher beyond that.
    limits = llguidance.LLParserLimits(
        initial_lexer_fuel=10**9, step_lexer_fuel=10**9, max_lexer_states=10**7, step_max_items=10**7
    )
    first = llguidance.LLMatcher(tokenizer, grammar, limits=limits)
    assert not first.is_error(), first.get_error()
    first.compute_bitmask()  # it is lazy: the first mask is part of compiling

    def at(stand: Stand) -> Mask:
        matchers = [first.deep_copy() for _ in stand.prefix]
        for matcher, prefix in zip(matchers, stand.prefix.tolist(), strict=True):
            assert matcher.consume_tokens(prefix)
        bits, logits = allocate_token_bitmask(len(matchers), CODES + 1), _logits(stand)

        def mask() -> None:
            for row, matcher in enumerate(matchers):
                fill_next_token_bitmask(matcher, bits, row)
            apply_token_bitmask_inplace(logits, bits)

        mask()
        for matcher in matchers:
            assert not matcher.is_error(), matcher.get_error()
        _check(logits, stand)
        return mask

    return at


def _outlines_core(texts: list[str]) -> Callable[[Stand], Mask]:
    import outlines_core
    from outlines_core.kernels.torch import (
        allocate_token_bitmask,
        apply_token_bitmask_inplace,
        fill_next_token_bitmask,
    )

    vocabulary = outlines_core.Vocabulary(EOS, {text: [code] for code, text in enumerate(VOCABULARY)})
    index = outlines_core.Index("|".join(texts), vocabulary)

    def at(stand: Stand) -> Mask:
        guides = [outlines_core.Guide(index) for _ in stand.prefix]
        for guide, prefix in zip(guides, stand.prefix.tolist(), strict=True):
            for token in prefix:
                guide.advance(token)
        bits = [allocate_token_bitmask(CODES + 1) for _ in guides]
        logits = _logits(stand)
        rows = [logits[row : row + 1] for row in range(len(guides))]

        def mask() -> None:
            for guide, row, own in zip(guides, rows, bits, strict=True):
                fill_next_token_bitmask(guide, own)
                apply_token_bitmask_inplace(row, own)

        mask()
        _check(logits, stand)
        return mask

    return at


COMPILERS: dict[str, tuple[Callable[[list[str]], Callable[[Stand], Mask]], str]] = {
    "xgrammar": (_xgrammar, "xgrammar"),
    "llguidance": (_llguidance, "llguidance.torch"),
    "outlines_core": (_outlines_core, "outlines_core.kernels.torch"),
}

if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
