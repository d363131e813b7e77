"""Translations of operators that move values: shapes, slices, gathering, joining, padding."""

from __future__ import annotations

import math
from typing import Any, Optional

import jax
import jax.numpy as jnp
import numpy as np

from odp_taskbuilder.compiled.translation import Op, Value, translates


@translates("SHAPE", folds=True)
def _shape(op: Op, x: Value) -> Value:
    # Known, whatever the values are.
    return np.array(x.shape, op.output_dtype)


@translates("RANK", folds=True)
def _rank(op: Op, x: Value) -> Value:
    return np.array(x.ndim, op.output_dtype)


@translates("ShapeN", folds=True)
def _shape_n(op: Op, *arrays: Value) -> list[Value]:
    return [np.array(x.shape, op.output_dtype) for x in arrays]


@translates("ConcatOffset", folds=True)
def _concat_offset(op: Op, axis: Value, *shapes: Value) -> list[Value]:
    (axis,) = op.integers(axis, "axis")
    offset, offsets = 0, []
    for shape in shapes:
        start = np.zeros_like(op.known(shape, "shape"))
        start[axis] = offset
        offsets.append(start)
        offset += shape[axis]
    return offsets


@translates("BroadcastGradientArgs", folds=True)
def _broadcast_gradient_args(op: Op, a: Value, b: Value) -> list[Value]:
    """The axes over which the gradient of a broadcast operand is summed."""
    shapes = op.integers(a, "shape"), op.integers(b, "shape")
    # Where both are 1 TensorFlow lists the axis for both, but not where the shapes are the same throughout, rank included.
    if shapes[0] == shapes[1]:
        return [np.zeros(0, op.output_dtype)] * 2
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return [np.array([axis for axis in range(rank) if own[axis] == 1], op.output_dtype) for own in padded]


@translates("BROADCAST_ARGS", folds=True)
def _broadcast_args(op: Op, a: Value, b: Value) -> Value:
    return np.array(np.broadcast_shapes(op.integers(a, "shape"), op.integers(b, "shape")), op.output_dtype)


@translates("BROADCAST_TO", folds=True)
def _broadcast_to(op: Op, x: Value, shape: Value) -> Value:
    return op.xp.broadcast_to(x, op.integers(shape, "shape"))


@translates("RESHAPE", folds=True)
def _reshape(op: Op, x: Value, shape: Optional[Value] = None) -> Value:
    if shape is None:
        return x.reshape(tuple(op.options.newShape))
    if not isinstance(shape, np.ndarray) and shape.shape == (1,):
        # A vector has the length that its elements have, or there is none: how plans fail on labels that are no class.
        op.require((shape[0] == math.prod(x.shape)) | (shape[0] == -1))
        return x.reshape(-1)
    return x.reshape(op.integers(shape, "shape"))


@translates("SQUEEZE", folds=True)
def _squeeze(op: Op, x: Value) -> Value:
    axes = op.options.squeezeDims
    if axes is None or not len(axes):
        return op.xp.squeeze(x)
    return op.xp.squeeze(x, axis=tuple(int(axis) for axis in axes))


@translates("EXPAND_DIMS", folds=True)
def _expand_dims(op: Op, x: Value, axis: Value) -> Value:
    return op.xp.expand_dims(x, op.integers(axis, "axis")[0])


@translates("TRANSPOSE", folds=True)
def _transpose(op: Op, x: Value, permutation: Value) -> Value:
    return op.xp.transpose(x, op.integers(permutation, "permutation"))


@translates("PACK", folds=True)
def _pack(op: Op, *values: Value) -> Value:
    return op.xp.stack(values, axis=op.options.axis)


@translates("UNPACK", folds=True)
def _unpack(op: Op, x: Value) -> list[Value]:
    axis = op.options.axis
    return [op.xp.take(x, index, axis=axis) for index in range(x.shape[axis])]


@translates("CONCATENATION", folds=True)
def _concatenation(op: Op, *values: Value) -> Value:
    if op.options.fusedActivationFunction:
        raise op.refuse("it has a fused activation")
    return op.xp.concatenate(values, axis=op.options.axis)


@translates("ConcatV2", folds=True)
def _concat_v2(op: Op, *values: Value) -> Value:
    return op.xp.concatenate(values[:-1], axis=op.integers(values[-1], "axis")[0])


