"""How large the tensors are that a graph states or asks for.

A size may be spelled in many ways: as an operand, an attribute or a shape; as one constant or packed of several, computed from them,
cast from another type, handed to a function or returned by one. `scan_sizes` follows what can be known without running anything:
integers that come from constants through pure operations and calls. What depends on the data, or on how often a loop runs, cannot
be known here; what a running graph may take is the sandbox's business.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional, Union

import odp_taskbuilder.proto  # noqa: F401 - makes TensorFlow's messages importable without TensorFlow.
from odp_taskbuilder.scan import ops as scan_ops
from odp_taskbuilder.scan.report import Finding, ScanLimits, printable

from tensorflow.core.framework import (  # isort: skip
    attr_value_pb2,
    function_pb2,
    node_def_pb2,
    tensor_pb2,
    tensor_shape_pb2,
    types_pb2,
)

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
# Of the other extents of a tensor without elements.
_MAX_EMPTY = 2**28

# Layout of the raw bytes, and field of the values, of the types that can state a size.
_NUMBER_FORMATS = {
    types_pb2.DT_INT8: ("b", "int_val"),
    types_pb2.DT_UINT8: ("B", "int_val"),
    types_pb2.DT_INT16: ("h", "int_val"),
    types_pb2.DT_UINT16: ("H", "int_val"),
    types_pb2.DT_INT32: ("i", "int_val"),
    types_pb2.DT_UINT32: ("I", "uint32_val"),
    types_pb2.DT_INT64: ("q", "int64_val"),
    types_pb2.DT_UINT64: ("Q", "uint64_val"),
    types_pb2.DT_FLOAT: ("f", "float_val"),
    types_pb2.DT_DOUBLE: ("d", "double_val"),
}
# Shapes have few extents. Longer tensors are data, of which only the largest value counts.
_MAX_VALUES = 64
# Numbers that are followed stay below this; far beyond every limit, and cheap to multiply.
_MAX_NUMBER = 2**64

_RANDOM = (
    "ParameterizedTruncatedNormal RandomGamma RandomPoissonV2 RandomStandardNormal RandomUniform RandomUniformInt "
    "StatelessRandomBinomial StatelessRandomGammaV2 StatelessRandomGammaV3 StatelessRandomNormal StatelessRandomNormalV2 "
    "StatelessRandomPoisson StatelessRandomUniform StatelessRandomUniformFullInt StatelessRandomUniformFullIntV2 "
    "StatelessRandomUniformInt StatelessRandomUniformIntV2 StatelessRandomUniformV2 StatelessTruncatedNormal "
    "StatelessTruncatedNormalV2 TruncatedNormal"
).split()

# Operands whose values, multiplied, are a lower bound of the elements that an operation makes.
_SHAPE_OPERANDS: Mapping[str, tuple[int, ...]] = {
    "Bincount": (1,),
    "BroadcastTo": (1,),
    "Conv2DBackpropFilter": (1,),
    "Conv2DBackpropInput": (0,),
    "Conv3DBackpropFilterV2": (1,),
    "Conv3DBackpropInputV2": (0,),
    "DecodePaddedRaw": (1,),
    "DenseBincount": (1,),
    "DepthwiseConv2dNativeBackpropFilter": (1,),
    "DepthwiseConv2dNativeBackpropInput": (0,),
    "EmptyTensorList": (0,),
    "ExtractGlimpse": (1,),
    "ExtractGlimpseV2": (1,),
    "Fill": (0,),
    "HistogramFixedWidth": (2,),
    "IRFFT": (1,),
    "IRFFT2D": (1,),
    "IRFFT3D": (1,),
    "ImageProjectiveTransformV2": (2,),
    "ImageProjectiveTransformV3": (2,),
    "LinSpace": (2,),
    "MatrixDiagV3": (2, 3),
    "Multinomial": (1,),
    "OneHot": (1,),
    "RFFT": (1,),
    "RFFT2D": (1,),
    "RFFT3D": (1,),
    "RaggedTensorToTensor": (0,),
    "ResizeArea": (1,),
    "ResizeBicubic": (1,),
    "ResizeBilinear": (1,),
    "ResizeNearestNeighbor": (1,),
    "ResizeNearestNeighborGrad": (1,),
    "ScaleAndTranslate": (1,),
    "ScatterNd": (2,),
    "SparseSegmentMeanWithNumSegments": (3,),
    "SparseSegmentSqrtNWithNumSegments": (3,),
    "SparseSegmentSumWithNumSegments": (3,),
    "SparseToDense": (1,),
    "StatelessMultinomial": (1,),
    "StridedSliceGrad": (0,),
    "TensorListConcatV2": (1,),
    "TensorListGather": (2,),
    "TensorListGetItem": (2,),
    "TensorListPopBack": (1,),
    "TensorListReserve": (0, 1),
    "TensorListResize": (1,),
    "TensorListStack": (1,),
    "Tile": (1,),
    "UnsortedSegmentMax": (2,),
    "UnsortedSegmentMin": (2,),
    "UnsortedSegmentProd": (2,),
    "UnsortedSegmentSum": (2,),
    **dict.fromkeys(_RANDOM, (0,)),
}
# Operands of which the first extent alone counts: rows of a sparse tensor, each of which gets an entry.
_ROW_OPERANDS = {"SparseFillEmptyRows": 2, "SparseTensorDenseMatMul": 2, "EditDistance": 2}
# Operands whose largest value, plus one, is the length of what is made.
_INDEX_OPERANDS: Mapping[str, Union[int, str]] = {
    "SegmentMax": 1,
    "SegmentMean": 1,
    "SegmentMin": 1,
    "SegmentProd": 1,
    "SegmentSum": 1,
    "SparseSegmentMean": 2,
    "SparseSegmentSqrtN": 2,
    "SparseSegmentSum": 2,
    "TensorListScatterIntoExistingList": 2,
    "DynamicStitch": "N",
    "ParallelDynamicStitch": "N",
}
# Operands, and attributes, that state what is added before and after each extent.
_PADDING_OPERANDS = {"MirrorPad": 1, "Pad": 1, "PadV2": 1, "SpaceToBatch": 1, "SpaceToBatchND": 2}
_PADDING_ATTRIBUTES = ("explicit_paddings",)
# Integer attributes that are no size: seeds, keys, and how many values a hash has.
_FREE_ATTRIBUTES = {"seed", "seed2", "num_buckets", "hash_key", "key", "replacement_char", "maxsplit", "squeeze_dims"}
# Attributes that say how many operands, results or parts there are. TensorFlow makes lists of that length from the number alone.
_COUNT_ATTRIBUTES = {
    *("N", "num", "num_split", "num_partitions", "num_row_partition_tensors", "top_paths", "num_true", "Nsparse", "pad_width"),
    *("RAGGED_RANK", "PARAMS_RAGGED_RANK", "OUTPUT_RAGGED_RANK", "input_ragged_rank", "output_ragged_rank"),
}
# Attributes that TensorFlow multiplies, or takes from a number of dimensions, before it looks how large they are.
_BOUNDED_ATTRIBUTES = {"batch_dims": _MAX_RANK, "block_size": 2**15}

# Operations that hand their first operand on, at most with another type or shape.
_PASSING_OPS = {
    *("Cast", "CheckNumerics", "EnsureShape", "ExpandDims", "Identity", "PlaceholderWithDefault", "PreventGradient", "Reshape"),
    *("Squeeze", "StopGradient", "Bitcast"),
}
_RESHAPING_OPS = {"Bitcast", "ExpandDims", "Reshape", "Squeeze"}
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")
_LOOPS = ("While", "StatelessWhile")
# Operations of which each result is looked at; of others they are alike.
_SEVERAL_RESULTS = {*_CALLS, *_BRANCHES, *_LOOPS, "IdentityN", "ShapeN"}

_Number = Union[int, float]
_Values = tuple[Optional[_Number], ...]
# A tensor: name of the function that it is in, of its node or argument, and which result of a node it is.
_Place = tuple[str, str, int]
_Nodes = Mapping[str, node_def_pb2.NodeDef]


class _Known(NamedTuple):
    """What is known of a tensor.

    Attributes:
      values: its elements, None for each that is not known; None if there are too many, or nothing is known of them.
      largest: the largest element that is known.
      shape: its extents, or a lower bound of each; None if nothing is known of them.
    """

    values: Optional[_Values] = None
    largest: Optional[_Number] = None
    shape: Optional[tuple[int, ...]] = None


_UNKNOWN = _Known()


def num_elements(shape: tensor_shape_pb2.TensorShapeProto) -> int:
    """Returns the number of elements of a tensor of this shape, or 2**63 if there are more than that.

    Raises:
      ValueError: an extent is not known, there are more dimensions than TensorFlow has, or no elements but huge extents.
    """
    if shape.unknown_rank or len(shape.dim) > _MAX_RANK or any(dim.size < 0 for dim in shape.dim):
        raise ValueError("a shape that is not known or not possible")
    if any(dim.size == 0 for dim in shape.dim) and math.prod(max(1, dim.size) for dim in shape.dim) > _MAX_EMPTY:
        raise ValueError("extents that no empty tensor has, and that TensorFlow's kernels multiply all the same")
    return min(math.prod(dim.size for dim in shape.dim), _MAX_ELEMENTS)


def constant_size(tensor: tensor_pb2.TensorProto) -> tuple[int, int]:
    """Returns the number of elements of a tensor, and its size in bytes once TensorFlow has expanded it.

    Raises:
      ValueError: the tensor has an unknown shape, or a type that stands for an object of a process.
    """
    elements = num_elements(tensor.tensor_shape)
    if tensor.dtype == types_pb2.DT_STRING:
        # The last of fewer strings stands for all that follow.
        missing = max(0, elements - len(tensor.string_val)) if tensor.string_val else 0
        length = sum(map(len, tensor.string_val)) + missing * (len(tensor.string_val[-1]) if missing else 0)
        return elements, elements * _STRING_OVERHEAD + length
    if tensor.dtype not in DTYPE_SIZES:
        raise ValueError(f"a type that no constant has ({tensor.dtype})")
    return elements, elements * DTYPE_SIZES[tensor.dtype]


def source(operand: str) -> str:
    """The node or argument that an operand such as "^node" or "node:output:0" refers to."""
    return operand.lstrip("^").partition(":")[0]


def is_constant_false(operand: str, nodes: _Nodes) -> bool:
    """Whether an operand is a boolean constant of which an element is false."""
    node = nodes.get(source(operand))
    if node is None or node.op != "Const":
        return False
    tensor = node.attr["value"].tensor
    if tensor.dtype != types_pb2.DT_BOOL:
        return False
    return not all(tensor.tensor_content or tensor.bool_val or [False])


def scan_sizes(
    bodies: Mapping[str, Sequence[node_def_pb2.NodeDef]], library: function_pb2.FunctionDefLibrary, limits: ScanLimits
) -> Iterator[Finding]:
    """Looks for operations that make more than a model needs.

    Args:
      bodies: nodes of the main graph and of all functions, by name.
      library: the functions.
    """
    tensors = _Tensors(bodies, library, limits.steps)
    total = 0
    for name, nodes in bodies.items():
        for node in nodes:
            node_name, op = node.name, node.op
            for key, attr in node.attr.items():
                for reason in _attribute_problems(key, attr, limits):
                    yield Finding(name, node_name, op, reason)
            try:
                elements = _elements_made(name, node, tensors)
            except _TooManySteps:
                yield Finding(name, node_name, op, f"its size takes more than {limits.steps} steps to find out, like no model's")
                return
            if elements > limits.tensor_elements:
                made = min(elements, _MAX_ELEMENTS)
                yield Finding(
                    name, node_name, op, f"makes a tensor of at least {made} elements; at most {limits.tensor_elements} are accepted"
                )
            else:
                total += elements
    if total > limits.made_elements:
        yield Finding(
            "graph", "", "", f"constant shapes ask for {total} elements together; at most {limits.made_elements} are accepted"
        )


def _attribute_problems(key: str, attr: attr_value_pb2.AttrValue, limits: ScanLimits) -> Iterator[str]:
    kind = attr.WhichOneof("value")
    if kind == "shape":
        elements = math.prod(max(1, dim.size) for dim in attr.shape.dim[:_MAX_RANK])
        if elements > limits.tensor_elements:
            yield f"the attribute {printable(key)!r} is a shape of {elements} elements; at most {limits.tensor_elements} are accepted"
    if key in _FREE_ATTRIBUTES or key.startswith("_"):
        return
    if kind == "i":
        limit = limits.list_length if key in _COUNT_ATTRIBUTES else _BOUNDED_ATTRIBUTES.get(key, limits.attribute)
        if not key.endswith("_mask") and abs(attr.i) > limit:
            yield f"the attribute {printable(key)!r} is {attr.i}; at most {limit} is accepted"
        elif attr.i < 0 and key in _COUNT_ATTRIBUTES:
            yield f"the attribute {printable(key)!r} is {attr.i}, where it counts operands or results"
    elif kind == "list" and attr.list.i:
        values = attr.list.i[:_MAX_VALUES]
        elements = _padded(values) if key in _PADDING_ATTRIBUTES else _product(map(abs, values))
        if elements > limits.tensor_elements:
            yield f"the attribute {printable(key)!r} comes to {elements} elements; at most {limits.tensor_elements} are accepted"


def _elements_made(function: str, node: node_def_pb2.NodeDef, tensors: _Tensors) -> int:
    """A lower bound of the elements that a node makes, beyond those that it is given."""

    def operand(i: int) -> _Known:
        return tensors.known(function, node.input[i]) if i < len(node.input) else _UNKNOWN

    made = [1]
    if node.op in _SHAPE_OPERANDS:
        made.append(_product(extent for i in _SHAPE_OPERANDS[node.op] for extent in operand(i).values or ()))
        if node.op == "Tile":
            made.append(made[-1] * _product(operand(0).shape or ()))
    if node.op in _ROW_OPERANDS:
        made.append(_product((operand(_ROW_OPERANDS[node.op]).values or ())[:1]))
    if node.op in _INDEX_OPERANDS:
        which = _INDEX_OPERANDS[node.op]
        indices = [which] if isinstance(which, int) else range(len(node.input) // 2)
        made += [_whole(operand(i).largest) + 1 for i in indices]
    if node.op in _PADDING_OPERANDS:
        made.append(_padded(operand(_PADDING_OPERANDS[node.op]).values or ()))
    if node.op == "Reshape" and 0 in (operand(1).values or ()) and _product(operand(1).values or ()) > _MAX_EMPTY:
        made.append(_product(operand(1).values or ()))
    if node.op == "Range":
        made.append(_range_length([operand(i).values for i in range(3)]))
    if node.op == "RaggedRange":
        starts, ends, deltas = (operand(i) for i in range(3))
        if ends.largest is not None and deltas.values and deltas.values[0]:
            made.append(_whole((ends.largest - min(starts.values or (0,), key=_whole)) // abs(deltas.values[0])))
    if node.op in _ELEMENTWISE or node.op == "MatMul":
        # Broadcasting multiplies; operands of other shapes than the result's are not counted a second time.
        shape = tensors.known(function, node.name).shape
        given = max((_product(operand(i).shape or ()) for i in range(min(len(node.input), 3))), default=1)
        if shape is not None and _product(shape) > given:
            made.append(_product(shape))
    return max(made) if max(made) > 1 else 0


class _TooManySteps(Exception):
    """What a tensor is depends on more than is followed."""


class _Tensors:
    """What is known of the tensors of all functions, found out where it is asked for, once for each, in a bounded number of steps."""

    def __init__(
        self, bodies: Mapping[str, Sequence[node_def_pb2.NodeDef]], library: function_pb2.FunctionDefLibrary, max_steps: int
    ):
        self._nodes = {name: {node.name: node for node in nodes} for name, nodes in bodies.items()}
        self._functions = {function.signature.name: function for function in library.function}
        self._arguments = {
            name: {argument.name: i for i, argument in enumerate(function.signature.input_arg)}
            for name, function in self._functions.items()
        }
        # For each function the nodes that call it, and how many of their operands come before its arguments.
        self._callers: dict[str, list[tuple[str, node_def_pb2.NodeDef, int]]] = {}
        for name, nodes in bodies.items():
            for node in nodes:
                for callee, skipped in _callees(node):
                    self._callers.setdefault(callee, []).append((name, node, skipped))
        self._known: dict[_Place, Optional[_Known]] = {}
        self._steps_left = max_steps

    def known(self, function: str, operand: str) -> _Known:
        """What is known of a tensor. Follows chains of any length, each step once; what depends on itself is not known.

        Raises:
          _TooManySteps: this and what was asked for before come to more steps than are taken.
        """
        place = self._place(function, operand)
        waiting = [place]
        while waiting:
            current = waiting[-1]
            if self._known.get(current) is not None:
                waiting.pop()
                continue
            needed = self._needed(current)
            if current not in self._known:
                # Marked as begun: whoever needs it from here on goes in a circle, and takes it as not known.
                self._known[current] = None
                missing = [other for other in needed if other not in self._known]
                if missing:
                    waiting.extend(missing)
                    continue
            values = [self._known.get(other) or _UNKNOWN for other in needed]
            self._take_steps(sum(len(value.values) for value in values if value.values is not None))
            self._known[current] = self._combine(current, values)
            waiting.pop()
        return self._known[place] or _UNKNOWN

    def _take_steps(self, count: int) -> None:
        self._steps_left -= count
        if self._steps_left < 0:
            raise _TooManySteps

    def _place(self, function: str, operand: str) -> _Place:
        name, _, output = operand.lstrip("^").partition(":")
        node = self._nodes[function].get(name)
        # However an operand is spelled, a tensor has one place.
        return function, name, _output_number(output) if node is not None and node.op in _SEVERAL_RESULTS else 0

    def _needed(self, place: _Place) -> list[_Place]:
        """The tensors that a tensor depends on, as far as they are of interest."""
        function, name, number = place
        node = self._nodes[function].get(name)
        self._take_steps(1)
        if node is None:
            index = self._arguments.get(function, {}).get(name)
            if index is None:
                return []
            callers = self._callers.get(function, ())
            self._take_steps(len(callers))
            return [
                self._place(caller, call.input[index + skipped])
                for caller, call, skipped in callers
                if index + skipped < len(call.input)
            ]
        if node.op in _CALLS or node.op in _BRANCHES or node.op in _LOOPS:
            return self._results(function, node, number)
        if node.op in ("IdentityN", "ShapeN"):
            return [self._place(function, node.input[number])] if number < len(node.input) else []
        if node.op not in _COMPUTED_OPS:
            return []
        operands = node.input[: _MAX_VALUES + 1]
        self._take_steps(len(operands))
        return [self._place(function, other) for other in operands if not other.startswith("^")]

    def _results(self, function: str, node: node_def_pb2.NodeDef, number: int) -> list[_Place]:
        results = []
        callees = _callees(node)
        self._take_steps(len(callees))
        for callee, _ in callees:
            definition = self._functions.get(callee)
            if definition is None or number >= len(definition.signature.output_arg):
                continue
            result = definition.ret.get(definition.signature.output_arg[number].name)
            if result:
                results.append(self._place(callee, result))
        if node.op in _LOOPS and number < len(node.input):
            results.append(self._place(function, node.input[number]))
        return results

    def _combine(self, place: _Place, operands: Sequence[_Known]) -> _Known:
        function, name, _ = place
        node = self._nodes[function].get(name)
        if node is None or node.op in _CALLS or node.op in _BRANCHES or node.op in _LOOPS:
            return _largest_of(operands)
        if node.op == "Const":
            return _constant(node.attr["value"].tensor)
        if node.op == "IdentityN":
            return operands[0] if operands else _UNKNOWN
        if node.op not in _COMPUTED_OPS or not operands:
            return _UNKNOWN
        try:
            return _bounded(_COMPUTED_OPS[node.op](node, operands))
        except (ArithmeticError, ValueError, TypeError, IndexError):
            # Operands that do not go together: TensorFlow makes an error of them.
            return _UNKNOWN


def _callees(node: node_def_pb2.NodeDef) -> list[tuple[str, int]]:
    """The functions that a node calls, and how many of its operands come before their arguments."""
    if node.op in _CALLS:
        return [(node.attr["f"].func.name, 0)] if "f" in node.attr else []
    if node.op in _LOOPS:
        return [(node.attr[key].func.name, 0) for key in ("body", "cond") if key in node.attr]
    if node.op in ("If", "StatelessIf"):
        return [(node.attr[key].func.name, 1) for key in ("then_branch", "else_branch") if key in node.attr]
    if node.op in ("Case", "StatelessCase") and "branches" in node.attr:
        return [(function.name, 1) for function in node.attr["branches"].list.func]
    return []


def _output_number(output: str) -> int:
    number = output.rpartition(":")[2]
    return int(number) if number.isdecimal() and len(number) < 10 else 0


def _largest_of(operands: Iterable[_Known]) -> _Known:
    """What may come from several places: of those that are known, the one that comes to most, extent by extent where they agree."""
    known = [operand for operand in operands if operand is not _UNKNOWN]
    if not known:
        return _UNKNOWN
    values = [operand.values for operand in known if operand.values is not None]
    shapes = [operand.shape for operand in known if operand.shape is not None]
    largest = [operand.largest for operand in known if operand.largest is not None]
    return _Known(max(values, key=_product, default=None), max(largest, default=None), max(shapes, key=_product, default=None))


def _constant(tensor: tensor_pb2.TensorProto) -> _Known:
    try:
        count = num_elements(tensor.tensor_shape)
    except ValueError:
        return _UNKNOWN
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.dtype not in _NUMBER_FORMATS:
        return _Known(shape=shape)
    layout, field = _NUMBER_FORMATS[tensor.dtype]
    if tensor.tensor_content:
        size = struct.calcsize(layout)
        whole: Any = memoryview(tensor.tensor_content)[: len(tensor.tensor_content) // size * size]
        numbers = whole.cast(layout)
    else:
        numbers = getattr(tensor, field)
    if layout in "bB" and count > _MAX_VALUES:
        # Too small to state a size that matters: not worth going through megabytes.
        largest = 127 if layout == "b" else 255
    elif layout in "fd":
        largest = max((number for number in numbers if number == number), default=0)
    else:
        largest = max(numbers, default=0)
    if count > _MAX_VALUES:
        return _Known(None, largest, shape)
    # The last value stands for all that follow.
    values = tuple(numbers[:count]) or (0,)
    return _Known((values + values[-1:] * (count - len(values)))[:count], largest, shape)


def _bounded(known: _Known) -> _Known:
    values = known.values
    if values is not None:
        values = None if len(values) > _MAX_VALUES else tuple(map(_clip, values))
    largest = known.largest
    if values is not None:
        largest = max((value for value in values if value is not None), default=None)
    return _Known(
        values, _clip(largest), None if known.shape is None else tuple(min(extent, _MAX_NUMBER) for extent in known.shape)
    )


def _clip(value: Optional[_Number]) -> Optional[_Number]:
    if value is None or value != value:
        return None
    return max(-_MAX_NUMBER, min(_MAX_NUMBER, value))


def _whole(value: Optional[_Number]) -> int:
    value = _clip(value)
    return 0 if value is None else int(value)


def _product(extents: Iterable[Optional[_Number]]) -> int:
    """Extents that are not known, or come from the data (-1), count once; so do zeros, which another value may stand for later."""
    product = 1
    for extent in extents:
        product = min(_MAX_NUMBER, product * max(1, _whole(extent)))
    return product


def _padded(paddings: Sequence[Optional[_Number]]) -> int:
    pairs = zip(paddings[::2], paddings[1::2])
    return _product(1 + max(0, _whole(before)) + max(0, _whole(after)) for before, after in pairs)


def _range_length(operands: Sequence[Optional[_Values]]) -> int:
    if any(not values or len(values) != 1 or values[0] is None for values in operands):
        return 0
    start, limit, delta = (values[0] for values in operands if values)
    return _whole(max(0, -((start - limit) // delta))) if delta else 0


# --- What operations make of numbers. Each takes the node and what is known of its operands.


def _elementwise(compute: Callable[..., Optional[_Number]]) -> Callable[[node_def_pb2.NodeDef, Sequence[_Known]], _Known]:
    def apply(node: node_def_pb2.NodeDef, operands: Sequence[_Known]) -> _Known:
        shapes = [operand.shape for operand in operands]
        shape = None if any(extents is None for extents in shapes) else _broadcast(shapes)
        values = [operand.values for operand in operands]
        if any(value is None for value in values):
            return _Known(shape=shape)
        length = max(map(len, values))
        if any(len(value) not in (1, length) for value in values):
            return _Known(shape=shape)
        columns = [value * length if len(value) == 1 else value for value in values]
        return _Known(tuple(compute(*row) for row in zip(*columns)), None, shape)

    return apply


def _broadcast(shapes: Sequence[Optional[tuple[int, ...]]]) -> tuple[int, ...]:
    rank = max(len(shape) for shape in shapes if shape is not None)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes if shape is not None]
    return tuple(max(extents) for extents in zip(*padded))


def _if_known(compute: Callable[..., _Number]) -> Callable[..., Optional[_Number]]:
    return lambda *values: None if any(value is None for value in values) else compute(*values)


def _times(a: Optional[_Number], b: Optional[_Number]) -> Optional[_Number]:
    # An extent that is not known is one at least.
    return None if a is None and b is None else (1 if a is None else a) * (1 if b is None else b)


def _power(a: _Number, b: _Number) -> _Number:
    if abs(a) <= 1 or b <= 0:
        return a**b if abs(b) < 1024 else 1
    return _MAX_NUMBER if b * math.log2(abs(a)) > 64 else a**b


def _shifted(a: _Number, b: _Number) -> int:
    return int(a) << min(64, max(0, int(b)))


def _divided(a: _Number, b: _Number) -> _Number:
    return a // b if isinstance(a, int) and isinstance(b, int) else a / b


def _passed_on(node: node_def_pb2.NodeDef, operands: Sequence[_Known]) -> _Known:
    first = operands[0]
    if node.op == "Cast" and first.values is not None and node.attr["DstT"].type in _NUMBER_FORMATS:
        integral = node.attr["DstT"].type not in (types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE)
        first = first._replace(
            values=tuple(int(_clip(v)) if integral and _clip(v) is not None else _clip(v) for v in first.values)
        )
    if node.op not in _RESHAPING_OPS:
        return first
    shape = operands[1].values if node.op == "Reshape" and len(operands) > 1 else None
    whole = all(extent is not None and extent >= 0 for extent in shape) if shape is not None else False
    if whole and shape is not None:
        return first._replace(shape=tuple(map(_whole, shape)))
    # As many elements as before, in whatever shape.
    return first._replace(shape=None if first.shape is None else (_product(first.shape),))


def _joined(node: node_def_pb2.NodeDef, operands: Sequence[_Known]) -> _Known:
    """Pack and concatenation, of vectors and scalars."""
    parts = list(operands)
    if node.op == "ConcatV2":
        parts = parts[:-1]
    elif node.op == "Concat":
        parts = parts[1:]
    values: list[Optional[_Number]] = []
    for part in parts:
        values += part.values if part.values is not None else [None]
    return _Known(tuple(values), None, (len(values),))


def _made_of(shape: Optional[_Values], value: Optional[_Number]) -> _Known:
    if shape is None:
        return _UNKNOWN
    extents = tuple(max(1, _whole(extent)) for extent in shape)
    count = _product(extents)
    return _Known((value,) * count if count <= _MAX_VALUES else None, value, extents)


def _filled(node: node_def_pb2.NodeDef, operands: Sequence[_Known]) -> _Known:
    value = operands[1].values if len(operands) > 1 else None
    return _made_of(operands[0].values, value[0] if value else None)


def _broadcast_to(node: node_def_pb2.NodeDef, operands: Sequence[_Known]) -> _Known:
    return _made_of(operands[1].values, operands[0].largest)


def _random(node: node_def_pb2.NodeDef, operands: Sequence[_Known]) -> _Known:
    return _made_of(operands[0].values, None)


def _like(value: int) -> Callable[[node_def_pb2.NodeDef, Sequence[_Known]], _Known]:
    return lambda node, operands: _made_of(operands[0].shape, value)


def _reduced(compute: Callable[[Sequence[_Number]], _Number]) -> Callable[[node_def_pb2.NodeDef, Sequence[_Known]], _Known]:
    def apply(node: node_def_pb2.NodeDef, operands: Sequence[_Known]) -> _Known:
        values = operands[0].values
        if values is None:
            return _UNKNOWN
        return _Known((compute([value for value in values if value is not None]),), None, None)

    return apply


def _accumulated(compute: Callable[[_Number, _Number], _Number]) -> Callable[[node_def_pb2.NodeDef, Sequence[_Known]], _Known]:
    def apply(node: node_def_pb2.NodeDef, operands: Sequence[_Known]) -> _Known:
        values = operands[0].values
        if values is None or None in values:
            return _Known(shape=operands[0].shape)
        out = list(values[:1])
        for value in values[1:]:
            out.append(_clip(compute(out[-1], value)))
        return operands[0]._replace(values=tuple(out))

    return apply


def _shape_of(node: node_def_pb2.NodeDef, operands: Sequence[_Known]) -> _Known:
    shape = operands[0].shape
    return _UNKNOWN if shape is None else _Known(shape, None, (len(shape),))


def _size_of(node: node_def_pb2.NodeDef, operands: Sequence[_Known]) -> _Known:
    shape = operands[0].shape
    return _UNKNOWN if shape is None else _Known((_product(shape),), None, ())


def _part(node: node_def_pb2.NodeDef, operands: Sequence[_Known]) -> _Known:
    """One element, or a run of them, of a vector."""
    values = operands[0].values
    if values is None or len(operands[0].shape or ()) != 1:
        return _UNKNOWN
    places = [operand.values for operand in operands[1:3]]
    if any(not place or len(place) != 1 or place[0] is None for place in places):
        return _UNKNOWN
    begin = _whole(places[0][0])
    if node.op in ("Gather", "GatherV2") or (node.op == "StridedSlice" and node.attr["shrink_axis_mask"].i & 1):
        return _Known((values[begin],), None, ())
    end = _whole(places[1][0])
    if node.op == "Slice":
        end = len(values) if end < 0 else begin + end
    else:
        begin = 0 if node.attr["begin_mask"].i & 1 else begin
        end = len(values) if node.attr["end_mask"].i & 1 else end
    return _Known(values[begin:end], None, (len(values[begin:end]),))


def _tiled(node: node_def_pb2.NodeDef, operands: Sequence[_Known]) -> _Known:
    shape, multiples = operands[0].shape, operands[1].values
    if shape is None or multiples is None or len(shape) != len(multiples):
        return _UNKNOWN
    extents = tuple(extent * max(1, _whole(multiple)) for extent, multiple in zip(shape, multiples))
    count = _product(extents)
    few = operands[0].values is not None and count <= _MAX_VALUES
    return _Known((operands[0].values or ()) * _product(multiples) if few else None, operands[0].largest, extents)


def _product_of_matrices(node: node_def_pb2.NodeDef, operands: Sequence[_Known]) -> _Known:
    a, b = (operand.shape for operand in operands[:2])
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return _UNKNOWN
    return _Known(shape=(a[1] if node.attr["transpose_a"].b else a[0], b[0] if node.attr["transpose_b"].b else b[1]))


def _chosen(node: node_def_pb2.NodeDef, operands: Sequence[_Known]) -> _Known:
    return _largest_of(operands[1:])


# Elementwise operations that numbers are followed through.
_ARITHMETIC = {
    "Abs": _if_known(abs),
    "Add": _if_known(lambda a, b: a + b),
    "AddV2": _if_known(lambda a, b: a + b),
    "AddN": _if_known(lambda *values: sum(values)),
    "Ceil": _if_known(math.ceil),
    "Div": _if_known(_divided),
    "DivNoNan": _if_known(lambda a, b: _divided(a, b) if b else 0),
    "Exp": _if_known(lambda a: math.exp(min(a, 64))),
    "Floor": _if_known(math.floor),
    "FloorDiv": _if_known(lambda a, b: a // b),
    "FloorMod": _if_known(lambda a, b: a % b),
    "LeftShift": _if_known(_shifted),
    "Maximum": lambda a, b: max((value for value in (a, b) if value is not None), default=None),
    "Minimum": _if_known(min),
    "Mul": _times,
    "Neg": _if_known(lambda a: -a),
    "Pow": _if_known(_power),
    "RealDiv": _if_known(_divided),
    "Round": _if_known(round),
    "Rint": _if_known(round),
    "Sign": _if_known(lambda a: (a > 0) - (a < 0)),
    "Sqrt": _if_known(math.sqrt),
    "Square": _if_known(lambda a: a * a),
    "SquaredDifference": _if_known(lambda a, b: (a - b) ** 2),
    "Sub": _if_known(lambda a, b: a - b),
    "TruncateDiv": _if_known(lambda a, b: int(a / b)),
}


@functools.cache
def _elementwise_ops() -> frozenset[str]:
    groups = {"arithmetic", "comparisons and logic", "activations and their gradients"}
    others = {"Where", "ApproximateEqual", "BiasAddGrad", "L2Loss", "Select"}
    return frozenset(op for op, group in scan_ops.allowed_ops().items() if group.name in groups) - others


_ELEMENTWISE = _elementwise_ops()

_COMPUTED_OPS: Mapping[str, Callable[[node_def_pb2.NodeDef, Sequence[_Known]], _Known]] = {
    **{op: _elementwise(lambda *values: None) for op in _ELEMENTWISE},
    **{op: _elementwise(compute) for op, compute in _ARITHMETIC.items()},
    **dict.fromkeys(_PASSING_OPS, _passed_on),
    **dict.fromkeys(_RANDOM, _random),
    "BroadcastTo": _broadcast_to,
    "Concat": _joined,
    "ConcatV2": _joined,
    "Cumprod": _accumulated(lambda a, b: a * b),
    "Cumsum": _accumulated(lambda a, b: a + b),
    "Fill": _filled,
    "Gather": _part,
    "GatherV2": _part,
    "MatMul": _product_of_matrices,
    "Max": _reduced(max),
    "Min": _reduced(min),
    "OnesLike": _like(1),
    "Pack": _joined,
    "Prod": _reduced(_product),
    "Select": _chosen,
    "SelectV2": _chosen,
    "Shape": _shape_of,
    "ShapeN": _shape_of,
    "Size": _size_of,
    "Slice": _part,
    "StridedSlice": _part,
    "Sum": _reduced(sum),
    "Tile": _tiled,
    "ZerosLike": _like(0),
}
