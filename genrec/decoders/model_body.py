"""Model bodies: embedded tokens in, hidden rows out, with the keys and values of a :class:`StepCache`.

:class:`StockBody` runs any Hugging Face body as it is. :class:`RotaryBody` runs the modules of Llama-like
ones itself, which leaves out what such a body does for cases that do not occur here. Both give the same
numbers up to float rounding. Nothing here knows tokens, requests' trees, heads or scores.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch

from genrec.decoders.kv_cache import StepCache
from genrec.decoders.packed_layer import PackedLayer, can_pack
from genrec.decoders.tree_mask import RaggedRows, prompt_mask
from index.types import BoolArray, Int64Array

# Bodies of the transformers library built of rotary positions, RMS norms and gated linear units, with nothing
# scaled or capped between them.
_ROTARY_BODIES = {"LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model"}


class Body(Protocol):
    """The layers of a language model between its embedding and its head."""

    def prefill(self, embedded: torch.Tensor, rows: RaggedRows, cache: StepCache) -> torch.Tensor:
        """[B, H] after each prompt's last token; ``embedded`` is [B, P, H]."""

    def extend(
        self, embedded: torch.Tensor, position: Int64Array, sees: BoolArray, cache: StepCache
    ) -> torch.Tensor:
        """[B, Q, H]: every row sees the columns ``sees`` names (bool[B, Q, past + Q]); ``embedded`` [B, Q, H],
        ``position`` int64[B, Q]."""


def body_of(model: Any) -> Body:
    """The fastest way to run the body of a causal language model of the transformers library."""
    body = model.base_model
    known = type(body).__name__ in _ROTARY_BODIES and type(body).__module__.startswith("transformers.")
    return RotaryBody(body) if known else StockBody(body)


