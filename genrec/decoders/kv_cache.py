"""The keys and values of one request, and the view of several requests that a Hugging Face model writes into.

A :class:`TorchState` owns one buffer per layer with room to grow, so a step appends in place; a
:class:`StepCache` lives for one forward pass and stands in for ``past_key_values``. Nothing here knows
tokens, masks or scores: a state only keeps which slot follows which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache

from genrec.decoders.tree_mask import compacted_parents
from index.types import Int64Array, IntArray

# Room for this many positions, or a quarter of what is there, is left when a buffer is made: a search of 20
# beams over 4 codes feeds 60 slots, so it grows no buffer after the prefill.
_SPARE_POSITIONS = 64


class TorchState:
    """One request's prompt and the tree of tokens fed since, with their keys and values."""

    def __init__(self, prompt: Int64Array) -> None:
        self.prompt = prompt  # [P] token ids
        self.prompt_length = 0  # positions of it that are held
        self.parent: Int64Array = np.zeros(0, np.int64)  # [slots] slot of each slot's predecessor
        self.keys: list[torch.Tensor] = []  # one [Hkv, capacity, D] per layer; the first `length` are written
        self.values: list[torch.Tensor] = []

    @property
    def slots(self) -> int:
        """Tokens fed after the prompt; the next one gets this number."""
        return len(self.parent)

    @property
    def length(self) -> int:
        """Positions held: the prompt's, then one per slot."""
        return self.prompt_length + self.slots

    @property
    def nbytes(self) -> int:
        """Memory held, spare room included, in bytes."""
        return self.parent.nbytes + sum(buffer.nbytes for buffer in (*self.keys, *self.values))

    def empty(self) -> TorchState:
        """A state of the same prompt without a position run."""
        return TorchState(self.prompt)

    @torch.inference_mode()
    def fork(self) -> TorchState:
        """An independent copy, without spare room."""
        other = self.empty()
        other.prompt_length = self.prompt_length
        other.parent = self.parent.copy()
        other.keys = [buffer[:, : self.length].clone() for buffer in self.keys]
        other.values = [buffer[:, : self.length].clone() for buffer in self.values]
        return other

    @torch.inference_mode()
    def begun(self, prompt: Int64Array, length: int) -> TorchState:
        """A new state for a prompt that begins as this one's does for ``length`` positions, which it holds."""
        other = TorchState(prompt)
        other.prompt_length = length
        other.keys = [buffer[:, :length].clone() for buffer in self.keys]
        other.values = [buffer[:, :length].clone() for buffer in self.values]
        return other

    @torch.inference_mode()
    def compact(self, live: IntArray) -> None:
        """Forget all slots but ``live`` (int[S], ascending, closed under parents); ``live[i]`` becomes ``i``.

        Raises:
            DecoderError: ``live`` is not ascending, names a slot that is not there, or lacks a parent.
        """
        live = np.asarray(live, np.int64)
        parent = compacted_parents(self.parent, live)
        kept = np.concatenate([np.arange(self.prompt_length), self.prompt_length + live])
        for buffers in (self.keys, self.values):
            for layer, buffer in enumerate(buffers):
                buffers[layer] = buffer.index_select(1, torch.from_numpy(kept).to(buffer.device))
        self.parent = parent

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put ``keys`` and ``values`` [Hkv, Q, D] behind the positions held, which they do not yet join."""
        if layer == len(self.keys):
            self.keys.append(keys.new_empty((keys.shape[0], 0, keys.shape[2])))
            self.values.append(values.new_empty((values.shape[0], 0, values.shape[2])))
        self.keys[layer] = _written(self.keys[layer], self.length, keys)
        self.values[layer] = _written(self.values[layer], self.length, values)


class StepCache(Cache):
    """What a Hugging Face body takes for its past during one forward pass over B states.

    Each request's new keys and values go into its own buffers. For one request the attention then reads those
    buffers in place; several are padded to a common length: past ones left-aligned in the first
    :attr:`past_length` columns, the new ones behind them.
    """

    def __init__(self, states: Sequence[TorchState], counts: Sequence[int]) -> None:
        super().__init__(layers=[])
        self._states = states
        self._counts = counts  # new positions of each request
        self.past_length = max(state.length for state in states)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep the new keys and values [B, Hkv, Q, D]; return those to attend to, [B, Hkv, past + Q, D]."""
        for b, (state, count) in enumerate(zip(self._states, self._counts, strict=True)):
            state.write(layer_idx, key_states[b, :, :count], value_states[b, :, :count])
        if self.past_length == 0:
            return key_states, value_states
        keys = [state.keys[layer_idx] for state in self._states]
        values = [state.values[layer_idx] for state in self._states]
        if len(self._states) == 1:
            end = self.past_length + self._counts[0]
            return keys[0][None, :, :end], values[0][None, :, :end]
        return self._padded(keys, key_states), self._padded(values, value_states)

    def _padded(self, buffers: list[torch.Tensor], new: torch.Tensor) -> torch.Tensor:
        B, heads, Q, size = new.shape
        padded = new.new_empty((B, heads, self.past_length + Q, size))
        for b, (state, buffer) in enumerate(zip(self._states, buffers, strict=True)):
            padded[b, :, : state.length] = buffer[:, : state.length]
            padded[b, :, state.length : self.past_length] = 0  # masked, but 0 * NaN would still be NaN
        padded[:, :, self.past_length :] = new
        return padded

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions before the new ones, padding included."""
        return self.past_length

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Length and offset of the keys; asked only by models that would build a mask of their own."""
        return self.past_length + query_length, 0


def _written(buffer: torch.Tensor, length: int, new: torch.Tensor) -> torch.Tensor:
    """``buffer`` with ``new`` behind its first ``length`` positions: in place, or grown where it is full."""
    end = length + new.shape[1]
    if end > buffer.shape[1]:
        capacity = end + max(_SPARE_POSITIONS, end // 4)
        grown = buffer.new_empty((buffer.shape[0], capacity, buffer.shape[2]))
        grown[:, :length] = buffer[:, :length]
        buffer = grown
    buffer[:, length:end] = new
    return buffer
