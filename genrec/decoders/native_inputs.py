"""Everything a native model's body reads, as ids of one vocabulary: text tokens, the start, then the catalog's rows.

To the body an item is a position like a text token, so behind the contract of a language model's decoder a history
is a stretch of tokens, and only the text tokens among them can be answered. numpy only: it serves the model in torch
and its export.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from genrec.decoders.code_states import BLOCKS
from genrec.decoders.prompt_reader import HistoryForm, PromptReader
from genrec.native_config import NativeConfig
from index.errors import DecoderError
from index.types import Float32Array, Int64Array


def text_reader(config: NativeConfig, items: int) -> PromptReader:
    """How prompts of items and a mark become ids; histories are cut as they are for codes."""
    start = config.text_size
    form = HistoryForm((start,), config.max_items, max(1, config.max_items // BLOCKS))
    return PromptReader(form, start + 1 + np.arange(items)[:, None])


def check_marked(ids: Int64Array, text_size: int) -> None:
    """Refuse a prompt that is not a history and one mark behind it.

    Raises:
        DecoderError: it is not.
    """
    if len(ids) < 2 or ids[-1] >= text_size or (ids[:-1] < text_size).any():
        raise DecoderError(
            f"expected a prompt of items and one mark behind them, got {int((ids < text_size).sum())} tokens; "
            "make prompts by TASKS['title'].prompt and its like"
        )


class InputTable:
    """Vectors by id, as if they were one matrix [V + 1 + N, H]; those of items are made when asked for.

    Args:
        text: float32[V, H].
        start: float32[H].
        item_vectors: catalog rows int64[n] to float32[n, H].
        items: N.
    """

    def __init__(
        self,
        text: Float32Array,
        start: Float32Array,
        item_vectors: Callable[[Int64Array], Float32Array],
        items: int,
    ) -> None:
        self._text, self._start, self._item_vectors, self._items = text, start, item_vectors, items

    def __len__(self) -> int:
        """V + 1 + N."""
        return len(self._text) + 1 + self._items

    def __getitem__(self, ids: Int64Array) -> Float32Array:
        """float32[..., H] of int64[...]."""
        start = len(self._text)
        vectors = np.empty((*ids.shape, len(self._start)), np.float32)
        vectors[ids < start] = self._text[ids[ids < start]]
        vectors[ids == start] = self._start
        vectors[ids > start] = self._item_vectors(ids[ids > start] - start - 1)
        return vectors
