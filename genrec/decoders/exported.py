"""What a bundle's manifest says of its export, and opening it: whichever model it is, a decoder without torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from genrec.decoders.base import ReusesPrompts
from genrec.decoders.body_shape import BodyShape
from genrec.decoders.onnx_decoder import OnnxDecoder
from genrec.decoders.onnx_native import OnnxNativeDecoder
from genrec.decoders.onnx_native_text import open_native_text
from genrec.decoders.prompt_reader import HistoryForm, PromptReader
from genrec.native_config import CONFIG_FILE, NativeConfig
from genrec.tasks import TASKS
from index.errors import IndexFormatError
from index.item_index import ItemIndex

EXPORT = "export"
"""Key of a bundle's manifest."""
DIRECTORY = "onnx"
"""Directory of a bundle's files."""
MATRICES = "matrices"
NATIVE, CAUSAL_LM, ENCODER_DECODER = "native", "causal_lm", "encoder_decoder"
Graph: TypeAlias = Literal["float32", "int8"]
FLOAT32: Graph = "float32"
INT8: Graph = "int8"
FORMAT = 1

DEFAULT_GATE = 0.95
"""Share of the float model's best items that a quantised one must find to be kept."""
DEFAULT_CHECKS = 3
"""Random batches on which an export is compared with torch."""


@dataclass(frozen=True, slots=True)
class ExportFacts:
    """An export as the manifest records it."""

    family: str  # of the model
    opset: int
    versions: Mapping[str, str | None]  # of the packages it was made with
    source: Mapping[str, str]  # sha256 of every file of the model it was made from
    source_dtype: str  # of the model's weights; graphs and matrices are float32, but for int8
    body: BodyShape
    max_positions: int | None
    graphs: Mapping[str, Mapping[str, Any]]  # how well each agrees with the model in torch
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExportFacts:
        """Read :meth:`to_dict` back.

        Raises:
            IndexFormatError: an unknown or missing key, or another format.
        """
        try:
            facts = cls(**{**values, "body": BodyShape.from_dict(values["body"])})
        except (TypeError, KeyError) as error:
            raise IndexFormatError(
                f"expected an export described by {cls.__slots__}, got {sorted(values)}; export the bundle again"
            ) from error
        if facts.format != FORMAT:
            raise IndexFormatError(
                f"expected an export of format {FORMAT}, got {facts.format}; export the bundle again"
            )
        return facts


def history_reader(model: Mapping[str, Any], index: ItemIndex) -> PromptReader:
    """How the language model of a bundle reads a history; ``model`` is the manifest's entry."""
    if "history" not in model:
        return PromptReader()
    item_tokens = index.level_tokens + int(model["token_offset"])
    return PromptReader(HistoryForm.from_dict(model["history"]), item_tokens)


def open_export(
    files: Path,
    facts: ExportFacts,
    model: Mapping[str, Any],
    index: ItemIndex,
    graph: Graph,
    threads: int,
    tasks: Collection[str],
) -> dict[str, ReusesPrompts]:
    """A decoder of an export for each task.

    Args:
        files: the bundle's files.
        facts: the manifest's entry of the export.
        model: the manifest's entry of the model.
        index: the bundle's.
        graph: which variant.
        threads: CPU threads of one call.
        tasks: what the decoders are for; they share the sessions.

    Raises:
        IndexFormatError: the variant was not exported, the family is unknown or has no such task, or a file is
            missing or damaged.
        MissingDependencyError: onnxruntime is not installed.
    """
    if graph not in facts.graphs:
        raise IndexFormatError(
            f"expected an export with the graph {graph!r}, got {sorted(facts.graphs)}; run: genrec export BUNDLE"
            + (" --int8" if graph == INT8 else "")
        )
    graphs, matrices = files / DIRECTORY / graph, files / DIRECTORY / MATRICES
    if facts.family == NATIVE:
        config = NativeConfig.from_dict(json.loads((files / "model" / CONFIG_FILE).read_text("utf-8")))
        native = OnnxNativeDecoder(graphs, matrices, config, facts.body, index.codes, threads)
        if not any(TASKS[name].is_text for name in tasks):
            return dict.fromkeys(tasks, native)
        writer = open_native_text(native, index.trie, graphs, matrices, threads)
        return {name: writer if TASKS[name].is_text else native for name in tasks}
    if facts.family == CAUSAL_LM:
        codes = OnnxDecoder.open(
            graphs,
            matrices,
            facts.body,
            facts.max_positions,
            int(model["token_offset"]),
            history_reader(model, index),
            threads,
        )
        text = codes.with_offset(0)
        return {name: text if TASKS[name].is_text else codes for name in tasks}
    raise IndexFormatError(
        f"expected an exported model of family '{NATIVE}' or '{CAUSAL_LM}', got {facts.family!r}; update genrec"
    )
