"""The native model as one that writes text: the same body, behind the contract of a language model's decoder.

What its prompts become is :mod:`genrec.decoders.native_inputs`. It knows no trie, no titles and no scores.
"""

from __future__ import annotations

from torch import Tensor, nn

from genrec.decoders.causal_decoder import CausalDecoder
from genrec.decoders.model_body import StockBody
from genrec.decoders.native_inputs import text_reader
from genrec.decoders.output_head import OutputHead
from genrec.native_model import NativeModel
from genrec.text_branch import TextEnds
from index.errors import DecoderError


def native_text_decoder(model: NativeModel) -> CausalDecoder:
    """The decoder of a native model's text; a prompt is items and a mark behind them.

    It shares the model's weights: what trains the model changes it.

    Raises:
        DecoderError: the model writes no text.
    """
    if model.text is None:
        raise DecoderError(
            "expected a native model with a text vocabulary, got one of codes alone; "
            "train it on the tasks title and query"
        )
    return CausalDecoder(
        StockBody(model.eval().body),
        _Inputs(model, model.text),
        OutputHead(model.text.embedding.weight.detach(), model.text.bias.detach()),
        token_offset=0,
        max_positions=model.config.positions,
        reader=text_reader(model.config, len(model.item_tokens)),
    )


class _Inputs(nn.Module):
    """Ids to vectors; the twin of :class:`genrec.decoders.native_inputs.InputTable`."""

    def __init__(self, model: NativeModel, text: TextEnds) -> None:
        super().__init__()
        self._model, self._text = [model], text  # a list, so that the model is no part of this module
        self._start = text.embedding.num_embeddings
        self.num_embeddings = self._start + 1 + len(model.item_tokens)

    def forward(self, ids: Tensor) -> Tensor:
        """[..., H] of int64[...]."""
        (model,) = self._model
        vectors = model.start.new_empty((*ids.shape, len(model.start)))
        vectors[ids < self._start] = self._text.embedding(ids[ids < self._start])
        vectors[ids == self._start] = model.start
        is_item = ids > self._start
        vectors[is_item] = model.item_vectors((ids[is_item] - self._start - 1)[:, None])[:, 0]
        return vectors
