"""CausalDecoder: a causal body over whatever its embedding reads, and a head, behind the decoder contract.

A prompt is run once and kept; the tree of tokens behind it is :mod:`genrec.decoders.tree_decoder`'s. What is a
model of Hugging Face's and what a native one is for :mod:`genrec.decoders.torch_decoder` and
:mod:`genrec.decoders.native_text` to know. This module knows no trie, no items and no scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from genrec.decoders.base import Prefilled, Prompt, State
from genrec.decoders.key_values import common_length
from genrec.decoders.kv_cache import StepCache, TorchState
from genrec.decoders.model_body import Body
from genrec.decoders.output_head import OutputHead, numpy_of
from genrec.decoders.prompt_reader import PromptReader
from genrec.decoders.tree_decoder import TreeDecoder
from genrec.decoders.tree_mask import RaggedRows, prompt_mask
from index.types import BoolArray, Int64Array


class CausalDecoder(TreeDecoder):
    """Implements :class:`genrec.decoders.base.ReusesPrompts` over a body, an embedding and a head.

    Args:
        body: the layers between embedding and head.

    The other arguments and what is raised: see :class:`~genrec.decoders.tree_decoder.TreeDecoder`.
    """

    def __init__(
        self,
        body: Body,
        embedding: torch.nn.Module,
        head: OutputHead,
        token_offset: int,
        max_positions: int | None,
        reader: PromptReader,
    ) -> None:
        super().__init__(embedding, head, token_offset, max_positions, reader)
        self._body = body
        self._always_run = (
            1  # positions at a prompt's end that are run whatever is kept: hidden rows come from them
        )

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Prompt], kept: Sequence[State | None] | None = None) -> Prefilled:
        """Run the prompts (B of them, of any lengths, padded inside), each from a kept state where one is given.

        Raises:
            DecoderError: a prompt is empty, has a segment the model cannot read, holds an id outside the
                vocabulary, or is longer than the model's positions; or a kept state is not this decoder's.
        """
        if not prompts:
            return Prefilled([], self._no_hidden())
        keys = [self.prompt_key(prompt) for prompt in prompts]
        states = [
            TorchState(ids) if state is None else self._begun(ids, state)
            for ids, state in zip(keys, kept or [None] * len(keys), strict=True)
        ]
        hidden = self._read(states, keys)
        for state, ids in zip(states, keys, strict=True):
            state.prompt_length = len(ids)
        return Prefilled(list[State](states), numpy_of(hidden))

    def _read(self, states: Sequence[TorchState], keys: Sequence[Int64Array]) -> torch.Tensor:
        """[B, H]: run what the states do not hold of their prompts, and keep it."""
        rest = [ids[state.prompt_length :] for ids, state in zip(keys, states, strict=True)]
        rows = RaggedRows(np.repeat(np.arange(len(keys)), [len(part) for part in rest]))
        return self._advance(states, rows, self._embed(rows, np.concatenate(rest)))

    def _advance(
        self,
        states: Sequence[TorchState],
        rows: RaggedRows,
        embedded: torch.Tensor,
        first: Int64Array | None = None,
    ) -> torch.Tensor:
        """[B, H] after the last of the next prompt positions, embedded as [B, P, H].

        ``first`` is int64[B], the number of the first of them; they count on from what is known where not given.
        """
        known = np.array([state.prompt_length for state in states])
        cache = StepCache(states, rows.count.tolist())
        if not known.any():
            return self._body.prefill(embedded, rows, cache)
        position = rows.pad((known if first is None else first)[rows.request] + rows.column)
        hidden = self._body.extend(embedded, position, prompt_mask(rows, known), cache)
        return hidden[torch.arange(len(states)), torch.from_numpy(rows.count - 1)]

    def _begun(self, ids: Int64Array, kept: State) -> TorchState:
        """A state that begins ``ids`` with what a kept one shares, as far as that may be."""
        (mine,) = self._own_states([kept])
        return mine.begun(ids, min(common_length(mine.prompt, ids), len(ids) - self._always_run))

    def _run(
        self,
        states: Sequence[TorchState],
        rows: RaggedRows,
        ids: Int64Array,
        position: Int64Array,
        sees: BoolArray,
    ) -> torch.Tensor:
        cache = StepCache(states, rows.count.tolist())
        return self._body.extend(self._embed(rows, ids), rows.pad(position), sees, cache)
