"""Gradients that a model brings along, as Keras' swish does.

Such a gradient is a function of its own, which captures tensors of the function that it was saved with. Where that one is traced again,
the gradient has to be, too, on what has taken their place.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Callable, Optional

import tensorflow as tf
from tensorflow.python.framework import ops


def loaded_gradient(op: tf.Operation) -> Optional[Any]:
    """The concrete function that a loaded model has as the gradient of `op`, or None. It takes the gradients by the outputs of `op`."""
    if op.type != "IdentityN" or "_gradient_op_type" not in op.node_def.attr:
        return None
    try:
        gradient = ops.gradient_registry.lookup(op.node_def.attr["_gradient_op_type"].s.decode())
    except LookupError:
        return None
    # TensorFlow's loader registers a Python function around it, and keeps it nowhere else.
    found = inspect.getclosurevars(gradient).nonlocals.get("func")
    return found if hasattr(found, "captured_inputs") and hasattr(found, "structured_outputs") else None


def identity_with_gradient(
    values: Sequence[tf.Tensor], gradient: Any, run: Callable[[Sequence[tf.Tensor]], Sequence[tf.Tensor]]
) -> list[tf.Tensor]:
    """`values`, with `gradient` as their gradient, whose outputs `run` computes from the gradients by the values."""
    has_gradient = [part is not None for part in tf.nest.flatten(gradient.structured_outputs)]

    @tf.custom_gradient
    def identity(*tensors):
        def backward(*output_gradients):
            found = iter(run(output_gradients))
            return [next(found) if has else None for has in has_gradient]

        return [tf.identity(tensor) for tensor in tensors], backward

    return list(identity(*values))
