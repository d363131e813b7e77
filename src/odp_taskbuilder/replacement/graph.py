"""Putting equivalents in the place of nodes, in a GraphDef and in the functions of its library."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Callable, Optional

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, function_pb2, node_def_pb2
from tensorflow.python.framework import function_def_to_graph, op_def_registry

from odp_taskbuilder.replacement.equivalent import EQUIVALENTS, Equivalent, Node, NoEquivalentError

# What calls the equivalent; converters and TensorFlow itself put the function's nodes in its place.
_CALL = "PartitionedCall"


def replace_ops(
    graph_def: tf.compat.v1.GraphDef, ops: Collection[str]
) -> tuple[tf.compat.v1.GraphDef, dict[str, str]]:
    """Replaces nodes that execute `ops` by calls of functions that compute the same.

    A call keeps the name of the node, and with it what is known about where the node comes from.

    Args:
      graph_def: a graph whose ops TensorFlow knows. It is left as it is.
      ops: TensorFlow's names.

    Returns:
      The new graph, and for each op that is still in it why.
    """
    result, _, kept = _replaced(graph_def, ops, lambda operation: True)
    return result, kept


def replace_distorted(graph_def: tf.compat.v1.GraphDef) -> tuple[tf.compat.v1.GraphDef, dict[str, int]]:
    """Replaces nodes that TFLite's converter makes something of that computes something else, or nothing.

    Args:
      graph_def: as for `replace_ops`.

    Returns:
      The new graph, and for each op how many nodes were replaced.

    Raises:
      NoEquivalentError: one cannot be; the message is a sentence.
    """
    result, counts, kept = _replaced(graph_def, _DISTORTED, lambda operation: _DISTORTED[operation.type](operation))
    if kept:
        raise NoEquivalentError(". ".join(f"TensorFlow Lite would not compute {op}, and it was not replaced: {why}" for op, why in kept.items()))
    return result, counts


def _groups(operation: tf.Operation) -> bool:
    """Whether a gradient is that of a convolution in groups: TRANSPOSE_CONV knows none."""
    channels, per_group = operation.outputs[0].shape, operation.inputs[1].shape
    return operation.get_attr("data_format") == b"NHWC" and None not in (channels.rank, per_group.rank) and channels[-1] != per_group[2]


def _has_many_dimensions(operation: tf.Operation) -> bool:
    """Whether what DivNoNan is written out in, a SELECT_V2, has to broadcast in more dimensions than it does."""
    return (operation.outputs[0].shape.rank or 0) > 4


def _has_groups_in_3d(operation: tf.Operation) -> bool:
    """Whether a convolution in three dimensions works in groups: CONV_3D knows none."""
    channels, per_group = operation.inputs[0].shape, operation.inputs[1].shape
    return operation.get_attr("data_format") == b"NDHWC" and None not in (channels.rank, per_group.rank) and channels[-1] != per_group[3]


_DISTORTED: dict[str, Callable[[tf.Operation], bool]] = {
    "Conv2DBackpropInput": _groups,
    "Conv3D": _has_groups_in_3d,
    "DivNoNan": _has_many_dimensions,
}


def _replaced(
    graph_def: tf.compat.v1.GraphDef, ops: Collection[str], is_meant: Callable[[tf.Operation], bool]
) -> tuple[tf.compat.v1.GraphDef, dict[str, int], dict[str, str]]:
    """The graph with equivalents of those nodes of `ops` that are meant, how many were replaced of each op, and why some were not."""
    result = tf.compat.v1.GraphDef()
    result.CopyFrom(graph_def)
    counts: dict[str, int] = {}
    kept: dict[str, str] = {}
    writer = _Writer()
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        bodies: list[tuple[tf.Graph, Any, Optional[function_pb2.FunctionDef]]] = [(graph, result.node, None)]
        for function in result.library.function:
            if any(node.op in ops for node in function.node_def):
                body = function_def_to_graph.function_def_to_graph(function)
                bodies.append((body, function.node_def, function))
        for body, nodes, function in bodies:
            renamed: dict[str, str] = {}
            for node in nodes:
                if node.op not in ops or not is_meant(body.get_operation_by_name(node.name)):
                    continue
                op = node.op
                try:
                    called = writer.function(body.get_operation_by_name(node.name))
                except NoEquivalentError as error:
                    kept[op] = str(error)
                    continue
                renamed.update(_references(node))
                _call(node, called)
                counts[op] = counts.get(op, 0) + 1
            if function is not None:
                _rename(function, renamed)
    result.library.function.extend(writer.functions.values())
    return result, counts, kept


class _Writer:
    """Writes the functions that are called, one for all nodes that are alike."""

    def __init__(self) -> None:
        self.functions: dict[bytes, function_pb2.FunctionDef] = {}

    def function(self, operation: tf.Operation) -> function_pb2.FunctionDef:
        """The function that computes what `operation` does. Raises NoEquivalentError."""
        line = EQUIVALENTS.get(operation.type)
        if line is None:
            raise NoEquivalentError("nothing equivalent is known")
        traced = _trace(line, operation)
        traced.signature.name = "replaced"
        traced.ClearField("attr")
        key = hashlib.sha256(traced.SerializeToString(deterministic=True)).digest()
        if key not in self.functions:
            # A name that holds no counter of this process: two builds are to give the same bytes.
            traced.signature.name = f"replaced_{operation.type}_{len(self.functions)}"
            self.functions[key] = traced
        return self.functions[key]


def _trace(line: Equivalent, operation: tf.Operation) -> function_pb2.FunctionDef:
    def write(*inputs: tf.Tensor) -> list[tf.Tensor]:
        outputs = [*line.write(Node(operation, inputs))]
        for output, original in zip(outputs, operation.outputs):
            output.set_shape(original.shape)
        # What is left out is read by nothing but must have a value.
        outputs += [tf.zeros([0], original.dtype) for original in operation.outputs[len(outputs) :]]
        return [tf.identity(output) for output in outputs]

    signature = [tf.TensorSpec(tensor.shape, tensor.dtype, f"input_{i}") for i, tensor in enumerate(operation.inputs)]
    traced = tf.function(write, input_signature=signature, autograph=False).get_concrete_function()
    definition = function_pb2.FunctionDef()
    definition.CopyFrom(traced.function_def)
    return definition


def _references(node: node_def_pb2.NodeDef) -> dict[str, str]:
    """How a function's nodes refer to the outputs of `node` -> how they refer to those of a call in its place."""
    outputs = op_def_registry.get(node.op).output_arg
    return {f"{node.name}:{output.name}:0": f"{node.name}:output:{index}" for index, output in enumerate(outputs)}


def _call(node: node_def_pb2.NodeDef, function: function_pb2.FunctionDef) -> None:
    """Makes `node` a call of `function`."""
    node.op = _CALL
    node.attr.clear()
    node.attr["f"].func.name = function.signature.name
    node.attr["Tin"].list.type.extend(argument.type for argument in function.signature.input_arg)
    node.attr["Tout"].list.type.extend(result.type for result in function.signature.output_arg)
    for name in ("config", "config_proto", "executor_type"):
        node.attr[name].CopyFrom(attr_value_pb2.AttrValue(s=b""))


def _rename(function: function_pb2.FunctionDef, renamed: Mapping[str, str]) -> None:
    for node in function.node_def:
        _rename_all(node.input, renamed)
    for name, value in [*function.ret.items()]:
        function.ret[name] = renamed.get(value, value)


def _rename_all(names: Any, renamed: Mapping[str, str]) -> None:
    updated: Iterable[str] = [renamed.get(name, name) for name in names]
    del names[:]
    names.extend(updated)
