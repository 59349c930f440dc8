"""The words of an exported native model: the decoder of an exported language model over the native one's graphs.

The twin of :mod:`genrec.decoders.native_text` where torch is not installed. Codes and text share one session.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from genrec.decoders.base import Prompt
from genrec.decoders.key_values import KeyValues
from genrec.decoders.native_inputs import InputTable, check_marked, text_reader
from genrec.decoders.numpy_head import NumpyHead
from genrec.decoders.onnx_decoder import OnnxDecoder
from genrec.decoders.onnx_native import TEXT_SUMS_FILE, OnnxNativeDecoder
from genrec.decoders.onnx_session import Session
from genrec.decoders.planned_text import PlannedText
from index.artifact import load_array
from index.errors import IndexFormatError
from index.trie import TokenTrie
from index.types import Float32Array, Int64Array


def open_native_text(
    native: OnnxNativeDecoder, trie: TokenTrie, graphs: Path, matrices: Path, threads: int = 1
) -> PlannedText:
    """The text decoder of an exported native model; a prompt is items and a mark behind them.

    Args:
        native: the decoder of its codes.
        trie: of the catalog's codes.
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
    embedding = _matrix(matrices, "text_embedding")
    sums = graphs / TEXT_SUMS_FILE
    head = NumpyHead(
        embedding,
        _matrix(matrices, "text_bias"),
        Session(sums, threads) if sums.is_file() else None,
    )
    return PlannedText(native, OnnxNativeWords(native, embedding, head), trie, native.config)


class OnnxNativeWords(OnnxDecoder):
    """Reads the history, then the mark behind it.

    Args:
        native: the decoder of the codes; its body is shared.
        embedding: float32[V, H] of text tokens.
        head: hidden rows to logits.
    """

    def __init__(self, native: OnnxNativeDecoder, embedding: Float32Array, head: NumpyHead) -> None:
        super().__init__(
            native.body,
            InputTable(
                embedding,
                native.start,
                native.code_embedding,
                native.item_vectors,
                native.items,
                native.config,
            ),
            head,
            native.config.positions,
            reader=text_reader(native.config, native.items),
        )
        self._always_run = 2  # the end of the history and the mark: each is a call of its own

    def prompt_key(self, prompt: Prompt) -> Int64Array:
        """int64[P]: see :meth:`genrec.decoders.onnx_decoder.OnnxDecoder.prompt_key`.

        Raises:
            DecoderError: as there; or the prompt is not items and one mark.
        """
        ids = super().prompt_key(prompt)
        check_marked(ids, self.vocabulary)
        return ids

    def _read(self, keys: Sequence[Int64Array], memories: Sequence[KeyValues]) -> Float32Array:
        super()._read([ids[:-1] for ids in keys], memories)
        marks = self._embedding[np.array([ids[-1] for ids in keys])]
        first = np.array([len(ids) - 1 for ids in keys])
        return self._body.prefill(list(marks[:, None]), memories, first)


def _matrix(directory: Path, name: str) -> Float32Array:
    return np.asarray(load_array(directory, name), np.float32)
