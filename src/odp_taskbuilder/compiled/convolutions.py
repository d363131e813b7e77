"""Translations of convolutions and pooling, of images as [batch, height, width, channels]."""

from __future__ import annotations

from typing import Optional

import jax
import jax.numpy as jnp
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from odp_taskbuilder.compiled.arithmetic import activated
from odp_taskbuilder.compiled.translation import Op, Value, translates

_PADDINGS = {schema.Padding.SAME: "SAME", schema.Padding.VALID: "VALID"}
_LAYOUT = ("NHWC", "HWIO", "NHWC")


@translates("CONV_2D")
def _conv_2d(op: Op, x: Value, filters: Value, bias: Optional[Value] = None) -> Value:
    # TFLite's filters are [out, height, width, in]; fewer inputs than channels are groups.
    return _convolved(op, x, jnp.transpose(filters, (1, 2, 3, 0)), bias, groups=x.shape[-1] // filters.shape[-1])


@translates("DEPTHWISE_CONV_2D")
def _depthwise_conv_2d(op: Op, x: Value, filters: Value, bias: Optional[Value] = None) -> Value:
    # [1, height, width, channels * multiplier], the multiples of a channel side by side.
    return _convolved(op, x, jnp.transpose(filters, (1, 2, 0, 3)), bias, groups=x.shape[-1])


def _convolved(op: Op, x: Value, filters: Value, bias: Optional[Value], *, groups: int) -> Value:
    """x [batch, height, width, in] with filters [height, width, in of a group, out], as the operator's options say."""
    options = op.options
    out = jax.lax.conv_general_dilated(
        jnp.asarray(x),
        filters,
        window_strides=(options.strideH, options.strideW),
        padding=_PADDINGS[options.padding],
        rhs_dilation=(options.dilationHFactor, options.dilationWFactor),
        dimension_numbers=_LAYOUT,
        feature_group_count=groups,
    )
    return activated(op, out if bias is None else out + bias)


@translates("TRANSPOSE_CONV")
def _transpose_conv(op: Op, shape: Value, filters: Value, x: Value, bias: Optional[Value] = None) -> Value:
    """The gradient of a convolution with respect to its input: the input is spread by the strides, padded, and convolved with the
    filters turned round."""
    options = op.options
    shape = op.integers(shape, "shape")
    padding = []
    for size, length, kernel, stride in zip(shape[1:3], x.shape[1:3], filters.shape[1:3], (options.strideH, options.strideW)):
        # How the forward convolution from `size` to `length` was padded.
        total = max(0, (length - 1) * stride + kernel - size) if options.padding == schema.Padding.SAME else 0
        before = kernel - 1 - total // 2
        padding.append((before, size + kernel - 1 - before - ((length - 1) * stride + 1)))
    out = jax.lax.conv_general_dilated(
        jnp.asarray(x),
        jnp.transpose(jnp.flip(filters, (1, 2)), (1, 2, 3, 0)),
        window_strides=(1, 1),
        padding=padding,
        lhs_dilation=(options.strideH, options.strideW),
        dimension_numbers=_LAYOUT,
    )
    return activated(op, out if bias is None else out + bias)


def _windows(op: Op) -> dict:
    options = op.options
    return {
        "window_dimensions": (1, options.filterHeight, options.filterWidth, 1),
        "window_strides": (1, options.strideH, options.strideW, 1),
        "padding": _PADDINGS[options.padding],
    }


@translates("MAX_POOL_2D")
def _max_pool_2d(op: Op, x: Value) -> Value:
    return activated(op, jax.lax.reduce_window(jnp.asarray(x), -np.float32(np.inf), jax.lax.max, **_windows(op)))


@translates("AVERAGE_POOL_2D")
def _average_pool_2d(op: Op, x: Value) -> Value:
    total = jax.lax.reduce_window(jnp.asarray(x), np.float32(0), jax.lax.add, **_windows(op))
    # Padding does not count.
    count = jax.lax.reduce_window(jnp.ones((1, *x.shape[1:3], 1), x.dtype), np.float32(0), jax.lax.add, **_windows(op))
    return activated(op, total / count)
