"""The bodies of encoder-decoders: what the decoder reads of an encoded prompt, and its layers over a tree of tokens.

A stock decoder places a token by its column and builds a causal mask of its own, so the layers are run one by one
here, with our mask and positions; each layer is called, not read, so adapters work. Nothing here knows tokens,
heads or scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicLayer, EncoderDecoderCache

from genrec.decoders.kv_cache import StepCache
from genrec.decoders.model_body import additive_mask
from index.errors import DecoderError
from index.types import BoolArray, Int64Array

_T5_LIKE = {"T5ForConditionalGeneration", "MT5ForConditionalGeneration"}
_BART_LIKE = {"BartForConditionalGeneration", "MBartForConditionalGeneration"}


class CrossStates:
    """What the decoder's layers read of one encoded prompt: computed once, shared by all its prefixes.

    Args:
        keys: one [heads, S, D] per layer.
        values: the same.
    """

    def __init__(self, keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
        self.keys = keys
        self.values = values

    @property
    def length(self) -> int:
        """S, tokens of the prompt."""
        return self.keys[0].shape[1]

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return sum(part.nbytes for part in (*self.keys, *self.values))


class CrossBody(Protocol):
    """The decoder of an encoder-decoder between its embedding and its head."""

    def cross_states(self, encoded: torch.Tensor, lengths: Sequence[int]) -> list[CrossStates]:
        """Every layer's keys and values of B encoded prompts [B, S, H], right-padded, of these lengths."""

    def extend(
        self, embedded: torch.Tensor, position: Int64Array, sees: BoolArray, step: CrossStep
    ) -> torch.Tensor:
        """[B, Q, H] ready for the head: every row sees the columns ``sees`` names (bool[B, Q, past + Q]) and the
        whole of its prompt; ``embedded`` is [B, Q, H], ``position`` int64[B, Q]."""


class CrossStep:
    """What the layers take for their past during one forward pass over B states.

    Args:
        past: the decoder's own keys and values.
        crosses: those of each request's prompt; padded to the longest where there are several.
    """

    def __init__(self, past: StepCache, crosses: Sequence[CrossStates]) -> None:
        self.lengths = np.array([cross.length for cross in crosses])
        layers = range(len(crosses[0].keys))
        self.cache = EncoderDecoderCache(past, Cache(layers=[_filled(crosses, layer) for layer in layers]))

    @property
    def sees(self) -> BoolArray:
        """bool[B, 1, S]: which columns are of a request's prompt, not padding."""
        within: BoolArray = np.arange(self.lengths.max()) < self.lengths[:, None, None]
        return within


def cross_body_of(model: Any) -> CrossBody:
    """How to run the decoder of an encoder-decoder of the transformers library.

    Raises:
        DecoderError: it is of no kind that is known here.
    """
    name = type(model).__name__
    if name in _T5_LIKE:
        return T5Body(model)
    if name in _BART_LIKE:
        return BartBody(model)
    raise DecoderError(
        f"expected an encoder-decoder of {', '.join(sorted(_T5_LIKE | _BART_LIKE))}, got {name}; "
        "use one of these, or a causal language model"
    )


