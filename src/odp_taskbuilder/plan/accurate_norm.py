"""Norms that keep the clip of the DP aggregators in TensorFlow Lite (spec: plan.md, section 5.5).

The clip of the DP aggregators takes the norm of a client's update from TensorFlow's L2Loss op, half the sum of the squares of a
tensor. As a flex op it needs a newer module on the device, and gives a norm that is off by up to 2e-6, where many elements are
equal. So it is lengthened by that much: the update is longer than the clip by less than 1e-6, and shorter by at most 4e-6.
Where the converter knows the tensor's rank it writes the op out as multiplication and TFLite's builtin SUM, which adds float32
numbers one after the other: over millions of elements small terms are lost, the norm comes out too small, the update is clipped
too little, and the stated epsilon does not hold.

There the sum is written out in stages over rows of at most 16 elements. Rounding errors of different rows average out, except
where many rows are alike: of all tensors that were tried those whose elements are equal fare worst, with an error of the norm
of 2.7e-7 (with rows of 64 elements: 9e-7).
"""

from __future__ import annotations

from typing import Callable

import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from odp_taskbuilder import errors

_MAX_ROW = 16
_MIN_ROW = 8
_FLEX_L2_LOSS = b"FlexL2Loss"
# Of L2Loss, relative. The worst found is 3.9e-6, for thousands of equal elements: every addition may round the same way. The norm,
# its root, is off by half as much.
_L2_LOSS_ERROR = 4e-6


def replace_l2_losses(graph: tf.Graph) -> None:
    """Rewires the consumers of every L2Loss in the main graph to a staged sum of squares.

    Raises:
      errors.ModelError: the size of a tensor whose norm is taken is not known.
    """

    def staged(operation: tf.Operation) -> tf.Tensor:
        (value,) = operation.inputs
        if not value.shape.is_fully_defined():
            raise errors.ModelError(
                f"The client graph takes the norm of a tensor of shape {value.shape}: the clip cannot be kept without knowing its size."
            )
        return half_sum_of_squares(value)

    _rewire_l2_losses(graph, staged)


def lengthen_l2_losses(graph: tf.Graph) -> None:
    """Rewires the consumers of every L2Loss in the main graph to a value that is larger by what L2Loss may be too small."""
    _rewire_l2_losses(graph, lambda operation: operation.outputs[0] * (1 + _L2_LOSS_ERROR))


def _rewire_l2_losses(graph: tf.Graph, replacement: Callable[[tf.Operation], tf.Tensor]) -> None:
    for operation in graph.get_operations():
        if operation.type == "L2Loss":
            (output,) = operation.outputs
            # Listed before the replacement becomes one of them.
            consumers = output.consumers()
            replaced = replacement(operation)
            for consumer in consumers:
                for index, tensor in enumerate(consumer.inputs):
                    if tensor is output:
                        consumer._update_input(index, replaced)


def loses_l2_losses(graph_def: tf.compat.v1.GraphDef, tflite_graph: bytes) -> bool:
    """Whether the converter wrote out any L2Loss of `graph_def`. Which ranks it knows shows only in its result, a TFLite flatbuffer.

    An L2Loss of the user's own model is counted, too. Where that alone was written out, the norm is written out in stages for
    nothing: the clip holds all the same, and the plan is larger. A loss is missed only if the converter also makes copies of
    another L2Loss, as it may of functions that are called from several places (`tflite.convert`).
    """
    nodes = [*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)]
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tflite_graph, 0))
    codes = [model.operatorCodes[operator.opcodeIndex] for subgraph in model.subgraphs for operator in subgraph.operators]
    return sum(code.customCode == _FLEX_L2_LOSS for code in codes) < sum(node.op == "L2Loss" for node in nodes)


def half_sum_of_squares(value: tf.Tensor) -> tf.Tensor:
    """sum(value ** 2) / 2 as a scalar, for a tensor of known shape."""
    size = value.shape.num_elements()
    terms = tf.reshape(value * value, [size])
    while size > _MAX_ROW:
        row = next((length for length in range(_MAX_ROW, _MIN_ROW - 1, -1) if size % length == 0), None)
        if row is None:
            row = _MAX_ROW
            padding = -size % row
            terms = tf.pad(terms, [[0, padding]])
            size += padding
        size //= row
        terms = tf.reduce_sum(tf.reshape(terms, [size, row]), axis=1)
    return tf.reduce_sum(terms) * 0.5
