"""Shapes and types of tensors that stand in a file."""

from __future__ import annotations

import math

import odp_taskbuilder.proto  # noqa: F401 - makes TensorFlow's messages importable without TensorFlow.

from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2  # isort: skip

# Bytes per element. Handles and variants, which are absent, are references to objects of a process and cannot be stored.
DTYPE_SIZES = {
    types_pb2.DT_BOOL: 1,
    types_pb2.DT_INT8: 1,
    types_pb2.DT_UINT8: 1,
    types_pb2.DT_QINT8: 1,
    types_pb2.DT_QUINT8: 1,
    types_pb2.DT_INT16: 2,
    types_pb2.DT_UINT16: 2,
    types_pb2.DT_QINT16: 2,
    types_pb2.DT_QUINT16: 2,
    types_pb2.DT_HALF: 2,
    types_pb2.DT_BFLOAT16: 2,
    types_pb2.DT_INT32: 4,
    types_pb2.DT_UINT32: 4,
    types_pb2.DT_QINT32: 4,
    types_pb2.DT_FLOAT: 4,
    types_pb2.DT_INT64: 8,
    types_pb2.DT_UINT64: 8,
    types_pb2.DT_DOUBLE: 8,
    types_pb2.DT_COMPLEX64: 8,
    types_pb2.DT_COMPLEX128: 16,
}
# Bytes that TensorFlow takes for a string besides its characters.
_STRING_OVERHEAD = 24
# TensorFlow's own bound of the number of dimensions, and of elements.
_MAX_RANK = 254
_MAX_ELEMENTS = 2**63


def num_elements(shape: tensor_shape_pb2.TensorShapeProto) -> int:
    """Returns the number of elements of a tensor of this shape, or 2**63 if there are more than that.

    Raises:
      ValueError: an extent is not known, or there are more dimensions than TensorFlow has.
    """
    if shape.unknown_rank or len(shape.dim) > _MAX_RANK or any(dim.size < 0 for dim in shape.dim):
        raise ValueError("a shape that is not known or not possible")
    return min(math.prod(dim.size for dim in shape.dim), _MAX_ELEMENTS)


def constant_size(tensor: tensor_pb2.TensorProto) -> tuple[int, int]:
    """Returns the number of elements of a tensor, and its size in bytes once TensorFlow has expanded it.

    Raises:
      ValueError: the tensor has an unknown shape, or a type that stands for an object of a process.
    """
    elements = num_elements(tensor.tensor_shape)
    if tensor.dtype == types_pb2.DT_STRING:
        return elements, elements * _STRING_OVERHEAD + sum(map(len, tensor.string_val))
    if tensor.dtype not in DTYPE_SIZES:
        raise ValueError(f"a type that no constant has ({tensor.dtype})")
    return elements, elements * DTYPE_SIZES[tensor.dtype]
