"""A few lines around the ``onnx`` package: operators in, a graph and its file out. Knows no model.

Constants are numpy arrays given where an operator takes them; the same integers are stored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from index.errors import require
from index.types import FloatArray, IntArray

Value: TypeAlias = "str | FloatArray | IntArray"
"""The name of a value in the graph, or a constant."""

OPSET = 23  # the first with RMSNormalization, RotaryEmbedding and Attention
IR_VERSION = 11  # the file format that came with it

# A protocol buffer ends at 2 GiB; above this the weights get a file of their own.
_ONE_FILE_BYTES = 2**30


class GraphBuilder:
    """Nodes in the order of their execution, and the constants they use."""

    def __init__(self) -> None:
        self._onnx: Any = require("onnx", extra="export", purpose="Exporting a model")
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._integers: dict[tuple[bytes, tuple[int, ...]], str] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._renamed: dict[str, str] = {}

    def input(self, name: str, shape: Sequence[int | str], *, integer: bool = False) -> str:
        """Declare an input; a named axis may have any length."""
        kind = self._onnx.TensorProto.INT64 if integer else self._onnx.TensorProto.FLOAT
        self._inputs.append(self._onnx.helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, value: str, name: str, shape: Sequence[int | str]) -> None:
        """Give a float value out under a name."""
        self._renamed[value] = name
        kind = self._onnx.TensorProto.FLOAT
        self._outputs.append(self._onnx.helper.make_tensor_value_info(name, kind, list(shape)))

    def op(self, kind: str, *inputs: Value, **attributes: Any) -> str:
        """Add an operator with one result."""
        (result,) = self.ops(kind, 1, *inputs, **attributes)
        return result

    def ops(self, kind: str, results: int, *inputs: Value, **attributes: Any) -> list[str]:
        """Add an operator with several results."""
        names = [one if isinstance(one, str) else self._constant(one) for one in inputs]
        made = [f"{kind}_{len(self._nodes)}_{place}" for place in range(results)]
        self._nodes.append(self._onnx.helper.make_node(kind, names, made, **attributes))
        return made

    def linear(self, value: str, weight: FloatArray, bias: FloatArray | None) -> str:
        """``value @ weight + bias``; ``weight`` is [in, out]."""
        product = self.op("MatMul", value, weight)
        return product if bias is None else self.op("Add", product, bias)

    def split(self, value: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Cut along an axis."""
        return self.ops("Split", len(sizes), value, ints(*sizes), axis=axis)

    def model(self, name: str) -> Any:
        """The finished ``onnx.ModelProto``."""
        helper = self._onnx.helper
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [self._renamed.get(value, value) for value in names]
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._constants)
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="genrec",
        )

    def _constant(self, array: FloatArray | IntArray) -> str:
        array = array.copy(order="C")  # a 0-d array stays one
        key = (array.tobytes(), array.shape) if array.dtype == np.int64 else None
        if key is not None and key in self._integers:
            return self._integers[key]
        name = f"constant_{len(self._constants)}"
        self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        if key is not None:
            self._integers[key] = name
        return name


def save_graph(model: Any, path: Path) -> None:
    """Write an ``onnx.ModelProto`` and check the file; large weights go into a file beside it."""
    onnx: Any = require("onnx", extra="export", purpose="Exporting a model")
    large = sum(len(constant.raw_data) for constant in model.graph.initializer) > _ONE_FILE_BYTES
    data = f"{path.name}.data"
    onnx.save_model(model, path, save_as_external_data=large, location=data if large else None)
    onnx.checker.check_model(str(path))


def ints(*values: int) -> IntArray:
    """int64[n], as shapes and sizes are given to operators."""
    return np.array(values, np.int64)