@translates("SPLIT", folds=True)
def _split(op: Op, axis: Value, x: Value) -> list[Value]:
    return op.xp.split(x, op.options.numSplits, axis=op.integers(axis, "axis")[0])


@translates("Split", folds=True)
def _flex_split(op: Op, axis: Value, x: Value) -> list[Value]:
    return op.xp.split(x, op.node.attributes["num_split"].i, axis=op.integers(axis, "axis")[0])


@translates("SPLIT_V", folds=True)
def _split_v(op: Op, x: Value, sizes: Value, axis: Value) -> list[Value]:
    lengths = list(op.integers(sizes, "sizes"))
    (axis,) = op.integers(axis, "axis")
    if -1 in lengths:
        lengths[lengths.index(-1)] = x.shape[axis] - sum(lengths) - 1
    return op.xp.split(x, np.cumsum(lengths)[:-1].tolist(), axis=axis)


@translates("SLICE", folds=True)
def _slice(op: Op, x: Value, begin: Value, size: Value) -> Value:
    sizes = op.integers(size, "size")
    if isinstance(begin, np.ndarray):
        starts = op.integers(begin, "begin")
        return x[tuple(slice(start, None if size == -1 else start + size) for start, size in zip(starts, sizes))]
    if -1 in sizes:
        raise op.refuse("its size is known only when it runs")
    op.require(jnp.all((begin >= 0) & (begin + jnp.asarray(sizes) <= jnp.asarray(x.shape))))
    return jax.lax.dynamic_slice(x, [begin[axis] for axis in range(x.ndim)], sizes)


def _strided_indices(op: Op, shape: tuple[int, ...], vectors: tuple, masks: Any) -> tuple:
    """What NumPy's basic indexing takes, from TensorFlow's masks."""
    begin, end, strides = vectors
    begin_mask, end_mask, ellipsis_mask, new_axis_mask, shrink_axis_mask = masks
    if ellipsis_mask & (ellipsis_mask - 1):
        raise op.refuse("it has several ellipses")
    indices: list[Any] = []
    for position in range(len(strides)):
        bit = 1 << position
        if ellipsis_mask & bit:
            indices.append(Ellipsis)
        elif new_axis_mask & bit:
            indices.append(None)
        elif shrink_axis_mask & bit:
            indices.append(begin[position])
        else:
            start = None if begin_mask & bit else begin[position]
            stop = None if end_mask & bit else end[position]
            indices.append(slice(start, stop, strides[position]))
    return tuple(indices)


@translates("STRIDED_SLICE", folds=True)
def _strided_slice(op: Op, x: Value, begin: Value, end: Value, strides: Value) -> Value:
    options = op.options
    if options.offset:
        raise op.refuse("its end is an offset")
    masks = (options.beginMask, options.endMask, options.ellipsisMask, options.newAxisMask, options.shrinkAxisMask)
    if not isinstance(begin, np.ndarray):
        return _one_row(op, x, begin, strides, masks)
    vectors = (op.integers(begin, "begin"), op.integers(end, "end"), op.integers(strides, "strides"))
    return x[_strided_indices(op, x.shape, vectors, masks)]


def _one_row(op: Op, x: Value, begin: Value, strides: Value, masks: tuple) -> Value:
    """x[i], or x[i, :], with an index that is known only when it runs: how a loop reads its step."""
    begin_mask, end_mask, ellipsis_mask, new_axis_mask, shrink_axis_mask = masks
    rest = (1 << len(op.integers(strides, "strides"))) - 2
    whole = begin_mask & end_mask & rest == rest and set(op.integers(strides, "strides")) == {1}
    if shrink_axis_mask != 1 or ellipsis_mask or new_axis_mask or begin_mask & 1 or not whole:
        raise op.refuse("its begin is known only when it runs")
    index = jnp.where(begin[0] < 0, begin[0] + x.shape[0], begin[0])
    op.require((index >= 0) & (index < x.shape[0]))
    return jax.lax.dynamic_index_in_dim(jnp.asarray(x), index, 0, keepdims=False)


@translates("StridedSliceGrad")
def _strided_slice_grad(op: Op, shape: Value, begin: Value, end: Value, strides: Value, gradient: Value) -> Value:
    attributes = op.node.attributes
    names = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    vectors = (op.integers(begin, "begin"), op.integers(end, "end"), op.integers(strides, "strides"))
    shape = op.integers(shape, "shape")
    indices = _strided_indices(op, shape, vectors, tuple(attributes[name].i for name in names))
    # Which elements were read, each at the place that it went to.
    places = np.arange(math.prod(shape)).reshape(shape)[indices]
    if places.shape != gradient.shape:
        raise op.refuse(f"the gradient has shape {gradient.shape}, the slice {places.shape}")
    return _spread(shape, places, jnp.asarray(gradient))