class T5Body:
    """T5: no position at the input; every head adds a learned bias by distance to every score instead.

    What a row sees are its ancestors, in the order of their columns, so the distance of two tokens is how many of
    the columns seen lie between them.
    """

    def __init__(self, model: Any) -> None:
        self._decoder = model.get_decoder()
        scaled = getattr(
            model.config, "scale_decoder_outputs", False
        )  # the first T5 did where its head is tied
        self._scale = model.config.d_model**-0.5 if scaled else 1.0

    def cross_states(self, encoded: torch.Tensor, lengths: Sequence[int]) -> list[CrossStates]:
        """See :meth:`CrossBody.cross_states`."""
        attentions = [block.layer[1].EncDecAttention for block in self._decoder.block]
        size = attentions[0].key_value_proj_dim
        pairs = [(attention.k(encoded), attention.v(encoded)) for attention in attentions]
        return _split(pairs, size, lengths)

    def extend(
        self, embedded: torch.Tensor, position: Int64Array, sees: BoolArray, step: CrossStep
    ) -> torch.Tensor:
        """See :meth:`CrossBody.extend`."""
        bias, mask = self._bias(position, sees), additive_mask(sees, embedded)
        cross_mask = additive_mask(step.sees.repeat(embedded.shape[1], axis=1), embedded)
        hidden = embedded
        for block in self._decoder.block:
            hidden = block(
                hidden,
                attention_mask=mask,
                position_bias=bias,
                encoder_hidden_states=hidden,  # that there is one; its keys and values are in the cache
                encoder_attention_mask=cross_mask,
                past_key_values=step.cache,
            )[0]
        normed: torch.Tensor = self._decoder.final_layer_norm(hidden)
        return normed * self._scale

    def _bias(self, position: Int64Array, sees: BoolArray) -> torch.Tensor:
        """[B, heads, Q, columns]: the learned bias of each distance; what stands at unseen columns is masked."""
        attention = self._decoder.block[0].layer[0].SelfAttention
        distance = np.cumsum(sees, axis=-1) - 1 - position[:, :, None]
        device = attention.relative_attention_bias.weight.device
        bucket = attention._relative_position_bucket(
            torch.from_numpy(np.minimum(distance, 0)).to(device),
            bidirectional=False,
            num_buckets=attention.relative_attention_num_buckets,
            max_distance=attention.relative_attention_max_distance,
        )
        bias: torch.Tensor = attention.relative_attention_bias(bucket).permute(0, 3, 1, 2)
        return bias


class BartBody:
    """BART and mBART: learned positions, added to the embedding."""

    def __init__(self, model: Any) -> None:
        self._decoder = model.get_decoder()

    def cross_states(self, encoded: torch.Tensor, lengths: Sequence[int]) -> list[CrossStates]:
        """See :meth:`CrossBody.cross_states`."""
        attentions = [layer.encoder_attn for layer in self._decoder.layers]
        pairs = [(attention.k_proj(encoded), attention.v_proj(encoded)) for attention in attentions]
        return _split(pairs, attentions[0].head_dim, lengths)

    def extend(
        self, embedded: torch.Tensor, position: Int64Array, sees: BoolArray, step: CrossStep
    ) -> torch.Tensor:
        """See :meth:`CrossBody.extend`."""
        decoder, mask = self._decoder, additive_mask(sees, embedded)
        cross_mask = additive_mask(step.sees.repeat(embedded.shape[1], axis=1), embedded)
        flat = torch.from_numpy(position.reshape(-1)).to(embedded.device)
        positions = decoder.embed_positions(None, position_ids=flat).view(embedded.shape)
        hidden = decoder.layernorm_embedding(embedded + positions)
        for layer in decoder.layers:
            hidden = layer(
                hidden,
                mask,
                hidden,  # that there is an encoder; its keys and values are in the cache
                encoder_attention_mask=cross_mask,
                past_key_values=step.cache,
            )
        last: torch.Tensor = decoder.layer_norm(hidden) if hasattr(decoder, "layer_norm") else hidden
        return last


def _split(
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], size: int, lengths: Sequence[int]
) -> list[CrossStates]:
    """Keys and values [B, S, heads * size] of every layer as each request's own, without padding."""

    def own(projected: torch.Tensor, b: int, length: int) -> torch.Tensor:
        return projected[b, :length].view(length, -1, size).transpose(0, 1).contiguous()

    return [
        CrossStates(
            [own(keys, b, length) for keys, _ in pairs], [own(values, b, length) for _, values in pairs]
        )
        for b, length in enumerate(lengths)
    ]


def _filled(crosses: Sequence[CrossStates], layer: int) -> DynamicLayer:
    """One layer's cache, full: the attention reads it and adds nothing."""
    filled = DynamicLayer()  # type: ignore[no-untyped-call]
    filled.keys = _padded([cross.keys[layer] for cross in crosses])
    filled.values = _padded([cross.values[layer] for cross in crosses])
    filled.is_initialized = True
    return filled


def _padded(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """[B, heads, S, D] of B tensors [heads, s, D]."""
    if len(parts) == 1:
        return parts[0][None]
    padded = torch.nn.utils.rnn.pad_sequence([part.transpose(0, 1) for part in parts], batch_first=True)
    return padded.transpose(1, 2)
