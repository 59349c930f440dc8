"""TreeDecoder: what every decoder run by torch shares once its prompt is read.

All live prefixes of a request stand on the sequence axis behind its prompt; an additive mask lets each token see
the prompt, its ancestors and itself, and its position is prompt length + token depth. How a prompt is read, and how
the layers run, is for :mod:`genrec.decoders.torch_decoder` (causal language models) and
:mod:`genrec.decoders.encoder_decoder` to say. This module knows no trie, no items and no scores.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Self

import numpy as np
import torch

from genrec.decoders.base import Hidden, Prompt, State
from genrec.decoders.kv_cache import TorchState
from genrec.decoders.output_head import OutputHead, numpy_of
from genrec.decoders.prompt_reader import PromptReader
from genrec.decoders.tree_mask import RaggedRows, check_parents, tree_mask
from index.errors import DecoderError
from index.types import BoolArray, Float32Array, Int64Array, IntArray

# How far a probe's logits may be from the model's own, as a share of the largest (at least 1): float32
# rounding, or the rounding of half precisions, which keep 8 to 11 bits.
_TOLERANCE, _HALF_TOLERANCE = 1e-4, 5e-2


class TreeDecoder(ABC):
    """A tree of tokens behind each prompt, embedded, run and scored.

    Args:
        embedding: token ids to vectors.
        head: hidden rows to logits.
        token_offset: added to every token id that comes from the search. Semantic-ID tokens sit behind the
            text vocabulary, so a trie may count them from 0. Ids in prompts are vocabulary ids already.
        max_positions: tokens that may stand one behind the other; None where there is no limit.
        reader: how prompts become tokens.

    Raises:
        DecoderError: ``token_offset`` is outside the vocabulary.
    """

    def __init__(
        self,
        embedding: torch.nn.Module,
        head: OutputHead,
        token_offset: int,
        max_positions: int | None,
        reader: PromptReader,
    ) -> None:
        self._embedding = embedding
        self._head = head
        # A prompt may hold what an answer cannot, such as a native model's items.
        self._inputs = int(getattr(embedding, "num_embeddings", head.vocabulary))
        self._reader = reader
        self.max_positions = max_positions
        self._check_offset(token_offset)
        self.token_offset = token_offset

    def with_offset(self, token_offset: int) -> Self:
        """A decoder of the same model for answers whose token ids start elsewhere; text starts at 0.

        Raises:
            DecoderError: the offset is outside the vocabulary.
        """
        self._check_offset(token_offset)
        other = copy(self)
        other.token_offset = token_offset
        return other

    @property
    def vocabulary(self) -> int:
        """V, the rows of the head."""
        return self._head.vocabulary

    def prompt_key(self, prompt: Prompt) -> Int64Array:
        """int64[P]: the token ids the model would read; see :class:`genrec.decoders.base.ReusesPrompts`."""
        ids = self._reader.ids(prompt)
        self._check_tokens(ids, self._inputs)
        self._check_positions(len(ids) - 1)
        return ids

    @torch.inference_mode()
    def extend(self, states: Sequence[State], request: IntArray, token: IntArray, parent: IntArray) -> Hidden:
        """Feed one token to each of R prefixes; see :meth:`genrec.decoders.base.Decoder.extend`.

        Raises:
            DecoderError: the rows are not in request order, a state is another decoder's or comes twice, a
                parent is not an earlier slot, a token is outside the vocabulary, or a prefix outgrows the
                model's positions. No state has changed then.
        """
        if (np.diff(request) < 0).any():
            raise DecoderError("expected rows in the order of their requests, got a request that falls")
        active, request = np.unique(request, return_inverse=True)  # requests without rows take no padding
        rows = RaggedRows(request)
        if not len(rows):
            return self._no_hidden()
        used = self._own_states([states[index] for index in active])
        ids = np.asarray(token, np.int64) + self.token_offset
        parents = np.asarray(parent, np.int64)
        self._check_tokens(ids, self._inputs)
        check_parents([state.slots for state in used], rows, parents)
        prompt_length = np.array([state.prompt_length for state in used])
        sees, depth = tree_mask(prompt_length, [state.parent for state in used], rows, parents)
        position = prompt_length[rows.request] + depth
        self._check_positions(int(position.max()))
        hidden = self._run(used, rows, ids, position, sees)
        for state, grown in zip(used, rows.split(parents), strict=True):
            state.parent = np.concatenate([state.parent, grown])
        return numpy_of(hidden[torch.from_numpy(rows.request), torch.from_numpy(rows.column)])

    @torch.inference_mode()
    def edge_logits(self, hidden: Hidden, row: IntArray, token: IntArray) -> Float32Array:
        """float32[E]: the logit of ``token[e]`` after hidden row ``row[e]``, computing no others.

        Raises:
            DecoderError: a token is outside the vocabulary.
        """
        ids = np.asarray(token, np.int64) + self.token_offset
        self._check_tokens(ids)
        return self._head.edge_logits(self._on_device(hidden), np.asarray(row, np.int64), ids)

    @torch.inference_mode()
    def log_normalizer(self, hidden: Hidden, depth: IntArray) -> Float32Array:
        """float32[R]: log of the sum of exp(logit) over the whole vocabulary, at any depth."""
        return self._head.log_normalizer(self._on_device(hidden))

    @torch.inference_mode()
    def logits(self, hidden: Hidden) -> Float32Array:
        """float32[R, V]: all logits after each hidden row; see :class:`genrec.decoders.base.ScoresVocabulary`."""
        return self._head.all_logits(self._on_device(hidden))[:, self.token_offset :]

    @abstractmethod
    def _run(
        self,
        states: Sequence[TorchState],
        rows: RaggedRows,
        ids: Int64Array,
        position: Int64Array,
        sees: BoolArray,
    ) -> torch.Tensor:
        """[B, Q, H]: run R new tokens (``ids`` and ``position`` int64[R]) and keep their keys and values.

        ``sees`` is bool[B, Q, past + Q], as :func:`genrec.decoders.tree_mask.tree_mask` makes it.
        """

    def _own_states(self, states: Sequence[State]) -> list[TorchState]:
        """The states, checked to be this kind of decoder's.

        Raises:
            DecoderError: one is not, or comes twice.
        """
        own = [state for state in states if isinstance(state, TorchState)]
        if len(own) < len(states):
            raise DecoderError(
                f"expected states made by {type(self).__name__}.prefill, got those of another decoder"
            )
        if len({id(state) for state in own}) < len(own):
            raise DecoderError("expected each request to have its own state, got one twice; fork it")
        return own

    def _embed(self, rows: RaggedRows, ids: Int64Array) -> torch.Tensor:
        """[B, Q, H]."""
        embedded: torch.Tensor = self._embedding(torch.from_numpy(rows.pad(ids)).to(self._device))
        return embedded

    @property
    def _device(self) -> torch.device:
        return self._head.weight.device

    def _on_device(self, hidden: Hidden) -> torch.Tensor:
        # torch warns of arrays that may not be written; such a one is copied.
        array = np.require(hidden, np.float32, ["C", "W"])
        return torch.from_numpy(array).to(self._device, self._head.weight.dtype)

    def _no_hidden(self) -> Hidden:
        return np.empty((0, self._head.weight.shape[1]), np.float32)

    def _check_offset(self, token_offset: int) -> None:
        if not 0 <= token_offset < self.vocabulary:
            raise DecoderError(f"expected 0 <= token_offset < {self.vocabulary}, got {token_offset}")

    def _check_tokens(self, ids: Int64Array, most: int | None = None) -> None:
        most = self.vocabulary if most is None else most
        if len(ids) and not 0 <= ids.min() <= ids.max() < most:
            raise DecoderError(
                f"expected token ids in 0 .. {most - 1}, got {ids.min()} .. {ids.max()} "
                f"(token_offset {self.token_offset}); use the tokenizer the index was built with"
            )

    def _check_positions(self, last: int) -> None:
        if self.max_positions is not None and last >= self.max_positions:
            raise DecoderError(
                f"expected at most {self.max_positions} tokens of prompt and answer, got {last + 1}; "
                "shorten the history"
            )

    def _difference(self, hidden: Hidden, own_logits: torch.Tensor) -> float:
        """How far the logits of hidden rows [R, H] are from a model's own [R, V], as a share of the largest."""
        own = own_logits.float()
        error = float((own - self._head.logits(self._on_device(hidden)).float()).abs().max())
        return error / max(1.0, float(own.abs().max()))

    @property
    def _tolerance(self) -> float:
        """The difference that rounding explains."""
        return _TOLERANCE if self._head.weight.dtype == torch.float32 else _HALF_TOLERANCE