def _spread(shape: tuple[int, ...], places: np.ndarray, values: Value) -> Value:
    """Zeros of a shape with values at places that a strided slice has read: padding, where the slice runs forward."""
    spread = np.stack(np.unravel_index(places.ravel(), shape), axis=-1).reshape(*places.shape, len(shape))
    flat = spread.reshape(-1, len(shape))
    if not len(flat):
        return jnp.zeros(shape, values.dtype)
    # Along each axis of the result: where the slice starts, its step and its length.
    config, lengths = [], []
    for axis, size in enumerate(shape):
        read = np.unique(flat[:, axis])
        step = int(read[1] - read[0]) if len(read) > 1 else 1
        config.append((int(read[0]), size - 1 - int(read[-1]), step - 1))
        lengths.append(len(read))
    order = np.argsort(places.ravel(), kind="stable")
    flattened = values.reshape(-1)
    if not np.array_equal(order, np.arange(order.size)):
        flattened = flattened[order]
    return jax.lax.pad(flattened.reshape(lengths), jnp.zeros((), values.dtype), config)


@translates("GATHER", folds=True)
def _gather(op: Op, x: Value, indices: Value) -> Value:
    axis, batch = op.options.axis, op.options.batchDims
    axis %= x.ndim
    valid = (indices >= 0) & (indices < x.shape[axis])
    op.require(op.xp.all(valid))
    inside = op.xp.where(valid, indices, op.xp.zeros_like(indices))
    if not batch:
        return op.xp.take(x, inside, axis=axis)

    def gather(x: Value, indices: Value, axis: int, batch: int) -> Value:
        if not batch:
            return jnp.take(x, indices, axis=axis)
        return jax.vmap(lambda a, b: gather(a, b, axis - 1, batch - 1))(x, indices)

    return gather(jnp.asarray(x), jnp.asarray(inside), axis, batch % (indices.ndim + 1))


@translates("GATHER_ND")
def _gather_nd(op: Op, x: Value, indices: Value) -> Value:
    depth = indices.shape[-1]
    bounds = jnp.asarray(x.shape[:depth], indices.dtype)
    op.require(jnp.all((indices >= 0) & (indices < bounds)))
    inside = jnp.clip(indices, 0, bounds - 1)
    return jnp.asarray(x)[tuple(inside[..., axis] for axis in range(depth))]


@translates("SCATTER_ND")
def _scatter_nd(op: Op, indices: Value, updates: Value, shape: Value) -> Value:
    shape = op.integers(shape, "shape")
    depth = indices.shape[-1]
    op.require(jnp.all((indices >= 0) & (indices < jnp.asarray(shape[:depth], indices.dtype))))
    zeros = jnp.zeros(shape, updates.dtype)
    return zeros.at[tuple(indices[..., axis] for axis in range(depth))].add(updates, mode="drop")


def _segments(name: str, function: str) -> None:
    @translates(name)
    def _apply(op: Op, x: Value, segments: Value, count: Value) -> Value:
        (count,) = op.integers(count, "number of segments")
        op.require(jnp.all(segments < count))
        return getattr(jax.ops, function)(jnp.asarray(x), segments, num_segments=count)


# A negative segment is left out, by TFLite as by JAX.
_segments("UNSORTED_SEGMENT_SUM", "segment_sum")


@translates("EMBEDDING_LOOKUP")
def _embedding_lookup(op: Op, indices: Value, table: Value) -> Value:
    op.require(jnp.all((indices >= 0) & (indices < table.shape[0])))
    return jnp.take(table, jnp.clip(indices, 0, table.shape[0] - 1), axis=0)


@translates("ONE_HOT")
def _one_hot(op: Op, indices: Value, depth: Value, on: Value, off: Value) -> Value:
    (depth,) = op.integers(depth, "depth")
    axis = op.options.axis
    position = indices.ndim if axis == -1 else axis
    hot = jnp.expand_dims(indices, position) == jnp.arange(depth, dtype=indices.dtype).reshape(
        (depth,) + (1,) * (indices.ndim - position)
    )
    return jnp.where(hot, on, off)


