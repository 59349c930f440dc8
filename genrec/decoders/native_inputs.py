"""Everything a native model's body reads, as ids of one vocabulary: words, the start, the catalog's rows, code paths.

To the body an item is a position like a word, so behind the contract of a language model's decoder a history is a
stretch of tokens, and only words can be answered. A plan is one position more: an item of the catalog, or, where its
codes are those of none, their path. numpy only: it serves the model in torch and its export.
"""

from __future__ import annotations

import math
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


def plan_ids(row: Int64Array, path: Int64Array, text_size: int, items: int) -> Int64Array:
    """int64[R]: the ids of plans.

    Args:
        row: int64[R], their catalog rows; -1 where the codes are those of no item.
        path: int64[R], the codes as one number (``np.ravel_multi_index``).
        text_size: V.
        items: N.
    """
    first = text_size + 1
    return first + np.where(row >= 0, row, items + path)


def input_ids(config: NativeConfig, items: int) -> int:
    """How many ids there are."""
    return config.text_size + 1 + items + math.prod(config.code_sizes)


def path_tokens(path: Int64Array, config: NativeConfig) -> Int64Array:
    """int64[R, L]: the token ids of the codes of paths."""
    codes = np.stack(np.unravel_index(path, config.code_sizes), 1)
    tokens: Int64Array = codes + np.array(config.offsets[:-1], np.int64)
    return tokens


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
    """Vectors by id, as if they were one matrix; those of items and paths are made when asked for.

    Args:
        text: float32[V, H].
        start: float32[H].
        codes: float32[C, H], the embedding of every code.
        item_vectors: catalog rows int64[n] to float32[n, H].
        items: N.
        config: the model's shape.
    """

    def __init__(
        self,
        text: Float32Array,
        start: Float32Array,
        codes: Float32Array,
        item_vectors: Callable[[Int64Array], Float32Array],
        items: int,
        config: NativeConfig,
    ) -> None:
        self._text, self._start, self._codes = text, start, codes
        self._item_vectors, self._items, self._config = item_vectors, items, config

    def __len__(self) -> int:
        """All ids there are."""
        return input_ids(self._config, self._items)

    def __getitem__(self, ids: Int64Array) -> Float32Array:
        """float32[..., H] of int64[...]."""
        start = len(self._text)
        vectors = np.empty((*ids.shape, len(self._start)), np.float32)
        vectors[ids < start] = self._text[ids[ids < start]]
        vectors[ids == start] = self._start
        row = ids - start - 1
        is_item, is_path = (row >= 0) & (row < self._items), row >= self._items
        vectors[is_item] = self._item_vectors(row[is_item])
        vectors[is_path] = self._codes[path_tokens(row[is_path] - self._items, self._config)].sum(1)
        return vectors
