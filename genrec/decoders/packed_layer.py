"""PackedLayer: the matrices of one Llama-like layer, laid out once for a CPU's matrix kernels.

A stock linear module brings its matrix into the kernel's layout on every call. For the few rows of a decoding
step that costs more than the product: 4 layers of hidden size 256 take 1.9 ms of one thread for 20 rows packed
and 3.6 unpacked, with weights that other work has pushed out of the cache. Matrices over the same input are
packed as one, and the weight of the norm before them is multiplied into their columns. It knows no tokens,
caches or masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

# Weights above this many are not copied a second time: 2 GB in float32.
_MOST_WEIGHTS = 2**29
# Rows the packed layout is laid out for. From 16 to 256 it makes no difference for 1 to 256 rows.
_PACKED_ROWS = 64


def can_pack(layers: Sequence[Any]) -> bool:
    """Whether these layers run on a CPU in float32 and are made of plain matrices (no adapter, not quantised).

    The two operators behind it have no public name; a torch built without oneDNN lacks them.
    """
    linear = [module for layer in layers for module in _linear_modules(layer)]
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and all(type(module) is torch.nn.Linear for module in linear)
        and all(module.weight.device.type == "cpu" for module in linear)
        and all(module.weight.dtype == torch.float32 for module in linear)
        and all(type(layer.mlp.act_fn).__name__ in ("SiLU", "SiLUActivation") for layer in layers)
        and sum(module.weight.numel() for module in linear) <= _MOST_WEIGHTS
    )


class PackedLayer:
    """One layer's products. Inputs are normed but for the norm's weight.

    Args:
        layer: a decoder layer of the transformers library, with ``self_attn``, ``mlp`` and their norms.
    """

    def __init__(self, layer: Any) -> None:
        attention, unit = layer.self_attn, layer.mlp
        before, between = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        self.queries = _PackedMatrix([attention.q_proj], before)
        self.keys_values = _PackedMatrix([attention.k_proj, attention.v_proj], before)
        self._output = _PackedMatrix([attention.o_proj])
        self._gate_up = _PackedMatrix([unit.gate_proj, unit.up_proj], between)
        self._down = _PackedMatrix([unit.down_proj])
        self._epsilon = layer.post_attention_layernorm.variance_epsilon
        self._modules = _modules(layer)
        self._weights = [module.weight for module in self._modules]
        self._versions = [_version(weight) for weight in self._weights]

    def is_of(self, layer: Any) -> bool:
        """Whether the layer still is what it was: no weight written or replaced, no module wrapped."""
        now = _modules(layer)
        return all(
            module is before and module.weight is weight and _version(weight) == version
            for module, before, weight, version in zip(
                now, self._modules, self._weights, self._versions, strict=True
            )
        )

    def rest(self, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """The output matrix and the gated linear unit, each added to the stream: [B, Q, H]."""
        hidden = self._output(attended, hidden)
        normed = torch.nn.functional.rms_norm(hidden, hidden.shape[-1:], None, self._epsilon)
        gate, up = self._gate_up(normed).chunk(2, dim=-1)
        return self._down(torch.nn.functional.silu(gate).mul_(up), hidden)


def _version(weight: torch.Tensor) -> int:
    """How often a weight was written in place, as torch counts it; inference tensors cannot be."""
    return 0 if weight.is_inference() else weight._version


class _PackedMatrix:
    def __init__(self, modules: Sequence[torch.nn.Linear], norm: torch.Tensor | None = None) -> None:
        weight = torch.cat([module.weight.detach() for module in modules])
        if norm is not None:
            weight = weight * norm.detach()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_ROWS)
        biases = [module.bias for module in modules if module.bias is not None]
        self._bias = torch.cat([bias.detach() for bias in biases]) if biases else None

    def __call__(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """``x @ weight.T + bias``, plus ``added``."""
        if added is None:
            result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
                x, self._weight, self._bias, "none", [], ""
            )
        else:
            result = torch.ops.mkldnn._linear_pointwise.binary(x, added, self._weight, self._bias, "add")
        return result


def _modules(layer: Any) -> list[Any]:
    return [*_linear_modules(layer), layer.input_layernorm, layer.post_attention_layernorm]


def _linear_modules(layer: Any) -> list[Any]:
    attention, unit = layer.self_attn, layer.mlp
    return [
        attention.q_proj,
        attention.k_proj,
        attention.v_proj,
        attention.o_proj,
        unit.gate_proj,
        unit.up_proj,
        unit.down_proj,
    ]
