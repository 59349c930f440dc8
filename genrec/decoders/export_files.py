"""What an export is made of: graphs and matrices written into a directory, from a model in torch.

::

    matrices/   embedding, head and the like, .npy, memory-mapped by whoever runs the export
    float32/    body.onnx, and head.onnx for a native model or a large vocabulary
                (text_sums.onnx where it is a native model's)
    int8/       the same with the matrices of the body quantised, where asked for

Nothing here is checked; that is :mod:`genrec.decoders.export_check`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open

from genrec.decoders.body_graph import BodyGraph
from genrec.decoders.body_shape import BodyShape
from genrec.decoders.exported import FLOAT32, INT8, MATRICES
from genrec.decoders.onnx_graph import GraphBuilder, ints, save_graph
from genrec.decoders.onnx_native import BODY_FILE, HEAD_FILE, TEXT_SUMS_FILE
from genrec.native_config import NativeConfig
from genrec.native_model import CodeHead, NativeModel
from index.errors import require
from index.types import FloatArray, IntArray

if TYPE_CHECKING:
    from transformers import PreTrainedModel


# From so many weights on a head's sums are a graph. Measured, one thread, 20 rows: 5.9 ms against 13 in numpy at
# vocabulary 32k, hidden 256, and 0.4 against 1.1 at 4k.
_HEAD_GRAPH_FROM = 2**20


@torch.no_grad()
def write_native(model: NativeModel, directory: Path) -> BodyShape:
    """Write the float export of a native model into an existing directory."""
    graph = BodyGraph(model.body)
    graphs = directory / FLOAT32
    graphs.mkdir()
    save_graph(graph.model(), graphs / BODY_FILE)
    save_graph(_head_graph(model.config), graphs / HEAD_FILE)
    heads = [head for head in model.heads if isinstance(head, CodeHead)]
    nothing = torch.zeros(model.config.head_size, model.config.hidden_size)
    from_prefix = [nothing if head.from_prefix is None else head.from_prefix.weight for head in heads]
    text: dict[str, FloatArray | IntArray] = {}
    if model.text is not None:
        text = {
            "text_embedding": array(model.text.embedding.weight),
            "text_bias": array(model.text.bias),
        }
        if text["text_embedding"].size >= _HEAD_GRAPH_FROM:
            sums = _sums_graph(array(model.text.embedding.weight), array(model.text.bias))
            save_graph(sums, graphs / TEXT_SUMS_FILE)
    write_matrices(
        directory,
        {
            "start": array(model.start),
            "code_embedding": array(model.code_embedding.weight),
            "code_bias": array(model.code_bias),
            "path_codes": model.paths.paths,
            "path_vector": array(model.path_vector.weight),
            "path_bias": array(model.path_bias),
            "from_hidden": np.concatenate([array(head.from_hidden.weight).T for head in heads], 1),
            "hidden_bias": np.concatenate([array(head.from_hidden.bias) for head in heads]),
            "from_prefix": np.stack([array(weight).T for weight in from_prefix]),
            "out": np.stack([array(head.out.weight).T for head in heads]),
            "out_bias": np.stack([array(head.out.bias) for head in heads]),
            **text,
        },
    )
    return graph.shape


@torch.no_grad()
def write_causal_lm(model: PreTrainedModel, directory: Path) -> BodyShape:
    """Write the float export of a causal language model of the transformers library.

    Raises:
        DecoderError: the model is of a family that cannot be exported.
    """
    graph = BodyGraph(model.base_model)
    (directory / FLOAT32).mkdir()
    save_graph(graph.model(), directory / FLOAT32 / BODY_FILE)
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    matrices: dict[str, FloatArray | IntArray] = {"embedding": array(embedding.weight)}
    if head.weight is not embedding.weight:
        matrices["head"] = array(head.weight)
    bias = None if getattr(head, "bias", None) is None else array(head.bias)
    if bias is not None:
        matrices["head_bias"] = bias
    if head.weight.numel() >= _HEAD_GRAPH_FROM:
        save_graph(_sums_graph(array(head.weight), bias), directory / FLOAT32 / HEAD_FILE)
    write_matrices(directory, matrices)
    return graph.shape


def write_matrices(directory: Path, matrices: dict[str, FloatArray | IntArray]) -> None:
    """Write ``matrices/*.npy``."""
    (directory / MATRICES).mkdir()
    for name, matrix in matrices.items():
        np.save(directory / MATRICES / f"{name}.npy", np.ascontiguousarray(matrix), allow_pickle=False)


def array(tensor: torch.Tensor) -> FloatArray:
    """A torch tensor as float32 numbers."""
    numbers: FloatArray = tensor.detach().float().cpu().numpy()
    return numbers


def quantise(directory: Path) -> None:
    """Write ``int8/`` from ``float32/``: the body's matrices as bytes with a scale per column."""
    onnx = require("onnx", extra="export", purpose="Quantising a model")
    require("onnxruntime", extra="export", purpose="Quantising a model")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source, target = directory / FLOAT32, directory / INT8
    target.mkdir()
    for name in (HEAD_FILE, TEXT_SUMS_FILE):  # these stay exact
        for head in source.glob(f"{name}*"):
            shutil.copyfile(head, target / head.name)
    body = onnx.load_model(source / BODY_FILE)
    # A whole graph comes in; its shapes need no inference first, of which onnxruntime would warn.
    body.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    quantize_dynamic(
        body,
        target / BODY_FILE,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=len(list(source.glob(f"{BODY_FILE}*"))) > 1,
    )


def stored_dtypes(directory: Path) -> str:
    """How the weights of a model directory are stored, ``"F32"`` or ``"BF16+F32"``."""
    kinds: set[str] = set()
    for path in directory.glob("*.safetensors"):
        with safe_open(path, "np") as weights:
            kinds |= {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    return "+".join(sorted(kinds))


def _head_graph(config: NativeConfig) -> Any:
    """One level's query from what its head sees of the prompt and the prefix; the matrices are inputs."""
    graph = GraphBuilder()
    size, inner = config.hidden_size, config.head_size
    projected = graph.input("projected", ("R", inner))
    moved = graph.op("MatMul", graph.input("prefix", ("R", size)), graph.input("from_prefix", (size, inner)))
    unit = graph.op("Gelu", graph.op("Add", projected, moved))
    query = graph.op("MatMul", unit, graph.input("out", (inner, size)))
    graph.output(graph.op("Add", query, graph.input("out_bias", (size,))), "query", ("R", size))
    return graph.model("head")


def _sums_graph(weight: FloatArray, bias: FloatArray | None) -> Any:
    """Hidden rows to the log of the sum of exp(logit) over the vocabulary; ``weight`` is [V, H]."""
    graph = GraphBuilder()
    logits = graph.linear(graph.input("hidden", ("R", weight.shape[1])), weight.T, bias)
    # What LogSoftmax takes off any column, here the first: one pass where a maximum, exponentials and a sum are four.
    first = ints(0)
    taken = graph.op("Gather", graph.op("LogSoftmax", logits, axis=-1), first, axis=1)
    difference = graph.op("Sub", graph.op("Gather", logits, first, axis=1), taken)
    sums = graph.op("Squeeze", difference, ints(1))
    graph.output(sums, "sums", ("R",))
    return graph.model("head")
