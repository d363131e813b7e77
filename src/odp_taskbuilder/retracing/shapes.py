"""Static shapes that saving lost.

Keras' Dense on sequences computes the shape of what it returns with ops, and tells TensorFlow in Python (`set_shape`) what that is. A saved
function holds the ops alone, and whatever follows, a convolution or a loop over the steps, knows no sizes any more.

So a function is traced twice with batches of known size, where TensorFlow can compute every shape; what is the same in both does not
depend on the batch.

Dilated convolutions move blocks of their images into the batch and back. Their gradients do the same with what the forward pass did it
with, and get it as tensors whose values nobody knows: here it is written into the gradient.
"""

from __future__ import annotations

from typing import Optional

import tensorflow as tf
from tensorflow.python.framework import tensor_util
from tensorflow.python.framework.func_graph import FuncGraph

_BLOCKS = {"BatchToSpaceND": tf.raw_ops.SpaceToBatchND, "SpaceToBatchND": tf.raw_ops.BatchToSpaceND}


class StaticShapes:
    """Shapes of the tensors of functions, as far as they are the same wherever and with whatever batch the function is traced."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[str, str], tf.TensorShape] = {}

    def see(self, function: FuncGraph, name: str, shape: tf.TensorShape) -> None:
        """Notes what shape a tensor of a function has this time."""
        key = function.name, name
        before = self._shapes.get(key)
        self._shapes[key] = shape if before is None else before.most_specific_compatible_shape(shape)

    def of(self, function: FuncGraph, name: str) -> Optional[list[int]]:
        """The sizes for a reshape: -1 for the batch; None where more than one size is unknown."""
        shape = self._shapes.get((function.name, name), tf.TensorShape(None))
        if shape.rank is None or shape.as_list().count(None) > 1:
            return None
        return [-1 if size is None else size for size in shape]

    def is_lost(self, function: FuncGraph, name: str, shape: tf.TensorShape) -> bool:
        """Whether `shape` says less of a tensor than is known here."""
        known = self.of(function, name)
        if known is None or not known:
            return False
        return shape.rank is None or sum(size is None for size in shape) > known.count(-1)


def loses_shapes(function: FuncGraph) -> bool:
    """Whether a function reshapes to sizes that it puts together of others, as Dense does on sequences, or moves blocks into the batch."""
    return any(
        op.type in _BLOCKS or (op.type == "Reshape" and op.inputs[1].op.type == "ConcatV2") for op in function.get_operations()
    )


def constant_gradient(op: tf.Operation) -> Optional[str]:
    """The registered gradient to use for an op that moves blocks between image and batch, by name; None for any other op."""
    if op.type not in _BLOCKS or any(tensor_util.constant_value(tensor) is None for tensor in op.inputs[1:]):
        return None
    return f"Constant{op.type}"


def _block_gradient(op: tf.Operation, grad: tf.Tensor) -> list[Optional[tf.Tensor]]:
    block_shape, edges = (tf.constant(tensor_util.constant_value(tensor)) for tensor in op.inputs[1:])
    name = "paddings" if op.type == "BatchToSpaceND" else "crops"
    return [_BLOCKS[op.type](input=grad, block_shape=block_shape, **{name: edges}), None, None]


for _op_type in _BLOCKS:
    tf.RegisterGradient(f"Constant{_op_type}")(_block_gradient)
