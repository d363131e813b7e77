"""Putting TensorFlow's ops and tensors into a client graph in memory (a ModelT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from flatbuffers import flexbuffers
from tensorflow.core.framework import node_def_pb2
from tensorflow.lite.python import schema_py_generated as schema


def add_tensor(subgraph: Any, dtype: int, shape: Sequence[int], name: bytes = b"", buffer: int = 0) -> int:
    """Returns the position of a new tensor; buffer 0 is the empty one."""
    tensor = schema.TensorT()
    tensor.type = dtype
    tensor.shape = np.array(shape, np.int32)
    tensor.hasRank = True
    tensor.name = name
    tensor.buffer = buffer
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def add_constant(model: Any, subgraph: Any, dtype: int, content: np.ndarray) -> int:
    """Returns the position of a new scalar with the bytes of `content`."""
    buffer = schema.BufferT()
    buffer.data = content.view(np.uint8)
    model.buffers.append(buffer)
    return add_tensor(subgraph, dtype, [], buffer=len(model.buffers) - 1)


def flex_operator(model: Any, node_def: node_def_pb2.NodeDef, inputs: Sequence[int], outputs: Sequence[int]) -> Any:
    """An operator that runs TensorFlow's kernel, to be put where it belongs.

    Args:
      node_def: with every attribute of the op; one empty name for each input.
    """
    operator = schema.OperatorT()
    operator.opcodeIndex = _flex_code(model, f"Flex{node_def.op}".encode())
    operator.inputs = np.array(inputs, np.int32)
    operator.outputs = np.array(outputs, np.int32)
    operator.customOptions = flex_options(node_def)
    operator.customOptionsFormat = schema.CustomOptionsFormat.FLEXBUFFERS
    return operator


def flex_options(node_def: node_def_pb2.NodeDef) -> np.ndarray:
    """What a flex operator carries: the op's name and its NodeDef."""
    builder = flexbuffers.Builder()
    with builder.Vector():
        builder.String(node_def.op)
        # TensorFlow Lite reads bytes; every attribute that is set here is ASCII in serialized form.
        builder.String(node_def.SerializeToString().decode())
    return np.frombuffer(bytes(builder.Finish()), np.uint8)


def _flex_code(model: Any, name: bytes) -> int:
    codes = [code.customCode for code in model.operatorCodes]
    if name not in codes:
        code = schema.OperatorCodeT()
        code.builtinCode = schema.BuiltinOperator.CUSTOM
        # Where readers of before 2020 look.
        code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        code.customCode = name
        code.version = 1
        model.operatorCodes.append(code)
        return len(codes)
    return codes.index(name)
