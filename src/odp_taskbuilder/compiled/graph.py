"""The flatbuffer as the translation needs it: what `ops.tflite` reads of it, with the options of builtin operators and the values of
constants, which TensorFlow's own schema module gives names to."""

from __future__ import annotations

import dataclasses
from typing import Any, Optional

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from odp_taskbuilder import errors
from odp_taskbuilder.ops import tflite

DTYPES = {
    "FLOAT32": np.dtype(np.float32),
    "FLOAT16": np.dtype(np.float16),
    "FLOAT64": np.dtype(np.float64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "BOOL": np.dtype(np.bool_),
}


@dataclasses.dataclass(frozen=True)
class Node:
    """One operator.

    Attributes:
      operator: its name, and the tensors that it works on.
      options: of a builtin, with the field names of TFLite's schema (`fusedActivationFunction`); None where it has none.
      attributes: of a flex op, by name (`tensorflow.AttrValue`); empty for a builtin.
    """

    operator: tflite.Operator
    options: Optional[Any]
    attributes: Any

    @property
    def name(self) -> str:
        return self.operator.op


@dataclasses.dataclass(frozen=True)
class Function:
    """One subgraph.

    Attributes:
      constants: by index of the tensor; strings as tuples of bytes, all others as arrays.
    """

    subgraph: tflite.Subgraph
    nodes: tuple[Node, ...]
    constants: dict[int, Any]

    @property
    def name(self) -> str:
        return self.subgraph.name


def read_functions(flatbuffer: bytes) -> tuple[Function, ...]:
    """The subgraphs of a client plan's flatbuffer, the main one first.

    Raises:
      ArtifactError: it is no TFLite flatbuffer, or is corrupt.
    """
    graph = tflite.read_tflite(flatbuffer, "The client plan's graph")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(flatbuffer, 0))
    return tuple(_function(subgraph, raw, model.buffers) for subgraph, raw in zip(graph.subgraphs, model.subgraphs))


def _function(subgraph: tflite.Subgraph, raw: Any, buffers: list) -> Function:
    nodes = []
    for operator, details in zip(subgraph.operators, raw.operators):
        attributes = tflite.read_node_def(operator).attr if operator.kind is tflite.OpKind.FLEX else {}
        nodes.append(Node(operator, details.builtinOptions, attributes))
    constants: dict[int, Any] = {}
    for index, (tensor, details) in enumerate(zip(subgraph.tensors, raw.tensors)):
        content = buffers[details.buffer].data
        if tensor.dtype == "STRING" and tensor.constant is not None:
            constants[index] = tensor.constant
        elif content is not None and len(content) and tensor.dtype in DTYPES:
            constants[index] = _array(tensor, bytes(content))
        elif tensor.shape is not None and 0 in tensor.shape and index not in _produced(subgraph) and tensor.dtype in DTYPES:
            # An empty constant has an empty buffer, as has a tensor that is computed.
            constants[index] = np.zeros(tensor.shape, DTYPES[tensor.dtype])
    return Function(subgraph, tuple(nodes), constants)


def _produced(subgraph: tflite.Subgraph) -> set[int]:
    return {index for operator in subgraph.operators for index in operator.outputs} | set(subgraph.inputs)


def _array(tensor: tflite.Tensor, content: bytes) -> np.ndarray:
    try:
        return np.frombuffer(content, DTYPES[tensor.dtype]).reshape(tensor.shape or ())
    except ValueError as error:
        raise errors.ArtifactError(
            f"The client plan's graph is corrupt: the constant {tensor.name!r} of {len(content)} bytes is no "
            f"{tensor.dtype}{list(tensor.shape or ())}"
        ) from error
