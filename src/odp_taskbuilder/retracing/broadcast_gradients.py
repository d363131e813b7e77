"""Gradients of elementwise ops whose broadcast axes are decided while tracing.

TensorFlow asks for these axes at run time (BroadcastGradientArgs and two shapes for every op) unless all dimensions are known. In
a retraced model the only unknown dimension is the batch: of two operands that both have it, neither is broadcast along it.
"""

from __future__ import annotations

from typing import Callable, Optional

import tensorflow as tf

# What each operand's gradient is before it is summed over the axes along which the operand was broadcast. The formulas are those of
# TensorFlow's own gradients (math_grad.py).
_Terms = Callable[[tf.Operation, tf.Tensor], tuple[Optional[tf.Tensor], ...]]


def _add(op: tf.Operation, grad: tf.Tensor) -> tuple[Optional[tf.Tensor], ...]:
    return grad, grad


def _sub(op: tf.Operation, grad: tf.Tensor) -> tuple[Optional[tf.Tensor], ...]:
    return grad, -grad


def _mul(op: tf.Operation, grad: tf.Tensor) -> tuple[Optional[tf.Tensor], ...]:
    x, y = op.inputs
    return grad * y, x * grad


def _real_div(op: tf.Operation, grad: tf.Tensor) -> tuple[Optional[tf.Tensor], ...]:
    x, y = op.inputs
    return grad / y, grad * (-x / y / y)


def _squared_difference(op: tf.Operation, grad: tf.Tensor) -> tuple[Optional[tf.Tensor], ...]:
    x, y = op.inputs
    term = 2.0 * grad * (x - y)
    return term, -term


def _maximum(op: tf.Operation, grad: tf.Tensor) -> tuple[Optional[tf.Tensor], ...]:
    x, y = op.inputs
    first, zeros = x >= y, tf.zeros_like(grad)
    return tf.where(first, grad, zeros), tf.where(first, zeros, grad)


def _minimum(op: tf.Operation, grad: tf.Tensor) -> tuple[Optional[tf.Tensor], ...]:
    x, y = op.inputs
    first, zeros = x <= y, tf.zeros_like(grad)
    return tf.where(first, grad, zeros), tf.where(first, zeros, grad)


def _select(op: tf.Operation, grad: tf.Tensor) -> tuple[Optional[tf.Tensor], ...]:
    condition, zeros = op.inputs[0], tf.zeros_like(grad)
    return None, tf.where(condition, grad, zeros), tf.where(condition, zeros, grad)


_TERMS: dict[str, _Terms] = {
    "Add": _add,
    "AddV2": _add,
    "Maximum": _maximum,
    "Minimum": _minimum,
    "Mul": _mul,
    "RealDiv": _real_div,
    "SelectV2": _select,
    "SquaredDifference": _squared_difference,
    "Sub": _sub,
}


def static_gradient(op_type: str, inputs: list[tf.Tensor], output_shape: tf.TensorShape) -> Optional[str]:
    """The registered gradient to use for an op of `op_type`, by name; None where only TensorFlow's own will do."""
    if op_type not in _TERMS or not inputs[-1].dtype.is_floating:
        return None
    axes = [broadcast_axes(tensor.shape, output_shape) for tensor in inputs]
    return None if None in axes else _name(op_type)


def broadcast_axes(shape: tf.TensorShape, output_shape: tf.TensorShape) -> Optional[tuple[list[int], list[int]]]:
    """The axes of an output along which an operand of `shape` was broadcast: those that it lacks, and those where it has 1.

    None where that depends on dimensions that are not known.
    """
    if shape.rank is None or output_shape.rank is None:
        return None
    lacking = output_shape.rank - shape.rank
    stretched = []
    for axis, (dim, output_dim) in enumerate(zip(shape, output_shape[lacking:]), lacking):
        if dim == 1:
            # Summing along an axis that turns out to have length 1 changes nothing.
            stretched.extend([axis] if output_dim != 1 else [])
        elif dim is None and output_dim is not None:
            return None
    return list(range(lacking)), stretched


def _name(op_type: str) -> str:
    return f"StaticBroadcast{op_type}"


def _gradient(terms: _Terms) -> Callable[[tf.Operation, tf.Tensor], list[Optional[tf.Tensor]]]:
    def gradient(op: tf.Operation, grad: tf.Tensor) -> list[Optional[tf.Tensor]]:
        return [
            None if term is None else _summed(term, operand.shape, op.outputs[0].shape)
            for term, operand in zip(terms(op, grad), op.inputs)
        ]

    return gradient


def _summed(term: tf.Tensor, shape: tf.TensorShape, output_shape: tf.TensorShape) -> tf.Tensor:
    lacking, stretched = broadcast_axes(shape, output_shape)
    if stretched:
        term = tf.reduce_sum(term, stretched, keepdims=True)
    return tf.reduce_sum(term, lacking) if lacking else term


for _op_type, _op_terms in _TERMS.items():
    tf.RegisterGradient(_name(_op_type))(_gradient(_op_terms))
