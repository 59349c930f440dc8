"""The text of an exported native model: the decoder of an exported language model over the native one's graphs.

The twin of :mod:`genrec.decoders.native_text` where torch is not installed. Codes and text share one session.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from genrec.decoders.native_inputs import InputTable, text_reader
from genrec.decoders.numpy_head import NumpyHead
from genrec.decoders.onnx_decoder import OnnxDecoder
from genrec.decoders.onnx_native import TEXT_SUMS_FILE, OnnxNativeDecoder
from genrec.decoders.onnx_session import Session
from index.artifact import load_array
from index.errors import IndexFormatError


def open_native_text(
    native: OnnxNativeDecoder, graphs: Path, matrices: Path, threads: int = 1
) -> OnnxDecoder:
    """The text decoder of an exported native model; a prompt is items and a mark behind them.

    Args:
        native: the decoder of its codes.
        graphs: directory of the graphs.
        matrices: directory of the matrices.
        threads: CPU threads of a graph.

    Raises:
        IndexFormatError: the export has no text, or a file is missing or damaged.
    """
    if not native.config.text_size:
        raise IndexFormatError(
            "expected the export of a native model that writes text, got one of codes alone; "
            "train the bundle on the tasks title and query"
        )
    embedding = np.asarray(load_array(matrices, "text_embedding"), np.float32)
    sums = graphs / TEXT_SUMS_FILE
    head = NumpyHead(
        embedding,
        np.asarray(load_array(matrices, "text_bias"), np.float32),
        Session(sums, threads) if sums.is_file() else None,
    )
    return OnnxDecoder(
        native.body,
        InputTable(embedding, native.start, native.item_vectors, native.items),
        head,
        native.config.positions,
        reader=text_reader(native.config, native.items),
    )
