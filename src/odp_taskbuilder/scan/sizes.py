"""How large the tensors are that constants of a graph state or ask for.

This catches the shapes that stand in the file. A shape that is computed cannot be known without running the graph; what a running
graph may take is the sandbox's business.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from typing import Optional

import odp_taskbuilder.proto  # noqa: F401 - makes TensorFlow's messages importable without TensorFlow.
from odp_taskbuilder.scan.report import ScanLimits

from tensorflow.core.framework import node_def_pb2, tensor_pb2, tensor_shape_pb2, types_pb2  # isort: skip

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
# Which operands of an operation state the extents of what it allocates.
_SHAPE_OPERANDS = {
    "Bincount": (1,),
    "BroadcastTo": (1,),
    "Conv2DBackpropInput": (0,),
    "Conv3DBackpropInputV2": (0,),
    "DenseBincount": (1,),
    "DepthwiseConv2dNativeBackpropInput": (0,),
    "Fill": (0,),
    "HistogramFixedWidth": (2,),
    "LinSpace": (2,),
    "MatrixDiagV2": (2, 3),
    "MatrixDiagV3": (2, 3),
    "MirrorPad": (1,),
    "Multinomial": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "PadV2": (1,),
    "RaggedTensorToTensor": (0,),
    "ResizeArea": (1,),
    "ResizeBicubic": (1,),
    "ResizeBilinear": (1,),
    "ResizeNearestNeighbor": (1,),
    "ScatterNd": (2,),
    "SparseToDense": (1,),
    "StatelessMultinomial": (1,),
    "TensorListReserve": (0, 1),
    "TensorListResize": (1,),
    "Tile": (1,),
    "UnsortedSegmentMax": (2,),
    "UnsortedSegmentMin": (2,),
    "UnsortedSegmentProd": (2,),
    "UnsortedSegmentSum": (2,),
    **dict.fromkeys(
        [
            "ParameterizedTruncatedNormal",
            "RandomGamma",
            "RandomPoissonV2",
            "RandomStandardNormal",
            "RandomUniform",
            "RandomUniformInt",
            "StatelessRandomBinomial",
            "StatelessRandomGammaV2",
            "StatelessRandomGammaV3",
            "StatelessRandomNormal",
            "StatelessRandomNormalV2",
            "StatelessRandomPoisson",
            "StatelessRandomUniform",
            "StatelessRandomUniformFullInt",
            "StatelessRandomUniformFullIntV2",
            "StatelessRandomUniformInt",
            "StatelessRandomUniformIntV2",
            "StatelessRandomUniformV2",
            "StatelessTruncatedNormal",
            "StatelessTruncatedNormalV2",
            "TruncatedNormal",
        ],
        (0,),
    ),
}
_INTEGER_FORMATS = {types_pb2.DT_INT32: ("<{}i", "int_val"), types_pb2.DT_INT64: ("<{}q", "int64_val")}
# Shapes have few extents, and few nodes pass them on unchanged.
_MAX_EXTENTS = 32
_MAX_STEPS = 8

_Nodes = Mapping[str, node_def_pb2.NodeDef]


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


def size_problems(node: node_def_pb2.NodeDef, nodes: _Nodes, limits: ScanLimits) -> Iterator[str]:
    """Says whether constant operands make a node allocate more than a model needs. `nodes` are those of its function."""
    if node.op in _SHAPE_OPERANDS:
        operands = [node.input[i] for i in _SHAPE_OPERANDS[node.op] if i < len(node.input)]
        extents = [extent for operand in operands for extent in _extents(operand, nodes)]
        # Extents that are not known, or come from the data (-1), count once.
        elements = math.prod(extent for extent in extents if extent is not None and extent > 0)
    elif node.op == "Range" and len(node.input) >= 3:
        elements = _range_length([_integers(operand, nodes) for operand in node.input[:3]])
    else:
        return
    if elements > limits.tensor_elements:
        yield f"makes a tensor of at least {elements} elements; at most {limits.tensor_elements} are accepted"


def is_constant_false(operand: str, nodes: _Nodes) -> bool:
    """Whether an operand is a boolean constant of which an element is false."""
    node = _origin(operand, nodes)
    if node is None or node.op != "Const":
        return False
    tensor = node.attr["value"].tensor
    if tensor.dtype != types_pb2.DT_BOOL:
        return False
    return not all(tensor.tensor_content or tensor.bool_val or [False])


def source(operand: str) -> str:
    """The node or argument that an operand such as "^node" or "node:output:0" refers to."""
    return operand.lstrip("^").partition(":")[0]


def _range_length(operands: list[list[Optional[int]]]) -> int:
    if any(len(values) != 1 or values[0] is None for values in operands):
        return 0
    start, limit, delta = (values[0] for values in operands)
    return max(0, -((start - limit) // delta)) if delta else 0


def _extents(operand: str, nodes: _Nodes) -> list[Optional[int]]:
    """The integers of a small constant, or of scalars packed into one tensor; None for each that is not known."""
    node = _origin(operand, nodes)
    if node is not None and node.op == "Pack" and len(node.input) <= _MAX_EXTENTS:
        return [value for scalar in node.input for value in _integers(scalar, nodes)[:1]]
    return _integers(operand, nodes)


def _integers(operand: str, nodes: _Nodes) -> list[Optional[int]]:
    node = _origin(operand, nodes)
    return _constant_integers(node.attr["value"].tensor) if node is not None and node.op == "Const" else [None]


def _origin(operand: str, nodes: _Nodes) -> Optional[node_def_pb2.NodeDef]:
    """The node that a value comes from, past those that pass it on."""
    node = nodes.get(source(operand))
    for _ in range(_MAX_STEPS):
        if node is None or node.op not in ("Identity", "Cast") or not node.input:
            return node
        node = nodes.get(source(node.input[0]))
    return None


def _constant_integers(tensor: tensor_pb2.TensorProto) -> list[Optional[int]]:
    try:
        count = num_elements(tensor.tensor_shape)
    except ValueError:
        return [None]
    if tensor.dtype not in _INTEGER_FORMATS or count > _MAX_EXTENTS:
        return [None]
    layout, field = _INTEGER_FORMATS[tensor.dtype]
    if tensor.tensor_content:
        expected = struct.calcsize(layout.format(count))
        return (
            list(struct.unpack(layout.format(count), tensor.tensor_content))
            if len(tensor.tensor_content) == expected
            else [None]
        )
    values = list(getattr(tensor, field))[:count] or [0]
    # The last value stands for all that follow.
    return values + values[-1:] * (count - len(values))
