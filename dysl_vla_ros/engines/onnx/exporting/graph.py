"""Writes the nodes of one graph, batch of one, all sizes fixed.

Weights are cast, joined and turned by nodes over constants, which ONNX Runtime computes once while it loads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from onnx import NodeProto, TensorProto, helper, numpy_helper

from dysl_vla_ros.engines.onnx.exporting.weights import Stored

OPSET, MICROSOFT, IR_VERSION = 21, "com.microsoft", 10  # what ONNX Runtime 1.20 and later read
FLOAT, HALF, INT, BOOL = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.BOOL
NUMPY: dict[int, Any] = {FLOAT: np.float32, HALF: np.float16}


class Graph:
    """Nodes, and the values between them by their names."""

    def __init__(self, name: str, stored: Mapping[str, Stored], numbers: int = FLOAT, *, inline: bool = False) -> None:
        """Begin an empty graph.

        Args:
            name: of the graph.
            stored: weights by their names.
            numbers: what it computes in, FLOAT or HALF.
            inline: write weights into the graph, as the quantiser wants them.
        """
        self.name, self.numbers, self._stored, self._inline = name, numbers, stored, inline
        self._nodes: list[NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._constants: dict[tuple[str, str, bytes], str] = {}
        self._known: dict[tuple[str, ...], str] = {}  # weights that were asked for -> value
        self._values = 0

    def input(self, name: str, shape: Sequence[int], kind: int | None = None) -> str:
        """Declare an input; ``kind`` None: in the graph's numbers."""
        self._inputs.append(helper.make_tensor_value_info(name, kind or self.numbers, list(shape)))
        return name

    def output(self, name: str, value: str, shape: Sequence[int], kind: int | None = None) -> None:
        """Declare an output."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, kind or self.numbers, list(shape)))

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output and return that."""
        return self.ops(kind, 1, *inputs, domain=domain, **attributes)[0]

    def ops(self, kind: str, outputs: int, *inputs: str, domain: str = "", **attributes: Any) -> list[str]:
        """Add a node and return its outputs."""
        names = [f"v{self._values + place}" for place in range(outputs)]
        self._values += outputs
        self._nodes.append(helper.make_node(kind, list(inputs), names, domain=domain, **attributes))
        return names

    def constant(self, values: ArrayLike, *, as_is: bool = False) -> str:
        """Return a constant; floating-point ones in the graph's numbers unless ``as_is``."""
        array = np.asarray(values)
        if array.dtype.kind == "f" and not as_is:
            array = array.astype(NUMPY[self.numbers])
        key = (str(array.dtype), str(array.shape), array.tobytes())
        if key not in self._constants:
            name = self._constants[key] = f"c{len(self._constants)}"
            self._initializers[name] = numpy_helper.from_array(array, name)
        return self._constants[key]

    def weight(self, name: str) -> str:
        """Return a stored weight, in the graph's numbers."""
        if (name,) not in self._known:
            stored = self._stored[name]
            if self._inline:
                self._known[(name,)] = self.constant(stored.values)
            else:
                self._initializers[name] = stored.proto(name)
                same = stored.kind == self.numbers
                self._known[(name,)] = name if same else self.op("Cast", name, to=self.numbers)
        return self._known[(name,)]

    def matrix(self, *names: str) -> str:
        """Return weights (outputs, inputs) side by side and turned: (inputs, all outputs)."""
        key = ("turned", *names)
        if key not in self._known and self._inline:
            joined = np.concatenate([self._stored[name].values for name in names])
            self._known[key] = self.constant(np.ascontiguousarray(joined.T))
        elif key not in self._known:
            parts = [self.weight(name) for name in names]
            value = parts[0] if len(parts) == 1 else self.op("Concat", *parts, axis=0)
            self._known[key] = self.op("Transpose", value, perm=[1, 0])
        return self._known[key]

    def linear(self, value: str, name: str, *, bias: bool = True) -> str:
        """Apply a linear layer of torch's: ``name.weight`` and ``name.bias``."""
        product = self.op("MatMul", value, self.matrix(f"{name}.weight"))
        return self.op("Add", product, self.weight(f"{name}.bias")) if bias else product

    def silu(self, value: str) -> str:
        """Apply x * sigmoid(x)."""
        return self.op("Mul", value, self.op("Sigmoid", value))

    def root_mean_square(self, value: str, scale: str, epsilon: float) -> str:
        """Scale each token to a mean square of 1, then by ``scale``."""
        return self.op("SimplifiedLayerNormalization", value, scale, axis=-1, epsilon=epsilon, stash_type=1)

    def shaped(self, value: str, *shape: int) -> str:
        """Reshape; -1: what is left."""
        return self.op("Reshape", value, self.constant(np.array(shape, np.int64)))

    def sliced(self, value: str, first: int, end: int, axis: int) -> str:
        """Return the places ``first`` to ``end`` of an axis."""
        places = [self.constant(np.array([place], np.int64)) for place in (first, end, axis)]
        return self.op("Slice", value, *places)

    def from_float(self, value: str) -> str:
        """Cast a float32 value to the graph's numbers, where they are others."""
        return value if self.numbers == FLOAT else self.op("Cast", value, to=self.numbers)

    def to_float(self, value: str) -> str:
        """Cast a value in the graph's numbers to float32."""
        return value if self.numbers == FLOAT else self.op("Cast", value, to=FLOAT)

    def model(self) -> Any:
        """Return it as a model."""
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, list(self._initializers.values())
        )
        domains = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=domains, ir_version=IR_VERSION, producer_name="dysl_vla_ros")
