"""The models of a bundle, ready to search with: one decoder per task, sharing what they can.

A model is loaded once. Codes and text have token ids of their own, so each task gets a decoder that reads the
ids of its answers; the weights below are the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, TypeAlias

from genrec.decoders.base import Decoder
from genrec.decoders.exported import (
    CAUSAL_LM,
    ENCODER_DECODER,
    FLOAT32,
    INT8,
    NATIVE,
    ExportFacts,
    history_reader,
    open_export,
)
from genrec.tasks import TASKS
from index.errors import IndexFormatError, MissingDependencyError, require

if TYPE_CHECKING:
    from genrec.bundle import Bundle

DecoderName: TypeAlias = Literal["auto", "onnx", "onnx-int8", "torch"]
"""What runs a bundle's model: its export, the quantised one, torch, or the export where it can be run."""


def open_decoders(
    bundle: Bundle, tasks: Collection[str], name: DecoderName, threads: int
) -> Mapping[str, Decoder]:
    """A decoder for each task; see :meth:`genrec.bundle.Bundle.decoders`."""
    if name == "torch":  # also where an export is out of date, so that it can be made anew
        return _in_torch(bundle, tasks)
    export = bundle.export
    if name == "auto" and _prefers_torch(bundle, export):
        return _in_torch(bundle, tasks)
    if export is None:
        raise IndexFormatError(
            f"expected an export in {bundle.artifact.path}, got none; run: genrec export {bundle.artifact.path}"
        )
    graph = INT8 if name == "onnx-int8" else FLOAT32
    return open_export(
        bundle.artifact.files, export, bundle.artifact.manifest["model"], bundle.index, graph, threads, tasks
    )


def _prefers_torch(bundle: Bundle, export: ExportFacts | None) -> bool:
    if export is not None and find_spec("onnxruntime"):
        return False
    if find_spec("torch"):
        return True
    path = bundle.artifact.path
    raise MissingDependencyError(
        "expected onnxruntime to run the exported model, found neither it nor torch; "
        "install it with: pip install 'genrec[serve]'"
        if export is not None
        else f"expected an exported model, or torch to run one that is not, found neither; where torch is "
        f"installed run: genrec export {path}; or install it with: pip install 'genrec[train]'"
    )


def _in_torch(bundle: Bundle, tasks: Collection[str]) -> Mapping[str, Decoder]:
    families = (NATIVE, CAUSAL_LM, ENCODER_DECODER)
    if bundle.family not in families:
        raise IndexFormatError(
            f"expected a model of family {' or '.join(map(repr, families))} in {bundle.artifact.path}, got "
            f"{bundle.family!r}; update genrec, or train the bundle again with this version"
        )
    require("torch", extra="train", purpose="Running a model that has not been exported")
    return _native(bundle, tasks) if bundle.family == NATIVE else _language_model(bundle, tasks)


def _native(bundle: Bundle, tasks: Collection[str]) -> Mapping[str, Decoder]:
    from genrec.decoders.native_decoder import NativeDecoder
    from genrec.native_model import NativeModel

    model = NativeModel.load(bundle.artifact.files / "model", bundle.index.codes)
    decoder = NativeDecoder(model)
    if not any(TASKS[name].is_text for name in tasks):
        return dict.fromkeys(tasks, decoder)
    from genrec.decoders.native_text import native_text_decoder

    writer = native_text_decoder(model, bundle.index.trie)
    return {name: writer if TASKS[name].is_text else decoder for name in tasks}


def _language_model(bundle: Bundle, tasks: Collection[str]) -> Mapping[str, Decoder]:
    from genrec.decoders.encoder_decoder import EncoderDecoder
    from genrec.decoders.torch_decoder import TorchDecoder

    facts = bundle.artifact.manifest["model"]
    kind = EncoderDecoder if bundle.family == ENCODER_DECODER else TorchDecoder
    codes = kind.load(
        bundle.artifact.files / "model",
        int(facts["token_offset"]),
        reader=history_reader(facts, bundle.index),
    )
    text = codes.with_offset(0)
    return {name: text if TASKS[name].is_text else codes for name in tasks}
