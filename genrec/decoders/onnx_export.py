"""``genrec export``: a bundle's model as ONNX graphs and matrices, checked against torch, saved with the bundle.

The export becomes part of the bundle in one moment, or not at all; exporting again replaces it. Needs torch and
the ``onnx`` package; running the result needs neither (:mod:`genrec.decoders.exported`).
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from genrec.bundle import Bundle, changing_bundle, load_bundle
from genrec.decoders.base import Decoder, Items, ReusesPrompts, Tokens
from genrec.decoders.causal_decoder import CausalDecoder
from genrec.decoders.export_check import CheckCases, Difference, compare, require_equal, top_overlap
from genrec.decoders.export_files import quantise, stored_dtypes, write_causal_lm, write_native
from genrec.decoders.exported import (
    DEFAULT_CHECKS,
    DEFAULT_GATE,
    DIRECTORY,
    EXPORT,
    FLOAT32,
    INT8,
    NATIVE,
    ExportFacts,
    Graph,
    open_export,
)
from genrec.decoders.native_decoder import NativeDecoder
from genrec.decoders.onnx_graph import OPSET
from genrec.decoders.planned_text import PlannedText
from genrec.decoders.torch_decoder import TorchDecoder
from genrec.tasks import TASKS
from index.errors import DecoderError, RequestError, require
from index.types import IntArray

OVERLAP_TOP = 20
"""The quantised model is measured by the share of the float model's so many best items that it finds."""