@translates("FILL", folds=True)
def _fill(op: Op, shape: Value, value: Value) -> Value:
    return op.xp.full(op.integers(shape, "shape"), value, dtype=value.dtype)


@translates("RANGE", folds=True)
def _range(op: Op, start: Value, limit: Value, delta: Value) -> Value:
    numbers = [op.known(value, "bounds").item() for value in (start, limit, delta)]
    return np.arange(*numbers, dtype=op.output_dtype)


@translates("TILE", folds=True)
def _tile(op: Op, x: Value, multiples: Value) -> Value:
    return op.xp.tile(x, op.integers(multiples, "multiples"))


@translates("PAD", folds=True)
def _pad(op: Op, x: Value, paddings: Value) -> Value:
    return op.xp.pad(x, _pairs(op, paddings))


@translates("PADV2", folds=True)
def _pad_v2(op: Op, x: Value, paddings: Value, value: Value) -> Value:
    return op.xp.pad(x, _pairs(op, paddings), constant_values=value)


@translates("MIRROR_PAD")
def _mirror_pad(op: Op, x: Value, paddings: Value) -> Value:
    return jnp.pad(x, _pairs(op, paddings), mode=("reflect", "symmetric")[op.options.mode])


def _pairs(op: Op, paddings: Value) -> list[tuple[int, int]]:
    return [(int(before), int(after)) for before, after in op.known(paddings, "paddings")]


@translates("REVERSE_V2")
def _reverse(op: Op, x: Value, axes: Value) -> Value:
    return jnp.flip(x, op.integers(axes, "axes"))


@translates("TOPK_V2")
def _top_k(op: Op, x: Value, k: Value) -> list[Value]:
    values, indices = jax.lax.top_k(jnp.asarray(x), op.integers(k, "k")[0])
    return [values, indices.astype(np.int32)]


@translates("SPACE_TO_DEPTH")
def _space_to_depth(op: Op, x: Value) -> Value:
    block = op.options.blockSize
    batch, height, width, depth = x.shape
    blocks = x.reshape(batch, height // block, block, width // block, block, depth)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // block, width // block, block * block * depth)


@translates("DEPTH_TO_SPACE")
def _depth_to_space(op: Op, x: Value) -> Value:
    block = op.options.blockSize
    batch, height, width, depth = x.shape
    blocks = x.reshape(batch, height, width, block, block, depth // (block * block))
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * block, width * block, depth // (block * block))


@translates("SPACE_TO_BATCH_ND")
def _space_to_batch(op: Op, x: Value, block_shape: Value, paddings: Value) -> Value:
    blocks = op.integers(block_shape, "block shape")
    spatial = len(blocks)
    x = jnp.pad(x, [(0, 0), *_pairs(op, paddings), *[(0, 0)] * (x.ndim - spatial - 1)])
    split = [x.shape[0]]
    for size, block in zip(x.shape[1:], blocks):
        split += [size // block, block]
    rest = x.shape[1 + spatial :]
    moved = x.reshape(*split, *rest).transpose(
        *range(2, 2 * spatial + 1, 2), 0, *range(1, 2 * spatial, 2), *range(2 * spatial + 1, 2 * spatial + 1 + len(rest))
    )
    return moved.reshape(x.shape[0] * math.prod(blocks), *[size // b for size, b in zip(x.shape[1:], blocks)], *rest)


@translates("BATCH_TO_SPACE_ND")
def _batch_to_space(op: Op, x: Value, block_shape: Value, crops: Value) -> Value:
    blocks = op.integers(block_shape, "block shape")
    spatial = len(blocks)
    batch = x.shape[0] // math.prod(blocks)
    sizes, rest = x.shape[1 : 1 + spatial], x.shape[1 + spatial :]
    split = x.reshape(*blocks, batch, *sizes, *rest)
    order = [spatial]
    for axis in range(spatial):
        order += [spatial + 1 + axis, axis]
    order += range(2 * spatial + 1, split.ndim)
    joined = split.transpose(*order).reshape(batch, *[size * block for size, block in zip(sizes, blocks)], *rest)
    cropped = [slice(before, size - after) for (before, after), size in zip(_pairs(op, crops), joined.shape[1:])]
    return joined[(slice(None), *cropped)]


@translates("MATRIX_DIAG")
def _matrix_diag(op: Op, x: Value) -> Value:
    return jnp.asarray(x)[..., None] * jnp.eye(x.shape[-1], dtype=x.dtype)
