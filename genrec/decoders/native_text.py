"""The native model as one that writes words: the same body, behind the contract of a language model's decoder.

What its prompts become is :mod:`genrec.decoders.native_inputs`, what stands between a prompt and the words
:mod:`genrec.decoders.planned_text`. It knows no titles and no scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from genrec.decoders.base import Prompt
from genrec.decoders.causal_decoder import CausalDecoder
from genrec.decoders.kv_cache import TorchState
from genrec.decoders.model_body import StockBody
from genrec.decoders.native_decoder import NativeDecoder
from genrec.decoders.native_inputs import check_marked, input_ids, path_tokens, text_reader
from genrec.decoders.output_head import OutputHead
from genrec.decoders.planned_text import PlannedText
from genrec.decoders.tree_mask import RaggedRows
from genrec.native_model import NativeModel
from genrec.text_branch import TextEnds
from index.errors import DecoderError
from index.trie import TokenTrie
from index.types import Int64Array


def native_text_decoder(model: NativeModel, trie: TokenTrie) -> PlannedText:
    """The decoder of a native model's text; a prompt is items and a mark behind them.

    It shares the model's weights: what trains the model changes it.

    Args:
        model: in whatever mode; it is put into evaluation mode.
        trie: of the catalog's codes.

    Raises:
        DecoderError: the model writes no text.
    """
    if model.text is None:
        raise DecoderError(
            "expected a native model with a text vocabulary, got one of codes alone; "
            "train it on the tasks title and query"
        )
    model.eval()
    return PlannedText(NativeDecoder(model), NativeWords(model, model.text), trie, model.config)


class NativeWords(CausalDecoder):
    """Reads the history, then the mark behind it."""

    def __init__(self, model: NativeModel, text: TextEnds) -> None:
        super().__init__(
            StockBody(model.body),
            _Inputs(model, text),
            OutputHead(text.embedding.weight.detach(), text.bias.detach()),
            token_offset=0,
            max_positions=model.config.positions,
            reader=text_reader(model.config, len(model.item_tokens)),
        )
        self._always_run = 2  # the end of the history and the mark: each is a call of its own

    def prompt_key(self, prompt: Prompt) -> Int64Array:
        """int64[P]: see :meth:`genrec.decoders.tree_decoder.TreeDecoder.prompt_key`.

        Raises:
            DecoderError: as there; or the prompt is not items and one mark.
        """
        ids = super().prompt_key(prompt)
        check_marked(ids, self.vocabulary)
        return ids

    def _read(self, states: Sequence[TorchState], keys: Sequence[Int64Array]) -> torch.Tensor:
        super()._read(states, [ids[:-1] for ids in keys])
        for state, ids in zip(states, keys, strict=True):
            state.prompt_length = len(ids) - 1
        rows = RaggedRows(np.arange(len(keys)))
        marks = self._embed(rows, np.array([ids[-1] for ids in keys]))
        first = np.array([len(ids) - 1 for ids in keys])
        return self._advance(states, rows, marks, first)


class _Inputs(nn.Module):
    """Ids to vectors; the twin of :class:`genrec.decoders.native_inputs.InputTable`."""

    def __init__(self, model: NativeModel, text: TextEnds) -> None:
        super().__init__()
        self._model, self._text = [model], text  # a list, so that the model is no part of this module
        self._start = text.embedding.num_embeddings
        self._items = len(model.item_tokens)
        self.num_embeddings = input_ids(model.config, self._items)

    def forward(self, ids: Tensor) -> Tensor:
        """[..., H] of int64[...]."""
        (model,) = self._model
        vectors = model.start.new_empty((*ids.shape, len(model.start)))
        vectors[ids < self._start] = self._text.embedding(ids[ids < self._start])
        vectors[ids == self._start] = model.start
        row = ids - self._start - 1
        is_item, is_path = (row >= 0) & (row < self._items), row >= self._items
        vectors[is_item] = model.item_vectors(row[is_item][:, None])[:, 0]
        path = path_tokens((row[is_path] - self._items).numpy(force=True), model.config)
        vectors[is_path] = model.code_embedding(torch.from_numpy(path).to(ids.device)).sum(1)
        return vectors
