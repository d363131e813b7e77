"""The TFLite graph of a client plan: subgraphs, operators, tensors, read without TensorFlow.

A TensorFlow ("flex") op travels as a custom operator: custom code `Flex` + op name, custom options a flexbuffer vector of the
op name and the serialized NodeDef (spec: plan.md, section 12.2).
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib.util
import pathlib
import re
import struct
from typing import Any, Optional, Union

import odp_taskbuilder.proto  # noqa: F401  makes protos of TensorFlow importable without TensorFlow
from odp_taskbuilder import errors
from odp_taskbuilder.ops import flatbuffer

# isort: split
from google.protobuf import message as protobuf_message
from tensorflow.core.framework import node_def_pb2

_FLEX_PREFIX = "Flex"
# A NodeDef without inputs or names holds attributes only: a few hundred bytes in real plans.
_MAX_NODE_DEF_BYTES = 1 << 20

# Enumerators and field slots of TFLite's schema, version 3.
_IDENTIFIER = b"TFL3"
# fmt: off
_TENSOR_TYPES = (
    "FLOAT32", "FLOAT16", "INT32", "UINT8", "INT64", "STRING", "BOOL", "INT16", "COMPLEX64",
    "INT8", "FLOAT64", "COMPLEX128", "UINT64", "RESOURCE", "VARIANT", "UINT32", "UINT16", "INT4",
)
# fmt: on
_CUSTOM = 32
_MODEL_VERSION, _MODEL_OPERATOR_CODES, _MODEL_SUBGRAPHS, _MODEL_DESCRIPTION, _MODEL_BUFFERS, _MODEL_METADATA = 0, 1, 2, 3, 4, 6
_CODE_DEPRECATED_BUILTIN, _CODE_CUSTOM, _CODE_VERSION, _CODE_BUILTIN = 0, 1, 2, 3
_SUBGRAPH_TENSORS, _SUBGRAPH_INPUTS, _SUBGRAPH_OUTPUTS, _SUBGRAPH_OPERATORS, _SUBGRAPH_NAME = 0, 1, 2, 3, 4
_OPERATOR_CODE, _OPERATOR_INPUTS, _OPERATOR_OUTPUTS, _OPERATOR_CUSTOM_OPTIONS = 0, 1, 2, 5
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER, _TENSOR_NAME, _TENSOR_SHAPE_SIGNATURE, _TENSOR_HAS_RANK = 0, 1, 2, 3, 7, 8
_BUFFER_DATA = 0
_METADATA_NAME, _METADATA_BUFFER = 0, 1
# The entry that tells which runtime the converter took a graph to need.
_MIN_RUNTIME = "min_runtime_version"
_RUNTIME = re.compile(rb"([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})")

# Integer constants are kept up to this size: counts, not weights.
_INTEGER_CODES = {"INT32": "<i", "INT64": "<q"}
_MAX_INTEGERS_BYTES = 256
# The names of a checkpoint's tensors.
_MAX_STRINGS = 100_000


class OpKind(enum.Enum):
    """Who executes an op on a phone."""

    BUILTIN = "builtin"  # TFLite itself
    FLEX = "flex"  # a TensorFlow kernel
    CUSTOM = "custom"  # code that the app would have to bring: no phone has it


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a subgraph.

    Attributes:
      dtype: TFLite's name of the type, for example FLOAT32.
      shape: -1 for an unknown dimension; None for an unknown rank.
      constant: the elements of a constant tensor of strings or integers, where there are few; None for every other tensor.
    """

    name: str
    dtype: str
    shape: Optional[tuple[int, ...]]
    constant: Union[tuple[bytes, ...], tuple[int, ...], None] = None


@dataclasses.dataclass(frozen=True)
class Operator:
    """One node.

    Attributes:
      op: TFLite's name of a builtin op, for example FULLY_CONNECTED, or the TensorFlow op's name.
      inputs, outputs: indices of the subgraph's tensors; -1 for an omitted input.
      node_def: serialized tensorflow.NodeDef of a flex op, empty otherwise.
      version: of a builtin op: what it takes and does grows with it.
    """

    op: str
    kind: OpKind
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    node_def: bytes = b""
    version: int = 1


@dataclasses.dataclass(frozen=True)
class Subgraph:
    """The main graph (the first one), or the body of a loop, a branch or a dataset function."""

    name: str
    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]


