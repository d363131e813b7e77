"""Convolutions: gradients by kernel and by input, and forward passes that converters leave to TensorFlow.

Source: the definition of convolution. All are exact but for the order in which products are summed: at most 1e-6 relative (L2) for sums
of up to 10,000 products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import tensorflow as tf

from odp_taskbuilder.replacement.equivalent import Node, NoEquivalentError, equivalent
from odp_taskbuilder.replacement.windows import Windows, require_channels_last, windows_of

# What one example's columns may take. Larger ones are made and used in several parts: the gradient of a 5 x 5 kernel over 14 x 14 x 32
# has columns of 627 kB an example, 25 times its input.
_MAX_COLUMN_BYTES = 256 << 10


@equivalent("Conv2DBackpropFilter", by="slices of the input, one for each weight of the window, times the gradient: one matrix product")
def conv2d_backprop_filter(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: input [B, H, W, I], filter sizes, gradient [B, h, w, O]; also for groups. Needs all sizes but the batch."""
    return [_kernel_gradient(node)]


@equivalent("Conv3DBackpropFilterV2", by="slices of the input, one for each weight of the window, times the gradient: one matrix product")
def conv3d_backprop_filter(node: Node) -> Sequence[tf.Tensor]:
    """As conv2d_backprop_filter, with three spatial dimensions."""
    return [_kernel_gradient(node)]