_PACKAGES = ("numpy", "onnx", "onnxruntime", "torch", "transformers")
_OVERLAP_REQUESTS = 200
_OVERLAP_ITEMS = 30  # longest random history
_LENGTHS = (1, 256, 7, 64, 2)  # tokens of the prompts a language model is compared on
_DEPTH = 4  # tokens fed behind them


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export wrote and how well it agrees."""

    path: Path
    family: str
    files: dict[str, int]  # name -> bytes
    worst: Difference
    overlap: float | None  # of int8 with float32
    seconds: float


def export_bundle(
    path: Path,
    *,
    int8: bool = False,
    gate: float = DEFAULT_GATE,
    checks: int = DEFAULT_CHECKS,
    histories: Sequence[IntArray] | None = None,
    stage: Callable[[str], None] | None = None,
) -> ExportReport:
    """Export the model of a bundle and save it there.

    Args:
        path: the bundle.
        int8: add a quantised variant, chosen by name when the bundle is loaded.
        gate: share of the float model's top 20 the quantised one must find.
        checks: random batches compared with torch, at least one.
        histories: int[P] each, catalog rows, to measure the quantised model on; random ones where not given.
        stage: told what happens.

    Raises:
        DecoderError: the model cannot be exported, differs from torch, or int8 is below the gate. The bundle is
            as it was.
        RequestError: ``checks`` or ``gate`` make no sense.
        IndexFormatError: the path is no bundle, or a damaged one.
        MissingDependencyError: torch, onnx or onnxruntime is not installed.
    """
    if checks < 1 or not 0.0 <= gate <= 1.0:
        raise RequestError(f"expected checks >= 1 and a gate of 0 to 1, got {checks} and {gate:g}")
    for package in ("onnx", "onnxruntime"):
        require(package, extra="export", purpose="Exporting a model")
    started = time.monotonic()
    say = stage or (lambda _: None)
    say("comparing file hashes")
    bundle = load_bundle(path, verify=True)
    tasks = _compared_tasks(bundle)
    references = bundle.decoders("torch", tasks=tasks)
    with changing_bundle(bundle, replacing=DIRECTORY) as (files, manifest):
        directory = files / DIRECTORY
        directory.mkdir()
        say("writing graphs and matrices")
        facts = _write(bundle, references[tasks[0]], directory)

        def opened(graph: Graph) -> Mapping[str, ReusesPrompts]:
            model = bundle.artifact.manifest["model"]
            return open_export(files, facts, model, bundle.index, graph, 1, tasks)

        say("comparing with torch")
        exported = opened(FLOAT32)
        worst = Difference(0.0, "nowhere", 0)
        for task, reference in references.items():
            for seed in range(checks):
                cases = _cases(bundle, task, reference, seed)
                worst = worst.worse(compare(reference, exported[task], cases, seed).told_of(task))
        require_equal(worst)
        agreement = {"difference": worst.share, "worst_case": worst.case, "logits": worst.logits}
        facts = replace(facts, graphs={FLOAT32: agreement})
        overlap = None
        if int8:
            say("quantising")
            quantise(directory)
            facts = replace(facts, graphs={**facts.graphs, INT8: {}})
            say(f"comparing the top {OVERLAP_TOP} of quantised and float")
            quantised = opened(INT8)
            overlap = min(
                _overlap(bundle, task, exported[task], quantised[task], histories) for task in tasks
            )
            if not overlap >= gate:
                raise DecoderError(
                    f"expected int8 to find {gate:.1%} of the float model's top {OVERLAP_TOP}, got {overlap:.1%}; "
                    f"nothing was written. Export without --int8, or lower --gate"
                )
            facts = replace(facts, graphs={**facts.graphs, INT8: {"overlap": overlap, "gate": gate}})
        manifest[EXPORT] = facts.to_dict()
        written = {
            one.relative_to(directory).as_posix(): one.stat().st_size
            for one in sorted(directory.rglob("*"))
            if one.is_file()
        }
        say("saving")
    return ExportReport(path, bundle.family, written, worst, overlap, time.monotonic() - started)


def _compared_tasks(bundle: Bundle) -> list[str]:
    """A task for each way the model has of answering.

    A language model has one: its answers may be any token, codes among them, and text shows more of it. A native
    model writes codes by its own heads and text by another.
    """
    text = [name for name in bundle.modes if TASKS[name].is_text][:1]
    codes = [name for name in bundle.modes if not TASKS[name].is_text][:1]
    return [*codes, *text] if bundle.family == NATIVE else (text or codes)


def _write(bundle: Bundle, reference: Decoder, directory: Path) -> ExportFacts:
    if isinstance(reference, NativeDecoder):
        shape, limit = write_native(reference.model, directory), None
    elif isinstance(reference, TorchDecoder):
        shape, limit = write_causal_lm(reference.model, directory), reference.max_positions
    else:
        raise DecoderError(
            f"expected a native model or a causal language model to export, got {type(reference).__name__}, which "
            "torch runs; leave the bundle as it is, or train a model that can be exported"
        )
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return ExportFacts(
        family=bundle.family,
        opset=OPSET,
        versions=versions,
        source=bundle.model_hashes(),
        source_dtype=stored_dtypes(bundle.artifact.files / "model"),
        body=shape,
        max_positions=limit,
        graphs={FLOAT32: {}},
    )


def _cases(bundle: Bundle, task: str, reference: Decoder, seed: int) -> CheckCases:
    if isinstance(reference, NativeDecoder):
        return native_cases(reference, seed)
    if isinstance(reference, PlannedText):
        return native_text_cases(reference, len(bundle.index.catalog), seed)
    assert isinstance(reference, CausalDecoder)
    return language_cases(reference, seed)


def native_cases(decoder: NativeDecoder, seed: int) -> CheckCases:
    """Histories of none to more items than are read, and the codes of every level."""
    rng = np.random.default_rng(seed)
    config, items = decoder.config, len(decoder.model.item_tokens)
    lengths = (0, config.max_items + 2, 1, 5, config.max_items - 1)
    rows = [rng.integers(0, items, length) for length in lengths]
    longer = [np.append(one, rng.integers(0, items, 2)) for one in rows]
    return CheckCases(
        prompts=tuple((Items(one),) for one in rows),
        longer=tuple((Items(one),) for one in longer),
        lengths=lengths,
        tokens_at=lambda depth: (config.offsets[depth], config.offsets[depth + 1]),
        depth=config.levels,
    )


def native_text_cases(decoder: PlannedText, items: int, seed: int) -> CheckCases:
    """Histories as for codes, a mark behind them, and answers of codes of every level and all words.

    Few of such plans name an item, so both kinds of plan are fed.
    """
    rng = np.random.default_rng(seed)
    config = decoder.config
    lengths = (0, config.max_items + 2, 1, 5, config.max_items - 1)
    rows = [rng.integers(0, items, length) for length in lengths]
    marks = [Tokens(rng.integers(0, config.text_size, 1)) for _ in rows]
    longer = [np.append(one, rng.integers(0, items, 2)) for one in rows]

    def tokens_at(depth: int) -> tuple[int, int]:
        if depth >= config.levels:
            return 0, config.text_size
        return config.text_size + config.offsets[depth], config.text_size + config.offsets[depth + 1]

    return CheckCases(
        prompts=tuple((Items(one), mark) for one, mark in zip(rows, marks, strict=True)),
        longer=tuple((Items(one), mark) for one, mark in zip(longer, marks, strict=True)),
        lengths=lengths,
        tokens_at=tokens_at,
        depth=config.levels + _DEPTH,
    )


def language_cases(decoder: CausalDecoder, seed: int) -> CheckCases:
    """Random tokens of the whole vocabulary; answers of those a search may name."""
    rng = np.random.default_rng(seed)
    longest = max(1, (decoder.max_positions or 2**31) - _DEPTH - 3)
    lengths = tuple(min(length, longest) for length in _LENGTHS)
    ids = [rng.integers(0, decoder.vocabulary, length) for length in lengths]
    longer = [np.append(one, rng.integers(0, decoder.vocabulary, 3)) for one in ids]
    return CheckCases(
        prompts=tuple((Tokens(one),) for one in ids),
        longer=tuple((Tokens(one),) for one in longer),
        lengths=lengths,
        tokens_at=lambda depth: (0, decoder.vocabulary - decoder.token_offset),
        depth=_DEPTH,
    )


def _overlap(
    bundle: Bundle, task: str, exported: Decoder, quantised: Decoder, histories: Sequence[IntArray] | None
) -> float:
    rng, items = np.random.default_rng(0), len(bundle.index.catalog)
    lengths = rng.integers(1, _OVERLAP_ITEMS, _OVERLAP_REQUESTS)
    rows = histories or [rng.integers(0, items, length) for length in lengths]
    prompts = [TASKS[task].prompt(bundle.speech, np.asarray(one, np.int64)) for one in rows]
    defaults = bundle.tasks[task]
    return top_overlap(
        exported,
        quantised,
        bundle.text.titles if bundle.text is not None and TASKS[task].is_text else bundle.index.trie,
        prompts,
        k=OVERLAP_TOP,
        beam=max(defaults.beam, OVERLAP_TOP),
        normalize=defaults.normalize,
    )
