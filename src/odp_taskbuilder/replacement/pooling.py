"""Pooling: gradients, and the forward passes of pooling in three dimensions.

Source: TensorFlow's definitions. Maxima are exact, ties included; averages differ by rounding, at most 2e-7 relative.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from odp_taskbuilder.replacement.equivalent import Node, NoEquivalentError, equivalent
from odp_taskbuilder.replacement.windows import Windows, require_channels_last, windows_of


def _windows(node: Node, inputs: Sequence, outputs: Sequence) -> Windows:
    require_channels_last(node)
    window = node.attr("ksize")
    if window[0] != 1 or window[-1] != 1:
        raise NoEquivalentError("it pools over the batch or the channels")
    return windows_of(node, inputs[1:-1], outputs[1:-1], window[1:-1], has_dilations=False)


@equivalent("MaxPoolGrad", by="for each position of the window: where the first maximum was, select the gradient")
def max_pool_grad(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: input, output, gradient by the output. Ties go to the first maximum in row-major order, as in TensorFlow's CPU kernel."""
    return [_max_gradient(node, all_maxima=False)]


@equivalent("MaxPool3DGrad", by="for each position of the window: where a maximum was, select the gradient")
def max_pool_3d_grad(node: Node) -> Sequence[tf.Tensor]:
    """As max_pool_grad, with three spatial dimensions; but all maxima of a tie get the gradient, as in TensorFlow's CPU kernel."""
    return [_max_gradient(node, all_maxima=True)]


def _max_gradient(node: Node, *, all_maxima: bool) -> tf.Tensor:
    image, maximum, gradient = node.inputs
    windows = _windows(node, node.shape(0), node.shape(1))
    padded = windows.pad(image, image.dtype.min)
    zeros = tf.zeros_like(gradient)
    parts, taken = {}, None
    for tap in windows.taps:
        here = selected = tf.equal(windows.read(padded, tap), maximum)
        if not all_maxima and taken is not None:
            selected = tf.logical_and(here, tf.logical_not(taken))
        taken = here if taken is None else tf.logical_or(taken, here)
        parts[tap] = tf.where(selected, gradient, zeros)
    return windows.add_up(parts)


@equivalent("AvgPoolGrad", by="the gradient over the size of the window, added wherever the window was")
def avg_pool_grad(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: shape of the input, gradient by the output. What lies in the padding counts for nothing."""
    _, gradient = node.inputs
    windows = _windows(node, node.output_shape(), node.shape(1))
    share = gradient * tf.constant(1 / _counts(windows), gradient.dtype)
    return [windows.add_up(dict.fromkeys(windows.taps, share))]


@equivalent("AvgPool3DGrad", by="the gradient over the size of the window, added wherever the window was")
def avg_pool_3d_grad(node: Node) -> Sequence[tf.Tensor]:
    """As avg_pool_grad, with three spatial dimensions."""
    return avg_pool_grad(node)


def _counts(windows: Windows) -> np.ndarray:
    """How many positions of each window are not padding: [1, *outputs, 1]."""
    counts = np.ones([1], np.float64)
    for size, output, taps, stride, before in zip(
        windows.inputs, windows.outputs, windows.window, windows.strides, windows.before
    ):
        starts = np.arange(output) * stride - before
        counts = counts[..., None] * (np.minimum(starts + taps, size) - np.maximum(starts, 0))
    return counts[..., None]


@equivalent("MaxPool3D", by="the maximum of slices")
def max_pool_3d(node: Node) -> Sequence[tf.Tensor]:
    """Input: [B, D, H, W, C]."""
    (image,) = node.inputs
    windows = _windows(node, node.shape(0), node.output_shape())
    padded = windows.pad(image, image.dtype.min)
    first, *others = (windows.read(padded, tap) for tap in windows.taps)
    for other in others:
        first = tf.maximum(first, other)
    return [first]


@equivalent("AvgPool3D", by="the sum of slices over the size of the window")
def avg_pool_3d(node: Node) -> Sequence[tf.Tensor]:
    """Input: [B, D, H, W, C]."""
    (image,) = node.inputs
    windows = _windows(node, node.shape(0), node.output_shape())
    padded = windows.pad(image)
    first, *others = (windows.read(padded, tap) for tap in windows.taps)
    for other in others:
        first = first + other
    return [first * tf.constant(1 / _counts(windows), image.dtype)]
