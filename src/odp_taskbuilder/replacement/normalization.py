"""Batch normalization (Ioffe and Szegedy, 2015) as TensorFlow's fused ops compute it; Keras' LayerNormalization uses them too.

Errors: at most 2e-6 relative to the largest element, where the variance is not tiny beside the squared mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from odp_taskbuilder.base.elementwise import minus
from odp_taskbuilder.replacement.equivalent import Node, equivalent


def _axes(node: Node) -> tuple[list[int], list[int]]:
    """The dimensions that are averaged over, and the shape that broadcasts a vector over channels."""
    rank = len(node.attr("data_format"))
    channels = node.attr("data_format").index("C")
    return [axis for axis in range(rank) if axis != channels], [-1 if axis == channels else 1 for axis in range(rank)]


def _mean(tensor: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
    """Over one dimension after the other, all kept: TFLite adds one number after the other, and loses digits over many."""
    for axis in axes:
        tensor = tf.reduce_mean(tensor, axis, keepdims=True)
    return tensor


def _count(tensor: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
    """How many elements are averaged over, as a number of the tensor's type."""
    sizes = tf.shape(tensor)
    number = tf.constant(1, tf.int32)
    for axis in axes:
        number = number * (sizes[axis] if tensor.shape[axis] is None else tensor.shape[axis])
    return tf.cast(number, tensor.dtype)


@equivalent("FusedBatchNormV3", by="mean, variance and reciprocal square root")
def fused_batch_norm(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: tensor, scale, offset, mean, variance. Outputs: result, the new mean and variance, mean and variance for the gradient."""
    image, scale, offset, old_mean, old_variance = node.inputs
    axes, broadcast = _axes(node)
    if node.attr("is_training"):
        mean = _mean(image, axes)
        centred = minus(image, mean)
        variance = _mean(tf.math.squared_difference(image, mean), axes)
        flat_mean, flat_variance = tf.reshape(mean, [-1]), tf.reshape(variance, [-1])
        number = _count(image, axes)
        # The population's variance from the batch's; one element alone has none.
        estimate = flat_variance * (number / tf.maximum(number - 1, 1))
        factor = node.attr("exponential_avg_factor")
        new_mean, new_variance = flat_mean, estimate
        if factor != 1:
            new_mean = old_mean * (1 - factor) + flat_mean * factor
            new_variance = old_variance * (1 - factor) + estimate * factor
    else:
        centred = minus(image, tf.reshape(old_mean, broadcast))
        variance = tf.reshape(old_variance, broadcast)
        flat_mean, flat_variance = new_mean, new_variance = old_mean, old_variance
    result = centred * (tf.math.rsqrt(variance + node.attr("epsilon")) * tf.reshape(scale, broadcast)) + tf.reshape(offset, broadcast)
    return [result, new_mean, new_variance, flat_mean, flat_variance]


@equivalent("FusedBatchNormGradV3", by="sums and reciprocal square root")
def fused_batch_norm_grad(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: gradient, tensor, scale, mean, variance. Outputs: gradients by the tensor, scale, offset."""
    gradient, image, scale, flat_mean, flat_variance = node.inputs[:5]
    axes, broadcast = _axes(node)
    deviation = tf.math.rsqrt(tf.reshape(flat_variance, broadcast) + node.attr("epsilon"))
    normalized = minus(image, tf.reshape(flat_mean, broadcast)) * deviation
    mean_gradient = _mean(gradient, axes)
    mean_product = _mean(gradient * normalized, axes)
    factor = tf.reshape(scale, broadcast) * deviation
    result = (minus(gradient, mean_gradient) - normalized * mean_product if node.attr("is_training") else gradient) * factor
    number = _count(image, axes)
    return [result, tf.reshape(mean_product, [-1]) * number, tf.reshape(mean_gradient, [-1]) * number]
