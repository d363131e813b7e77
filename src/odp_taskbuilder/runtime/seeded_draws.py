"""A client graph whose draws (dropout, noise layers) can be repeated.

TensorFlow Lite seeds its random ops from the system, once for the life of an interpreter, so that what a client draws depends on which
clients ran before it. Where a run is to be repeated, these operators are replaced, in memory, by ones that draw from the same
distributions with a generator whose state is fed anew for every client. TensorFlow's resource holds that state: one for all operators,
which therefore draw numbers of their own, in each batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow.core.framework import node_def_pb2, types_pb2
from tensorflow.lite.python import schema_py_generated as schema

from odp_taskbuilder.runtime import graph_edits

# The input of the graph that takes the generator's state.
STATE = "odp_task/draws"
# Philox (tensorflow/core/framework/rng_alg.h), whose state is a counter of two numbers and a key.
_PHILOX = 1
_STATEFUL = {
    schema.BuiltinOperator.RANDOM_UNIFORM: "StatefulUniform",
    schema.BuiltinOperator.RANDOM_STANDARD_NORMAL: "StatefulStandardNormalV2",
}


def draws(model: Any) -> bool:
    """Whether a graph (a ModelT) has such operators."""
    return any(code.builtinCode in _STATEFUL for code in model.operatorCodes)


def seed_draws(model: Any) -> None:
    """Replaces them in a ModelT, and adds the input STATE, int64 [3]."""
    for subgraph in model.subgraphs:
        operators = []
        for operator in subgraph.operators:
            op = _STATEFUL.get(model.operatorCodes[operator.opcodeIndex].builtinCode)
            operators += [operator] if op is None else _drawing(model, subgraph, operator, op)
        subgraph.operators = operators
    main = model.subgraphs[0]
    state = graph_edits.add_tensor(main, schema.TensorType.INT64, [3], STATE.encode())
    main.inputs = np.append(main.inputs, np.int32(state))
    handle, generator = _generator(model, main)
    assignment = _flex(model, "AssignVariableOp", [generator, state], [], dtype=types_pb2.DT_INT64)
    main.operators[:0] = [handle, assignment]


def state_of(seed: int) -> np.ndarray:
    """What to feed.

    Args:
      seed: of 64 bits.
    """
    return np.array([0, 0, np.uint64(seed).astype(np.int64)], np.int64)


def _drawing(model: Any, subgraph: Any, operator: Any, op: str) -> list[Any]:
    """What takes the place of an operator from a shape to numbers."""
    handle, generator = _generator(model, subgraph)
    (shape,) = operator.inputs
    is_long = subgraph.tensors[shape].type == schema.TensorType.INT64
    algorithm = graph_edits.add_constant(model, subgraph, schema.TensorType.INT64, np.array([_PHILOX], np.int64))
    options = {"dtype": types_pb2.DT_FLOAT, "shape_dtype": types_pb2.DT_INT64 if is_long else types_pb2.DT_INT32}
    return [handle, _flex(model, op, [generator, algorithm, shape], list(operator.outputs), **options)]


def _generator(model: Any, subgraph: Any) -> tuple[Any, int]:
    """An operator that finds the resource, and the tensor that is its handle."""
    tensor = graph_edits.add_tensor(subgraph, schema.TensorType.RESOURCE, [])
    node_def = node_def_pb2.NodeDef(op="VarHandleOp")
    node_def.attr["shared_name"].s = STATE.encode()
    node_def.attr["container"].s = b""
    node_def.attr["dtype"].type = types_pb2.DT_INT64
    node_def.attr["shape"].shape.dim.add(size=3)
    node_def.attr["allowed_devices"].list.SetInParent()
    return graph_edits.flex_operator(model, node_def, [], [tensor]), tensor


def _flex(model: Any, op: str, inputs: list[int], outputs: list[int], **types: int) -> Any:
    node_def = node_def_pb2.NodeDef(op=op, input=[""] * len(inputs))
    for name, value in types.items():
        node_def.attr[name].type = value
    if op == "AssignVariableOp":
        node_def.attr["validate_shape"].b = False
    return graph_edits.flex_operator(model, node_def, inputs, outputs)
