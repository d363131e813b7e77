"""Resizing of images, and its gradients: linear maps along height and width.

Each is two matrix products with constant matrices. What is in them is asked of TensorFlow's own kernel, with unit vectors. Errors: at most
1e-6 relative to the largest element.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import numpy as np
import tensorflow as tf

from odp_taskbuilder.replacement.equivalent import Node, NoEquivalentError, equivalent

# From [n, h, w, c] to the resized images.
Resize = Callable[[tf.Tensor, Sequence[int]], tf.Tensor]


def _matrix(resize: Callable[[tf.Tensor], tf.Tensor], size: int, axis: int) -> np.ndarray:
    """The matrix [new, old] by which `resize` maps one axis of images that are 1 along the other."""
    units = np.eye(size, dtype=np.float32)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        mapped = session.run(resize(tf.constant(units[:, :, None, None] if axis == 1 else units[:, None, :, None])))
    return mapped.reshape(size, -1).T


def _apply(image: tf.Tensor, rows: np.ndarray, columns: np.ndarray) -> tf.Tensor:
    """`rows` times the image along its height, `columns` along its width."""
    height, width, channels = image.shape[1:]
    image = tf.matmul(tf.constant(rows), tf.reshape(image, [-1, height, width * channels]))
    image = tf.matmul(tf.constant(columns), tf.reshape(image, [-1, width, channels]))
    return tf.reshape(image, [-1, rows.shape[0], columns.shape[0], channels])


def _sizes(shape: Sequence) -> tuple[int, int]:
    if len(shape) != 4 or None in shape[1:]:
        raise NoEquivalentError("a height, width or number of channels is unknown")
    return shape[1], shape[2]


def _resized(node: Node, axis_resize: Callable[[int, int, int], Callable[[tf.Tensor], tf.Tensor]]) -> Sequence[tf.Tensor]:
    """Forward: axis_resize(axis, old, new) resizes one axis and keeps the other, of size 1."""
    old, new = _sizes(node.shape(0)), _sizes(node.output_shape())
    matrices = [_matrix(axis_resize(axis, old[axis - 1], new[axis - 1]), old[axis - 1], axis) for axis in (1, 2)]
    return [_apply(tf.cast(node.inputs[0], tf.float32), *matrices)]


def _resized_back(node: Node, axis_resize: Callable[[int, int, int], Callable[[tf.Tensor], tf.Tensor]]) -> Sequence[tf.Tensor]:
    """Backward: the transposed matrices, on the gradient."""
    old, new = _sizes(node.output_shape()), _sizes(node.shape(0))
    matrices = [_matrix(axis_resize(axis, old[axis - 1], new[axis - 1]), old[axis - 1], axis) for axis in (1, 2)]
    return [_apply(node.inputs[0], *(np.ascontiguousarray(matrix.T) for matrix in matrices))]


def _by_size(node: Node, op: Callable) -> Callable[[int, int, int], Callable[[tf.Tensor], tf.Tensor]]:
    """For ops that are told the new size."""
    options = {name: node.attr(name) for name in ("align_corners", "half_pixel_centers")}

    def axis_resize(axis: int, old: int, new: int) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda images: op(images=images, size=[new, 1] if axis == 1 else [1, new], **options)

    return axis_resize


@equivalent("ResizeBicubic", by="two products with constant matrices")
def resize_bicubic(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: images, new size."""
    return _resized(node, _by_size(node, tf.raw_ops.ResizeBicubic))


@equivalent("ResizeBicubicGrad", by="two products with constant matrices")
def resize_bicubic_grad(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: gradient, the images."""
    return _resized_back(node, _by_size(node, tf.raw_ops.ResizeBicubic))


@equivalent("ResizeBilinearGrad", by="two products with constant matrices")
def resize_bilinear_grad(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: gradient, the images."""
    return _resized_back(node, _by_size(node, tf.raw_ops.ResizeBilinear))


@equivalent("ResizeNearestNeighborGrad", by="sums over blocks, or two products with constant matrices")
def resize_nearest_neighbor_grad(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: gradient, the size of the images. Sums over blocks where both sizes grew by whole factors, as UpSampling2D does it."""
    gradient = node.inputs[0]
    old, new = _sizes(node.output_shape()), _sizes(node.shape(0))
    if node.attr("align_corners") or new[0] % old[0] or new[1] % old[1]:
        return _resized_back(node, _by_size(node, tf.raw_ops.ResizeNearestNeighbor))
    channels = gradient.shape[-1]
    rows = tf.reshape(gradient, [-1, new[0] // old[0], new[1] * channels])
    columns = tf.reshape(tf.reduce_sum(rows, 1), [-1, new[1] // old[1], channels])
    return [tf.reshape(tf.reduce_sum(columns, 1), [-1, *old, channels])]


def _by_scale(node: Node, scale: np.ndarray, translation: np.ndarray) -> Callable[[int, int, int], Callable[[tf.Tensor], tf.Tensor]]:
    options = {name: node.attr(name) for name in ("kernel_type", "antialias")}

    def axis_resize(axis: int, old: int, new: int) -> Callable[[tf.Tensor], tf.Tensor]:
        def resize(images: tf.Tensor) -> tf.Tensor:
            size, scales, moves = [1, 1], np.ones(2, np.float32), np.zeros(2, np.float32)
            size[axis - 1], scales[axis - 1], moves[axis - 1] = new, scale[axis - 1], translation[axis - 1]
            return tf.raw_ops.ScaleAndTranslate(images=images, size=size, scale=scales, translation=moves, **options)

        return resize

    return axis_resize


@equivalent("ScaleAndTranslate", by="two products with constant matrices")
def scale_and_translate(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: images, new size, scale, translation; the last two known at build time."""
    return _resized(node, _by_scale(node, node.constant(2), node.constant(3)))


@equivalent("ScaleAndTranslateGrad", by="two products with constant matrices")
def scale_and_translate_grad(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: gradient, the images, scale, translation; the last two known at build time."""
    return _resized_back(node, _by_scale(node, node.constant(2), node.constant(3)))