@dataclasses.dataclass(frozen=True)
class TfliteGraph:
    """A flatbuffer.

    Attributes:
      version: of the schema.
      min_runtime: what its converter says that it needs, for example (2, 6, 0); None where it says nothing.
    """

    version: int
    description: str
    subgraphs: tuple[Subgraph, ...]
    min_runtime: Optional[tuple[int, int, int]] = None


def read_tflite(data: bytes, what: str = "The TFLite graph") -> TfliteGraph:
    """Reads a flatbuffer; about 10 microseconds per operator or tensor.

    Args:
      data: the flatbuffer; may come from anyone.
      what: its name in messages.

    Raises:
      ArtifactError: it is no TFLite flatbuffer, or is corrupt.
    """
    buffer = flatbuffer.FlatBuffer(bytes(data), what)
    model = buffer.root(_IDENTIFIER)
    codes = [_operator_code(buffer, code) for code in model.tables(_MODEL_OPERATOR_CODES)]
    constants = list(model.tables(_MODEL_BUFFERS))
    subgraphs = tuple(_subgraph(buffer, table, codes, constants) for table in model.tables(_MODEL_SUBGRAPHS))
    if not subgraphs:
        raise buffer.corrupt("it has no subgraph")
    runtime = _min_runtime(buffer, model, constants)
    return TfliteGraph(model.scalar(_MODEL_VERSION, "<I", 0), model.string(_MODEL_DESCRIPTION), subgraphs, runtime)


def _min_runtime(buffer: flatbuffer.FlatBuffer, model: flatbuffer.Table, constants: list) -> Optional[tuple[int, int, int]]:
    for entry in model.tables(_MODEL_METADATA):
        if entry.string(_METADATA_NAME) == _MIN_RUNTIME:
            index = entry.scalar(_METADATA_BUFFER, "<I", 0)
            if index >= len(constants):
                raise buffer.corrupt(f"its metadata has buffer {index} of {len(constants)}")
            if constants[index].length(_BUFFER_DATA) <= _MAX_INTEGERS_BYTES:
                version = _RUNTIME.match(bytes(constants[index].octets(_BUFFER_DATA)))
                return (int(version[1]), int(version[2]), int(version[3])) if version else None
    return None


def read_node_def(operator: Operator) -> Any:
    """The tensorflow.NodeDef of a flex op: its attributes, with empty names for the node and its inputs.

    Raises:
      ArtifactError: the bytes are no NodeDef.
    """
    if len(operator.node_def) > _MAX_NODE_DEF_BYTES:
        raise errors.ArtifactError(
            f"The NodeDef of {operator.op} is {len(operator.node_def)} bytes long; at most {_MAX_NODE_DEF_BYTES} are read"
        )
    try:
        return node_def_pb2.NodeDef.FromString(operator.node_def)
    except protobuf_message.DecodeError:
        raise errors.ArtifactError(f"The custom options of the flex op {operator.op} hold no NodeDef") from None


def _operator_code(buffer: flatbuffer.FlatBuffer, table: flatbuffer.Table) -> tuple[OpKind, str, int]:
    # Codes above 127 do not fit the old one-byte field, which then holds a placeholder: the larger one counts.
    code = max(table.scalar(_CODE_DEPRECATED_BUILTIN, "<b", 0), table.scalar(_CODE_BUILTIN, "<i", 0))
    if code != _CUSTOM:
        name = _builtin_names().get(code)
        if name is None:
            raise buffer.corrupt(f"{code} is no builtin operator")
        return OpKind.BUILTIN, name, table.scalar(_CODE_VERSION, "<i", 1)
    name = table.string(_CODE_CUSTOM)
    if name.startswith(_FLEX_PREFIX):
        return OpKind.FLEX, name[len(_FLEX_PREFIX) :], 1
    return OpKind.CUSTOM, name, 1


def _subgraph(buffer: flatbuffer.FlatBuffer, table: flatbuffer.Table, codes: list, constants: list) -> Subgraph:
    tensors = tuple(_tensor(buffer, tensor, constants) for tensor in table.tables(_SUBGRAPH_TENSORS))
    operators = tuple(_operator(buffer, operator, codes, len(tensors)) for operator in table.tables(_SUBGRAPH_OPERATORS))
    inputs, outputs = table.ints(_SUBGRAPH_INPUTS), table.ints(_SUBGRAPH_OUTPUTS)
    _check_indices(buffer, inputs + outputs, len(tensors))
    return Subgraph(table.string(_SUBGRAPH_NAME), tensors, inputs, outputs, operators)