def _kernel_gradient(node: Node) -> tf.Tensor:
    require_channels_last(node)
    image, _, gradient = node.inputs
    *window, per_group, filters = node.output_shape()
    if None in (per_group, filters, image.shape[-1]):
        raise NoEquivalentError("a number of channels is unknown")
    windows = windows_of(node, node.shape(0)[1:-1], node.shape(2)[1:-1], window, has_dilations=True)
    groups = image.shape[-1] // per_group
    padded = windows.pad(image)
    taps = windows.taps
    positions = tf.TensorShape(windows.outputs).num_elements()
    at_once = max(_MAX_COLUMN_BYTES // (positions * image.shape[-1] * 4), 1)
    parts = []
    for start in range(0, len(taps), at_once):
        columns = [windows.read(padded, tap) for tap in taps[start : start + at_once]]
        if groups == 1:
            parts.append(_products(tf.concat(columns, -1) if len(columns) > 1 else columns[0], gradient))
        else:
            parts += [_grouped_products(column, gradient, groups) for column in columns]
    return tf.reshape(tf.concat(parts, 0) if len(parts) > 1 else parts[0], [*window, per_group, filters])


def _products(columns: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """The sum over batch and positions of columns [.., n] times gradient [.., O]: [n, O]."""
    columns = tf.reshape(columns, [-1, columns.shape[-1]])
    return tf.matmul(columns, tf.reshape(gradient, [-1, gradient.shape[-1]]), transpose_a=True)


def _grouped_products(column: tf.Tensor, gradient: tf.Tensor, groups: int) -> tf.Tensor:
    """As `_products` where each group of channels sees its own filters only: [I / groups, O]."""
    pairs = zip(tf.split(column, groups, -1), tf.split(gradient, groups, -1))
    return tf.concat([_products(*pair) for pair in pairs], -1)


@equivalent("Conv2DBackpropInput", by="a convolution of the spread gradient with the mirrored kernel")
def conv2d_backprop_input(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: input sizes, kernel [h, w, I, O], gradient [B, h', w', O]; also for groups. Needs all sizes but the batch."""
    return [_input_gradient(node, tf.nn.conv2d)]


@equivalent("Conv3DBackpropInputV2", by="a convolution of the spread gradient with the mirrored kernel")
def conv3d_backprop_input(node: Node) -> Sequence[tf.Tensor]:
    """As conv2d_backprop_input, with three spatial dimensions."""
    return [_input_gradient(node, tf.nn.conv3d)]


def _input_gradient(node: Node, convolve: Callable[..., tf.Tensor]) -> tf.Tensor:
    require_channels_last(node)
    _, kernel, gradient = node.inputs
    *window, per_group, filters = node.shape(1)
    channels = node.output_shape()[-1]
    if None in (per_group, filters, channels):
        raise NoEquivalentError("a number of channels is unknown")
    windows = windows_of(node, node.output_shape()[1:-1], node.shape(2)[1:-1], window, has_dilations=True)
    spread = spread_gradient(windows, gradient)
    groups = channels // per_group
    parts = []
    for kernel_part, gradient_part in zip(tf.split(kernel, groups, -1), tf.split(spread, groups, -1)):
        rank = len(window)
        turned = tf.transpose(mirrored(kernel_part), [*range(rank), rank + 1, rank])
        parts.append(convolve(gradient_part, turned, [1] * (rank + 2), "VALID", dilations=[1, *windows.dilations, 1]))
    return tf.concat(parts, -1) if groups > 1 else parts[0]


def spread_gradient(windows: Windows, gradient: tf.Tensor) -> tf.Tensor:
    """The gradient with zeros between its elements and around it, so that a mirrored window that moves by 1 over it meets for each
    element of the input what that element contributed to."""
    reach = [(taps - 1) * dilation for taps, dilation in zip(windows.window, windows.dilations)]
    starts = [far - pad for far, pad in zip(reach, windows.before)]
    front = [max(start, 0) for start in starts]
    origin = (0,) * len(reach)
    placed = Windows(
        inputs=tuple(size + far - zeros for size, far, zeros in zip(windows.inputs, reach, front)),
        outputs=windows.outputs,
        window=(1,) * len(reach),
        strides=windows.strides,
        dilations=(1,) * len(reach),
        # Where the padding is wider than the window reaches, what lies in it contributed to nothing.
        before=tuple(max(-start, 0) for start in starts),
        after=origin,
    )
    spread = placed.add_up({origin: gradient})
    return tf.pad(spread, [(0, 0), *((zeros, 0) for zeros in front), (0, 0)]) if any(front) else spread


def mirrored(kernel: tf.Tensor) -> tf.Tensor:
    """The kernel backwards along its spatial dimensions, one after the other: TFLite reverses one at a time."""
    for axis in range(kernel.shape.rank - 2):
        kernel = tf.reverse(kernel, [axis])
    return kernel


@equivalent("DepthwiseConv2dNativeBackpropFilter", by="slices of the input, one for each weight of the window, times the gradient, summed")
def depthwise_backprop_filter(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: input [B, H, W, C], filter sizes, gradient [B, h, w, C * M]. Needs all sizes but the batch."""
    require_channels_last(node)
    image, _, gradient = node.inputs
    *window, channels, multiplier = node.output_shape()
    windows = windows_of(node, node.shape(0)[1:-1], node.shape(2)[1:-1], window, has_dilations=True)
    padded = windows.pad(image)
    by_filter = [gradient] if multiplier == 1 else _filters(gradient, windows, channels, multiplier)
    sums = []
    for tap in windows.taps:
        seen = windows.read(padded, tap)
        # One dimension after the other: TFLite adds one number after the other, and loses digits over many.
        products = [tf.reduce_sum(tf.reduce_sum(tf.reduce_sum(seen * part, 1), 1), 0) for part in by_filter]
        sums.append(tf.stack(products, -1))
    return [tf.reshape(tf.stack(sums), [*window, channels, multiplier])]


def _filters(gradient: tf.Tensor, windows: Windows, channels: int, multiplier: int) -> list[tf.Tensor]:
    """The gradient of each of the filters that a channel has, [B, h, w, C]."""
    split = tf.reshape(gradient, [-1, *windows.outputs[:-1], windows.outputs[-1] * channels, multiplier])
    return [tf.reshape(split[..., i], [-1, *windows.outputs, channels]) for i in range(multiplier)]


@equivalent("DepthwiseConv2dNativeBackpropInput", by="a depthwise convolution of the spread gradient with the mirrored kernel")
def depthwise_backprop_input(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: input sizes, kernel [h, w, C, M], gradient [B, h', w', C * M]. Needs all sizes but the batch."""
    require_channels_last(node)
    _, kernel, gradient = node.inputs
    *window, channels, multiplier = node.shape(1)
    windows = windows_of(node, node.output_shape()[1:-1], node.shape(2)[1:-1], window, has_dilations=True)
    by_filter = [gradient] if multiplier == 1 else _filters(gradient, windows, channels, multiplier)
    parts = [
        tf.nn.depthwise_conv2d(
            spread_gradient(windows, part), mirrored(kernel[..., i : i + 1]), [1, 1, 1, 1], "VALID", dilations=windows.dilations
        )
        for i, part in enumerate(by_filter)
    ]
    return [tf.add_n(parts) if len(parts) > 1 else parts[0]]


@equivalent("Conv2D", by="padding, and a convolution without")
def conv2d(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: input [B, H, W, I], kernel [h, w, I, O]; where converters do not know sizes that TensorFlow knows."""
    require_channels_last(node)
    image, kernel = node.inputs
    windows = windows_of(node, node.shape(0)[1:-1], node.output_shape()[1:-1], node.shape(1)[:2], has_dilations=True)
    padded = windows.pad(tf.reshape(image, [-1, *node.shape(0)[1:]]))
    kernel = tf.reshape(kernel, node.shape(1))
    return [tf.nn.conv2d(padded, kernel, [1, *windows.strides, 1], "VALID", dilations=[1, *windows.dilations, 1])]
