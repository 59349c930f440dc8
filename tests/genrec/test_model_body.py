"""Two ways to run a body, one answer. Against plain forwards of the model: see test_torch_decoder.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from genrec.decoders.base import Tokens
from genrec.decoders.model_body import RotaryBody, StockBody, body_of
from genrec.decoders.packed_layer import can_pack
from genrec.decoders.torch_decoder import TorchDecoder
from tests.genrec import tiny_models
from tests.genrec.tiny_models import ROTARY, VOCABULARY

GROUPED = {"num_key_value_heads": 2}
ROPE = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 32}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**ROTARY, **GROUPED, attention_bias=True, mlp_bias=True),
    "llama yarn": LlamaConfig(**ROTARY, rope_parameters=ROPE),
    "mistral": MistralConfig(**ROTARY, **GROUPED, sliding_window=None),
    "qwen2": Qwen2Config(**ROTARY, **GROUPED),
    "qwen3": Qwen3Config(**ROTARY, **GROUPED, head_dim=16),
}


def random_model(config: PreTrainedConfig) -> PreTrainedModel:
    """Weights, norms and biases all random: at their usual ones and zeros a mixed-up one would not show."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:
            torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.3)
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_both_bodies_give_the_same_rows(name: str) -> None:
    model = random_model(CONFIGS[name])
    fast, stock = TorchDecoder(model), TorchDecoder(model)
    assert isinstance(fast._body, RotaryBody)
    stock._body = StockBody(model.base_model)
    rng = np.random.default_rng(0)
    prompts = [(Tokens(rng.integers(0, VOCABULARY, length)),) for length in (5, 1, 9)]
    got, expected = fast.prefill(prompts), stock.prefill(prompts)
    np.testing.assert_allclose(got.hidden, expected.hidden, atol=1e-5)
    for parents in ([-1, -1, -1, 0, -1], [0, 2, 1, 1, 0]):
        request = np.array([0, 0, 2, 2, 2])
        token = rng.integers(0, VOCABULARY, 5)
        rows = [
            decoder.extend(made.states, request, token, np.array(parents))
            for decoder, made in ((fast, got), (stock, expected))
        ]
        np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)


@pytest.mark.parametrize(("name", "kind"), [("gpt2", StockBody), ("phi", StockBody), ("qwen3", RotaryBody)])
def test_only_known_bodies_are_run_by_hand(name: str, kind: type) -> None:
    assert type(body_of(tiny_models.MODELS[name]())) is kind


def test_a_namesake_of_another_library_is_run_as_it_is() -> None:
    class LlamaModel(torch.nn.Module):
        pass

    namesake = torch.nn.Module()
    namesake.base_model = LlamaModel()
    assert isinstance(body_of(namesake), StockBody)


def test_weights_trained_or_replaced_after_a_call_are_seen() -> None:
    model = random_model(CONFIGS["llama"])
    decoder, prompts = TorchDecoder(model), [(Tokens(np.arange(6)),)]

    def against_the_stock_body() -> float:
        stock = TorchDecoder(model)
        stock._body = StockBody(model.base_model)
        return float(np.abs(decoder.prefill(prompts).hidden - stock.prefill(prompts).hidden).max())

    before = decoder.prefill(prompts).hidden
    layer = model.base_model.layers[0]
    with torch.no_grad():
        layer.mlp.up_proj.weight.mul_(1.5)
        layer.input_layernorm.weight.mul_(0.5)
    assert against_the_stock_body() < 1e-5
    assert np.abs(decoder.prefill(prompts).hidden - before).max() > 1e-3
    layer.self_attn.q_proj = torch.nn.Sequential(layer.self_attn.q_proj)  # as an adapter would wrap it
    layer.self_attn.q_proj.weight = layer.self_attn.q_proj[0].weight
    assert against_the_stock_body() < 1e-5
    layer.self_attn.q_proj[0] = torch.nn.Linear(32, 32)
    layer.self_attn.q_proj.weight = layer.self_attn.q_proj[0].weight
    assert against_the_stock_body() < 1e-5


@pytest.mark.parametrize("change", ["half", "adapter", "activation"])
def test_only_plain_float32_layers_are_packed(change: str) -> None:
    layers = list(random_model(CONFIGS["llama"]).base_model.layers)
    assert can_pack(layers)
    if change == "half":
        layers[0].to(torch.bfloat16)
    elif change == "adapter":
        layers[0].mlp.up_proj = torch.nn.Sequential(layers[0].mlp.up_proj)
        layers[0].mlp.up_proj.weight = layers[0].mlp.up_proj[0].weight
    else:
        layers[0].mlp.act_fn = torch.nn.GELU()
    assert not can_pack(layers)
