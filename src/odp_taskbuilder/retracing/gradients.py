"""Gradients inside of a loop's body or a branch, of what was computed there from copies of its inputs."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def differentiated(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Those that have gradients."""
    return [tensor for tensor in tensors if tensor.dtype.is_floating]


def gradients_of(
    outputs: Sequence[tf.Tensor], inputs: Sequence[tf.Tensor], output_gradients: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """The gradient with respect to each of `inputs`, zeros for one that nothing depends on.

    Args:
      outputs: those without a gradient, integers for example, are left out together with their `output_gradients`.
      inputs: floating-point tensors of the current graph: a tensor from outside is to be copied (`tf.identity`) before it is used,
        or the walk would leave the graph.
    """
    pairs = [(output, grad) for output, grad in zip(outputs, output_gradients) if output.dtype.is_floating and grad is not None]
    if not pairs or not inputs:
        return [tf.zeros_like(tensor) for tensor in inputs]
    found = tf.gradients([output for output, _ in pairs], list(inputs), [grad for _, grad in pairs])
    return [tf.zeros_like(tensor) if grad is None else tf.convert_to_tensor(grad) for tensor, grad in zip(inputs, found)]