class StockBody:
    """A body run by its own forward pass, under a mask of our making."""

    def __init__(self, body: torch.nn.Module) -> None:
        self._body = body

    def prefill(self, embedded: torch.Tensor, rows: RaggedRows, cache: StepCache) -> torch.Tensor:
        """See :meth:`Body.prefill`."""
        hidden = self.extend(embedded, rows.pad(rows.column), prompt_mask(rows), cache)
        return hidden[torch.arange(len(hidden)), torch.from_numpy(rows.count - 1)]

    def extend(
        self, embedded: torch.Tensor, position: Int64Array, sees: BoolArray, cache: StepCache
    ) -> torch.Tensor:
        """See :meth:`Body.extend`."""
        output = self._body(
            inputs_embeds=embedded,
            position_ids=torch.from_numpy(position).to(embedded.device),
            attention_mask=additive_mask(sees, embedded),
            past_key_values=cache,
            use_cache=True,
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden


class RotaryBody:
    """The layers of a Llama-like body, run one by one.

    Against the stock forward pass it saves: the last layer's queries, output and gated unit for all prompt
    positions but the last (a layer's keys and values are all that later tokens need of them), the mask of a
    prompt (its rows are left-aligned, so causal attention is enough), repeated keys and values, the modules
    between the matrices, and, on a CPU in float32, laying out every matrix anew
    (:mod:`genrec.decoders.packed_layer`). Where a layer is not made of plain matrices its modules are called,
    not read, so adapters and quantised ones work.
    """

    def __init__(self, body: Any) -> None:
        self._body = body
        self._kept: list[_Layer] | None = None

    def prefill(self, embedded: torch.Tensor, rows: RaggedRows, cache: StepCache) -> torch.Tensor:
        """See :meth:`Body.prefill`. Padding rows attend to the prompt before them, and nobody to them."""
        device = embedded.device
        position = torch.arange(rows.width, device=device)[None]
        cos, sin = self._body.rotary_emb(embedded, position)
        hidden = embedded
        *earlier, last_layer = enumerate(self._layers())
        for number, layer in earlier:
            normed = layer.normed(hidden)
            keys, values = cache.update(*layer.keys_values(normed, cos, sin), number)
            queries = layer.queries(normed, cos, sin)
            hidden = layer.rest(hidden, _attend(layer.attention, queries, keys, values, None))

        number, layer = last_layer
        normed = layer.normed(hidden)
        keys, values = cache.update(*layer.keys_values(normed, cos, sin), number)
        at = torch.arange(len(hidden), device=device), torch.from_numpy(rows.count - 1).to(device)
        queries = layer.queries(normed[at][:, None], cos[0, at[1]][:, None], sin[0, at[1]][:, None])
        sees = np.arange(rows.width) < rows.count[:, None, None]  # [B, 1, P]
        mask = None if sees.all() else additive_mask(sees, hidden)
        attended = _attend(layer.attention, queries, keys, values, mask)
        hidden = layer.rest(hidden[at][:, None], attended)
        return _rms_norm(self._body.norm, hidden)[:, 0]

    def extend(
        self, embedded: torch.Tensor, position: Int64Array, sees: BoolArray, cache: StepCache
    ) -> torch.Tensor:
        """See :meth:`Body.extend`."""
        cos, sin = self._body.rotary_emb(embedded, torch.from_numpy(position).to(embedded.device))
        mask = additive_mask(sees, embedded)
        hidden = embedded
        for number, layer in enumerate(self._layers()):
            normed = layer.normed(hidden)
            keys, values = cache.update(*layer.keys_values(normed, cos, sin), number)
            queries = layer.queries(normed, cos, sin)
            hidden = layer.rest(hidden, _attend(layer.attention, queries, keys, values, mask))
        return _rms_norm(self._body.norm, hidden)

    def _layers(self) -> list[_Layer]:
        """The layers as they are now: weights may have been trained, wrapped or moved since the last call."""
        if self._kept is None or not all(layer.is_current() for layer in self._kept):
            layers = list(self._body.layers)
            packs = can_pack(layers)
            self._kept = [_Layer(layer, PackedLayer(layer) if packs else None) for layer in layers]
        return self._kept


class _Layer:
    """One layer of a Llama-like body, its products packed or by its own modules."""

    def __init__(self, layer: Any, packed: PackedLayer | None) -> None:
        self._layer = layer
        self._packed = packed
        self.attention = layer.self_attn

    def is_current(self) -> bool:
        """False where packed weights are not the layer's any more."""
        return self._packed is None or self._packed.is_of(self._layer)

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """What :meth:`queries` and :meth:`keys_values` take."""
        norm = self._layer.input_layernorm
        weight = None if self._packed else norm.weight
        return torch.nn.functional.rms_norm(hidden, hidden.shape[-1:], weight, norm.variance_epsilon)

    def queries(self, normed: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """[B, heads, Q, D], rotated."""
        product = self._packed.queries if self._packed else self.attention.q_proj
        queries = _split_heads(self.attention, product(normed))
        if hasattr(self.attention, "q_norm"):
            queries = _rms_norm(self.attention.q_norm, queries)
        return _rotated(queries, cos, sin).transpose(1, 2)

    def keys_values(
        self, normed: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, Hkv, Q, D] twice, the keys rotated."""
        if self._packed:
            keys, values = self._packed.keys_values(normed).chunk(2, dim=-1)
        else:
            keys, values = self.attention.k_proj(normed), self.attention.v_proj(normed)
        keys = _split_heads(self.attention, keys)
        if hasattr(self.attention, "k_norm"):
            keys = _rms_norm(self.attention.k_norm, keys)
        values = _split_heads(self.attention, values)
        return _rotated(keys, cos, sin).transpose(1, 2), values.transpose(1, 2)

    def rest(self, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """What follows the attention: its output matrix and the gated linear unit, each added to the stream."""
        if self._packed:
            return self._packed.rest(hidden, attended)
        hidden = hidden + self.attention.o_proj(attended)
        normed = _rms_norm(self._layer.post_attention_layernorm, hidden)
        unit = self._layer.mlp
        gated = unit.act_fn(unit.gate_proj(normed)).mul_(unit.up_proj(normed))
        added: torch.Tensor = unit.down_proj(gated)
        return added.add_(hidden)


def additive_mask(sees: BoolArray, like: torch.Tensor) -> torch.Tensor:
    """[B, 1, Q, columns]: zero where a row sees a column, else the lowest number of ``like``'s type."""
    visible = torch.from_numpy(sees).to(like.device)[:, None]
    mask = torch.zeros(visible.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill_(~visible, torch.finfo(like.dtype).min)


def _rms_norm(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    """What a Llama-like norm module computes, in one call."""
    return torch.nn.functional.rms_norm(hidden, hidden.shape[-1:], norm.weight, norm.variance_epsilon)


def _split_heads(attention: Any, projected: torch.Tensor) -> torch.Tensor:
    """[B, Q, heads * D] as [B, Q, heads, D]."""
    return projected.view(*projected.shape[:-1], -1, attention.head_dim)


def _rotated(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions on [B, Q, heads, D]; ``cos`` and ``sin`` are [B, Q, D], their halves alike."""
    half = heads.shape[-1] // 2
    cos, sin = cos[:, :, None], sin[:, :, None, :half]
    rotated = heads * cos
    rotated[..., :half].addcmul_(heads[..., half:], sin, value=-1)
    rotated[..., half:].addcmul_(heads[..., :half], sin)
    return rotated


def _attend(
    attention: Any,
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """[B, Q, heads * D]; without a mask a query sees all keys, and one of several those up to its own column."""
    grouped = queries.shape[1] != keys.shape[1]
    if grouped and mask is not None and queries.device.type != "cpu":
        # CUDA has no fused kernel for grouped queries under a mask (as Hugging Face's own wrapper notes).
        groups = queries.shape[1] // keys.shape[1]
        keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
        grouped = False
    attended = torch.nn.functional.scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=mask,
        is_causal=mask is None and queries.shape[2] > 1,
        scale=attention.scaling,
        enable_gqa=grouped,
    )
    return attended.transpose(1, 2).flatten(2)
