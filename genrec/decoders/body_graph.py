"""The body of a causal language model as an ONNX graph: GPT-2 and Llama-like families.

::

    embedded  float[B, Q, H]          key_i    float[B, Hkv, Q, D]   per layer, the new positions only
    position  int64[B, Q]             value_i  float[B, Hkv, Q, D]
    mask      float[B, 1, Q, P + Q]   hidden   float[B, W, H]
    wanted    int64[B, W]
    past_key_i, past_value_i  float[B, Hkv, P, D]   per layer

One graph does prefill (P = 0, a causal mask), the rest of a prompt (P = what is known of it) and steps of a tree
(a mask of ancestors). ``wanted`` names the rows whose hidden state is read: the last layer computes no more than
keys and values for the others, which in a prefill is all positions but one.

The graph is written out rather than traced: three matrices in one, nothing repeated for grouped queries, one
norm and one rotation for queries and keys, no past copied out, and it takes no time. Measured (4 layers, hidden
256, prompt 256, one thread), see ``benchmarks/onnx_decode.py``. That it computes what the model computes is
checked after every export (:mod:`genrec.decoders.export_check`). It knows no tokens, trees or heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.decoders.body_shape import BodyShape
from genrec.decoders.onnx_graph import GraphBuilder, ints
from index.errors import DecoderError
from index.types import Float32Array

GPT2_BODY = "GPT2Model"
ROTARY_BODIES = ("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model")
# Rotary frequencies that are the same for every position and length of input.
_FIXED_FREQUENCIES = ("default", "linear", "llama3", "yarn")
_GELU = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu_fast": "tanh"}


@dataclass(frozen=True, slots=True)
class _Attended:
    """What a layer's attention needs."""

    queries: str  # [B, heads, Q, D], scaled
    keys: str  # [B, Hkv, Q, D]
    values: str  # [B, Hkv, Q, D]