def _operator(buffer: flatbuffer.FlatBuffer, table: flatbuffer.Table, codes: list, tensor_count: int) -> Operator:
    index = table.scalar(_OPERATOR_CODE, "<I", 0)
    if index >= len(codes):
        raise buffer.corrupt(f"an operator has code {index} of {len(codes)}")
    kind, op, version = codes[index]
    inputs, outputs = table.ints(_OPERATOR_INPUTS), table.ints(_OPERATOR_OUTPUTS)
    _check_indices(buffer, inputs + outputs, tensor_count)
    node_def = b""
    if kind is OpKind.FLEX:
        what = f"{buffer.what}: the custom options of {_FLEX_PREFIX}{op}"
        options = flatbuffer.flexbuffer_strings(table.octets(_OPERATOR_CUSTOM_OPTIONS), what)
        if len(options) != 2:
            raise errors.ArtifactError(f"{what} have {len(options)} elements, not 2 (op name and NodeDef)")
        name, node_def = options
        if name.decode("utf-8", "replace") != op:
            raise errors.ArtifactError(f"{what} are those of the op {name[:80]!r}")
    return Operator(op, kind, inputs, outputs, node_def, version)


def _tensor(buffer: flatbuffer.FlatBuffer, table: flatbuffer.Table, constants: list) -> Tensor:
    type_ = table.scalar(_TENSOR_TYPE, "<b", 0)
    if not 0 <= type_ < len(_TENSOR_TYPES):
        raise buffer.corrupt(f"{type_} is no tensor type")
    dtype = _TENSOR_TYPES[type_]
    # `shape` holds 1 where a dimension is unknown; `shape_signature` is there only in that case and holds -1.
    shape = table.ints(_TENSOR_SHAPE_SIGNATURE) or table.ints(_TENSOR_SHAPE)
    # Without has_rank an empty shape says "unknown", except that converters leave it out for shapes that are not empty.
    rank_known = bool(shape) or bool(table.scalar(_TENSOR_HAS_RANK, "<B", 0))
    index = table.scalar(_TENSOR_BUFFER, "<I", 0)
    if index >= len(constants):
        raise buffer.corrupt(f"a tensor has buffer {index} of {len(constants)}")
    constant = _elements(buffer, dtype, constants[index])
    return Tensor(table.string(_TENSOR_NAME), dtype, shape if rank_known else None, constant)


def _elements(
    buffer: flatbuffer.FlatBuffer, dtype: str, table: flatbuffer.Table
) -> Union[tuple[bytes, ...], tuple[int, ...], None]:
    size = table.length(_BUFFER_DATA)
    if dtype == "STRING" and size:
        return _string_elements(buffer, table.octets(_BUFFER_DATA))
    code = _INTEGER_CODES.get(dtype)
    if code is None or not 0 < size <= _MAX_INTEGERS_BYTES:
        return None
    content = table.octets(_BUFFER_DATA)
    if size % struct.calcsize(code):
        raise buffer.corrupt(f"a constant of type {dtype} has {size} bytes")
    return tuple(value for (value,) in struct.iter_unpack(code, content))


def _string_elements(buffer: flatbuffer.FlatBuffer, content: bytes) -> tuple[bytes, ...]:
    """TFLite's string tensor: int32 count, int32 offsets of the elements and of the end, the bytes."""
    count = struct.unpack_from("<i", content)[0] if len(content) >= 4 else -1
    if not 0 <= count <= min((len(content) - 8) // 4, _MAX_STRINGS):
        raise buffer.corrupt(f"a string tensor of {len(content)} bytes has {count} elements")
    offsets = struct.unpack_from(f"<{count + 1}i", content, 4)
    if any(start > end for start, end in zip(offsets, offsets[1:])) or offsets[0] < 0 or offsets[-1] > len(content):
        raise buffer.corrupt("the elements of a string tensor lie outside of it")
    return tuple(content[start:end] for start, end in zip(offsets, offsets[1:]))


def _check_indices(buffer: flatbuffer.FlatBuffer, indices: tuple[int, ...], tensor_count: int) -> None:
    for index in indices:
        if not -1 <= index < tensor_count:
            raise buffer.corrupt(f"it uses tensor {index} of {tensor_count}")


@functools.cache
def _builtin_names() -> dict[int, str]:
    """Names of the builtin operators by number, from the schema module in TensorFlow's wheel, which needs no TensorFlow."""
    wheel = importlib.util.find_spec("tensorflow").submodule_search_locations[0]
    path = pathlib.Path(wheel) / "lite" / "python" / "schema_py_generated.py"
    spec = importlib.util.spec_from_file_location("odp_taskbuilder_tflite_schema", path)
    schema = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(schema)
    return {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
