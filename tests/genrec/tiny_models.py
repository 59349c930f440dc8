"""Small random causal language models for tests, their scores well apart."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCABULARY = 40

# A config's default spread of 0.02 makes all logits nearly equal; at 0.2 the choices of a search are clear.
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "hidden_size": 32,
}
ROTARY: dict[str, Any] = {
    **COMMON,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


def gpt2(**changes: Any) -> PreTrainedModel:
    """Learned positions, tied head."""
    config = GPT2Config(**{**COMMON, "n_layer": 2, "n_head": 4, "n_positions": 128, **changes})
    return _seeded(GPT2LMHeadModel, config)


def llama(**changes: Any) -> PreTrainedModel:
    """Rotary positions, untied head."""
    return _seeded(LlamaForCausalLM, LlamaConfig(**{**ROTARY, "tie_word_embeddings": False, **changes}))


def qwen3(**changes: Any) -> PreTrainedModel:
    """Rotary positions, grouped queries, head size unlike hidden / heads, tied head."""
    own = {"num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True}
    return _seeded(Qwen3ForCausalLM, Qwen3Config(**{**ROTARY, **own, **changes}))


def phi(**changes: Any) -> PreTrainedModel:
    """Partly rotary positions, and a head with a bias, here one that matters."""
    model = _seeded(PhiForCausalLM, PhiConfig(**{**ROTARY, **changes}))
    torch.nn.init.normal_(model.get_output_embeddings().bias)
    return model


MODELS = {"gpt2": gpt2, "llama": llama, "qwen3": qwen3, "phi": phi}


def _seeded(model_class: type[PreTrainedModel], config: Any) -> PreTrainedModel:
    torch.manual_seed(7)
    return model_class(config).eval()