class BodyGraph:
    """Builds the graph of one body.

    Args:
        body: a GPT-2 or Llama-like body of the transformers library.

    Raises:
        DecoderError: the body is of another family, or of a variant that is not covered.
    """

    def __init__(self, body: Any) -> None:
        name = type(body).__name__
        if not type(body).__module__.startswith("transformers.") or name not in (GPT2_BODY, *ROTARY_BODIES):
            raise DecoderError(
                f"expected a body of {', '.join((GPT2_BODY, *ROTARY_BODIES))} to export, got {name}; "
                "run this model in torch"
            )
        self._body = body
        self._gpt2 = name == GPT2_BODY
        self._layers = list(body.h if self._gpt2 else body.layers)
        attention = self._layers[0].attn if self._gpt2 else self._layers[0].self_attn
        self._heads = int(body.config.num_attention_heads)
        self.shape = BodyShape(
            layers=len(self._layers),
            key_heads=self._heads if self._gpt2 else int(body.config.num_key_value_heads),
            head_size=int(attention.head_dim),
            hidden_size=int(body.config.hidden_size),
        )
        self._check_variant()
        self._graph = GraphBuilder()

    def model(self) -> Any:
        """The graph as an ``onnx.ModelProto``."""
        graph, shape = self._graph, self.shape
        hidden = graph.input("embedded", ("B", "Q", shape.hidden_size))
        position = graph.input("position", ("B", "Q"), integer=True)
        mask = graph.input("mask", ("B", 1, "Q", "S"))
        wanted = graph.op("Unsqueeze", graph.input("wanted", ("B", "W"), integer=True), ints(2))
        rotation: list[str] = []
        if self._gpt2:
            places = graph.op("Gather", _array(self._body.wpe.weight), position)
            hidden = graph.op("Add", hidden, places)
        else:
            rotation = self._rotation(position)
        project = self._project_gpt2 if self._gpt2 else self._project_rotary
        finish = self._finish_gpt2 if self._gpt2 else self._finish_rotary
        past = [self._past_inputs(number) for number in range(shape.layers)]
        for number, layer in enumerate(self._layers):
            parts = project(layer, hidden, rotation)
            axes = ("B", shape.key_heads, "Q", shape.head_size)
            graph.output(parts.keys, f"key_{number}", axes)
            graph.output(parts.values, f"value_{number}", axes)
            queries = parts.queries
            if number == shape.layers - 1:
                hidden = graph.op("GatherND", hidden, wanted, batch_dims=1)
                by_row = graph.op("Transpose", queries, perm=[0, 2, 1, 3])
                by_row = graph.op("GatherND", by_row, wanted, batch_dims=1)
                queries = graph.op("Transpose", by_row, perm=[0, 2, 1, 3])
                by_row = graph.op("GatherND", graph.op("Squeeze", mask, ints(1)), wanted, batch_dims=1)
                mask = graph.op("Unsqueeze", by_row, ints(1))
            keys = graph.op("Concat", past[number][0], parts.keys, axis=2)
            values = graph.op("Concat", past[number][1], parts.values, axis=2)
            attended = graph.op("Attention", queries, keys, values, mask, scale=1.0)
            attended = graph.op("Transpose", attended, perm=[0, 2, 1, 3])
            attended = graph.op("Reshape", attended, ints(0, 0, self._heads * shape.head_size))
            hidden = finish(layer, hidden, attended)
        norm = self._body.ln_f if self._gpt2 else self._body.norm
        hidden = self._layer_norm(norm, hidden) if self._gpt2 else self._rms_norm(norm, hidden)
        graph.output(hidden, "hidden", ("B", "W", shape.hidden_size))
        return graph.model("body")

    def _past_inputs(self, number: int) -> tuple[str, str]:
        axes = ("B", self.shape.key_heads, "P", self.shape.head_size)
        return self._graph.input(f"past_key_{number}", axes), self._graph.input(f"past_value_{number}", axes)

    def _project_gpt2(self, layer: Any, hidden: str, rotation: list[str]) -> _Attended:
        attention, size = layer.attn, self.shape.hidden_size
        weight, bias = _array(attention.c_attn.weight).copy(), _array(attention.c_attn.bias).copy()
        weight[:, :size] *= attention.scaling
        bias[:size] *= attention.scaling
        mixed = self._graph.linear(self._layer_norm(layer.ln_1, hidden), weight, bias)
        by_head = self._by_head(mixed, 3 * self._heads)
        queries, keys, values = self._graph.split(by_head, [self._heads] * 3, axis=1)
        return _Attended(queries, keys, values)

    def _finish_gpt2(self, layer: Any, hidden: str, attended: str) -> str:
        graph, projection, unit = self._graph, layer.attn.c_proj, layer.mlp
        added = graph.linear(attended, _array(projection.weight), _array(projection.bias))
        hidden = graph.op("Add", hidden, added)
        inner = self._layer_norm(layer.ln_2, hidden)
        inner = graph.linear(inner, _array(unit.c_fc.weight), _array(unit.c_fc.bias))
        inner = graph.op("Gelu", inner, approximate=_GELU[self._body.config.activation_function])
        added = graph.linear(inner, _array(unit.c_proj.weight), _array(unit.c_proj.bias))
        return graph.op("Add", hidden, added)

    def _project_rotary(self, layer: Any, hidden: str, rotation: list[str]) -> _Attended:
        graph, attention = self._graph, layer.self_attn
        heads, key_heads, size = self._heads, self.shape.key_heads, self.shape.head_size
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        weight = np.concatenate([_array(part.weight) for part in parts]).T.copy()
        bias = None if parts[0].bias is None else np.concatenate([_array(part.bias) for part in parts])
        normed = hasattr(attention, "q_norm")
        if not normed:
            weight[:, : heads * size] *= attention.scaling
            if bias is not None:
                bias[: heads * size] *= attention.scaling
        mixed = graph.linear(self._rms_norm(layer.input_layernorm, hidden), weight, bias)
        both, values = graph.split(
            self._by_head(mixed, heads + 2 * key_heads), [heads + key_heads, key_heads], axis=1
        )
        if normed:  # one norm for queries and keys; what sets them apart, and the scaling, follows it
            gain = np.ones(size, np.float32)
            both = graph.op(
                "RMSNormalization", both, gain, axis=-1, epsilon=float(attention.q_norm.variance_epsilon)
            )
            of_queries = np.tile(
                _array(attention.q_norm.weight) * np.float32(attention.scaling), (heads, 1, 1)
            )
            of_keys = np.tile(_array(attention.k_norm.weight), (key_heads, 1, 1))
            both = graph.op("Mul", both, np.concatenate([of_queries, of_keys]))
        both = graph.op("RotaryEmbedding", both, *rotation)
        queries, keys = graph.split(both, [heads, key_heads], axis=1)
        return _Attended(queries, keys, values)

    def _finish_rotary(self, layer: Any, hidden: str, attended: str) -> str:
        graph, projection, unit = self._graph, layer.self_attn.o_proj, layer.mlp
        hidden = graph.op("Add", hidden, self._linear(projection, attended))
        normed = self._rms_norm(layer.post_attention_layernorm, hidden)
        # Not one matrix for both: cutting its wide result in two costs more than a second product.
        gate, up = self._linear(unit.gate_proj, normed), self._linear(unit.up_proj, normed)
        gate = graph.op("Mul", gate, graph.op("Sigmoid", gate))
        return graph.op("Add", hidden, self._linear(unit.down_proj, graph.op("Mul", gate, up)))

    def _rotation(self, position: str) -> list[str]:
        """Cosines and sines, [B, Q, D / 2] each."""
        rotary, graph = self._body.rotary_emb, self._graph
        number = graph.op("Cast", position, to=1)  # 1 is FLOAT
        angle = graph.op("Mul", graph.op("Unsqueeze", number, ints(2)), _array(rotary.inv_freq))
        scaling = np.array(rotary.attention_scaling, np.float32)
        return [graph.op("Mul", graph.op(kind, angle), scaling) for kind in ("Cos", "Sin")]

    def _by_head(self, value: str, heads: int) -> str:
        """[B, Q, heads * D] as [B, heads, Q, D]."""
        parted = self._graph.op("Reshape", value, ints(0, 0, heads, self.shape.head_size))
        return self._graph.op("Transpose", parted, perm=[0, 2, 1, 3])

    def _linear(self, module: Any, value: str) -> str:
        bias = None if module.bias is None else _array(module.bias)
        return self._graph.linear(value, _array(module.weight).T, bias)

    def _layer_norm(self, norm: Any, value: str) -> str:
        weight, bias = _array(norm.weight), _array(norm.bias)
        return self._graph.op("LayerNormalization", value, weight, bias, axis=-1, epsilon=float(norm.eps))

    def _rms_norm(self, norm: Any, value: str) -> str:
        epsilon = float(norm.variance_epsilon)
        return self._graph.op("RMSNormalization", value, _array(norm.weight), axis=-1, epsilon=epsilon)

    def _check_variant(self) -> None:
        config = self._body.config
        activation = str(config.activation_function if self._gpt2 else config.hidden_act)
        known = tuple(_GELU) if self._gpt2 else ("silu",)
        if activation not in known:
            raise DecoderError(f"expected an activation of {', '.join(known)} to export, got {activation!r}")
        if not self._gpt2:
            kind = str(getattr(self._body.rotary_emb, "rope_type", "default"))
            if kind not in _FIXED_FREQUENCIES:
                raise DecoderError(
                    f"expected rotary positions of {', '.join(_FIXED_FREQUENCIES)} to export, got {kind!r}; "
                    "run this model in torch"
                )


def _array(tensor: Any) -> Float32Array:
    """A torch tensor as float32 numbers."""
    array: Float32Array = tensor.detach().float().cpu().numpy()
    return array
