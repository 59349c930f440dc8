"""Small random language models for tests, their scores well apart."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MBartConfig,
    MBartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
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


T5_LIKE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,  # so that tests reach what lies beyond it
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": None,
}
BART_LIKE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 128,
    "init_std": 0.3,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
    "forced_bos_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 1,
}


def t5(**changes: Any) -> PreTrainedModel:
    """Distances for positions, tied head whose input is scaled."""
    model = _seeded(T5ForConditionalGeneration, T5Config(**{**T5_LIKE, **changes}))
    return _spread(model)


def mt5(**changes: Any) -> PreTrainedModel:
    """As T5 1.1: gated units, nothing scaled before the head, and another depth for the decoder."""
    own = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 3}
    model = _spread(_seeded(MT5ForConditionalGeneration, MT5Config(**{**T5_LIKE, **own, **changes})))
    with torch.no_grad():
        model.lm_head.weight.mul_(0.3)
    return model


def bart(**changes: Any) -> PreTrainedModel:
    """Learned positions, a bias on the logits, here one that matters."""
    model = _seeded(BartForConditionalGeneration, BartConfig(**{**BART_LIKE, **changes}))
    torch.nn.init.normal_(model.final_logits_bias)
    return model


def mbart(**changes: Any) -> PreTrainedModel:
    """As BART, with norms before the layers and scaled embeddings."""
    own = {"scale_embedding": True}
    return _seeded(MBartForConditionalGeneration, MBartConfig(**{**BART_LIKE, **own, **changes}))


ENCODER_DECODERS = {"t5": t5, "mt5": mt5, "bart": bart, "mbart": mbart}


def _spread(model: PreTrainedModel) -> PreTrainedModel:
    """T5's own spread leaves its distances without effect."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "relative_attention_bias" in name:
                parameter.normal_(std=2.0)
            elif "SelfAttention" in name or "EncDecAttention" in name:
                parameter.mul_(3.0)
    return model


def _seeded(model_class: type[PreTrainedModel], config: Any) -> PreTrainedModel:
    torch.manual_seed(7)
    return model_class(config).eval()
