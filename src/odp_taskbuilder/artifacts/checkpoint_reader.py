"""Reads TensorFlow V1 checkpoints, the one format that devices and servers exchange, without TensorFlow.

A V1 checkpoint is a table (table.py). Its first key is empty and holds the list of tensors with shapes and dtypes; every other key
stands for one slice of one tensor, whose value is a SavedTensorSlices message around a TensorProto with the numbers
(tensorflow/core/util/saved_tensor_slice.proto). Devices and servers write each tensor as one slice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Optional, Union

import numpy as np

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import dtypes, table, wire

_MAX_META_BYTES = 16 << 20
_MAX_TENSORS = 50_000
# What NumPy can hold.
_MAX_RANK = 32
_MAX_NAME_BYTES = 4096
_MAX_DIMENSIONS_PRODUCT = 1 << 60
# Values are decoded in pieces of this many bytes.
_CHUNK_BYTES = 1 << 20

_PACKED_FLOATS = {"float32": np.dtype("<f4"), "float64": np.dtype("<f8")}
_VARINTS = ("int32", "uint8", "int16", "int8", "int64", "bool", "uint16", "uint32", "uint64")
# Data types whose values `Checkpoint.read` knows; the others occur in no checkpoint of this system.
READABLE = frozenset({"string", *_PACKED_FLOATS, *_VARINTS})

# Field numbers: SavedTensorSlices, SavedTensorSliceMeta, SavedSliceMeta, SavedSlice.
_META, _DATA = 1, 2
_META_TENSOR = 1
_TENSOR_NAME, _TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_SLICE = 1, 2, 3, 4
_SLICE_NAME, _SLICE_VALUES = 1, 3
_SHAPE_DIM, _DIM_SIZE = 2, 1


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One tensor of a checkpoint.

    Attributes:
      dtype: float32, int64, string, ...
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> Optional[int]:
        """Of the values; None for strings."""
        width = dtypes.BY_NAME[self.dtype].num_bytes
        return None if width is None else self.size * width


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What a tensor of numbers holds. Minimum, maximum, mean and L2 norm are those of its finite elements, in float64; NaN without any."""

    minimum: float
    maximum: float
    mean: float
    norm: float
    non_finite: int


class Checkpoint:
    """An open checkpoint; made by `open_checkpoint`.

    Attributes:
      tensors: in the order in which they were saved.
      num_bytes: size of the file.
    """

    def __init__(self, source: wire.Source, what: str):
        self._source = source
        self._what = what
        self._table = table.Table(source, what)
        self.num_bytes = len(source)
        entries = list(self._table.entries())
        if not entries or entries[0].key != b"":
            raise self._corrupt("it has no list of tensors")
        self._entries = entries[1:]
        self._tensors = {tensor.name: tensor for tensor in self._read_meta(entries[0])}
        self.tensors = tuple(self._tensors.values())
        self._values = {self._slice_name(entry): entry for entry in self._entries}
        if self._values.keys() != self._tensors.keys():
            odd = min(self._values.keys() ^ self._tensors.keys())
            raise self._corrupt(f"the tensor {odd!r} is not both listed and stored")

    def check(self) -> None:
        """Reads the whole file and compares its checksums. Raises ArtifactError."""
        self._table.check()

    def read(self, name: str) -> np.ndarray:
        """The values of one tensor, in memory; strings as an array of bytes objects.

        Raises:
          KeyError: there is no such tensor.
          ArtifactError: the values do not fit the shape, or are of a dtype that checkpoints of this system do not hold.
        """
        tensor = self._tensors[name]
        if tensor.dtype == "string":
            elements = self._strings(tensor)
            return np.array(elements, dtype=object).reshape(tensor.shape)
        return np.concatenate([np.empty(0, tensor.dtype), *self._pieces(tensor)]).reshape(tensor.shape)

    def statistics(self, name: str) -> Optional[Statistics]:
        """Statistics of one tensor, read in pieces; None where it is empty, holds strings, or has an unusual dtype."""
        tensor = self._tensors[name]
        if tensor.dtype not in _PACKED_FLOATS and tensor.dtype not in _VARINTS:
            return None
        minimum, maximum, total, squares, finite = math.inf, -math.inf, 0.0, 0.0, 0
        with np.errstate(over="ignore"):
            for piece in self._pieces(tensor):
                is_finite = np.isfinite(piece)
                values = (piece if is_finite.all() else piece[is_finite]).astype(np.float64)
                if values.size:
                    minimum, maximum = min(minimum, values.min()), max(maximum, values.max())
                    total += values.sum()
                    squares += values.dot(values)
                    finite += values.size
        if not finite:
            return Statistics(math.nan, math.nan, math.nan, math.nan, tensor.size) if tensor.size else None
        return Statistics(float(minimum), float(maximum), float(total / finite), math.sqrt(squares), tensor.size - finite)

    def _read_meta(self, entry: table.Entry) -> Iterator[TensorInfo]:
        if entry.end - entry.start > _MAX_META_BYTES:
            raise self._corrupt(f"its list of tensors is larger than {_MAX_META_BYTES} bytes")
        # Into memory, because its fields are small and many.
        content = self._source[entry.start : entry.end]
        (meta,) = self._only(content, 0, len(content), _META)
        seen = set()
        for field in wire.fields(content, meta.start, meta.end, self._what, limit=_MAX_TENSORS):
            if field.number != _META_TENSOR:
                continue
            tensor = self._tensor_info(content, field)
            if tensor.name in seen:
                raise self._corrupt(f"the tensor {tensor.name!r} is listed twice")
            seen.add(tensor.name)
            yield tensor

    def _tensor_info(self, content: bytes, message: wire.Field) -> TensorInfo:
        name, dtype = "", 0
        shape: tuple[int, ...] = ()
        for field in wire.fields(content, message.start, message.end, self._what, limit=_MAX_RANK + 8):
            if field.number == _TENSOR_NAME:
                name = self._name(content, field)
            elif field.number == _TENSOR_TYPE:
                dtype = field.value
            elif field.number == _TENSOR_SHAPE:
                dims = wire.fields(content, field.start, field.end, self._what, limit=_MAX_RANK)
                shape = tuple(self._dimension(content, dim) for dim in dims if dim.number == _SHAPE_DIM)
        if dtype not in dtypes.DTYPES:
            raise self._corrupt(f"the tensor {name!r} has data type {dtype}")
        # Every element takes a byte at least; beside a dimension of 0 the others may say anything.
        if math.prod(shape) > self.num_bytes or math.prod(filter(None, shape)) > _MAX_DIMENSIONS_PRODUCT:
            raise self._corrupt(f"the tensor {name!r} of shape {list(shape)} has more elements than the file has bytes")
        return TensorInfo(name, dtypes.dtype_name(dtype), shape)

    def _dimension(self, content: bytes, message: wire.Field) -> int:
        sizes = [
            field.value
            for field in wire.fields(content, message.start, message.end, self._what, limit=2)
            if field.number == _DIM_SIZE
        ]
        return sizes[0] if sizes else 0

    def _slice_name(self, entry: table.Entry) -> str:
        """The tensor's name, read from the value: the key spells it in an order-preserving code."""
        (data,) = self._only(self._source, entry.start, entry.end, _DATA)
        for field in wire.fields(self._source, data.start, data.end, self._what, limit=8):
            if field.number == _SLICE_NAME:
                return self._name(self._source, field)
        raise self._corrupt("a value has no tensor name")

    def _value_field(self, tensor: TensorInfo) -> list[wire.Field]:
        """The fields of the tensor's TensorProto that hold its values."""
        number = dtypes.BY_NAME[tensor.dtype].value_field
        entry = self._values[tensor.name]
        (data,) = self._only(self._source, entry.start, entry.end, _DATA)
        for field in wire.fields(self._source, data.start, data.end, self._what, limit=8):
            if field.number == _SLICE_VALUES:
                # Numbers are packed into one field; strings are one field each.
                limit = tensor.size + 8 if tensor.dtype == "string" else 16
                inner = wire.fields(self._source, field.start, field.end, self._what, limit=limit)
                return [value for value in inner if value.number == number and value.wire_type == wire.BYTES]
        return []

    def _pieces(self, tensor: TensorInfo) -> Iterator[np.ndarray]:
        """The values in flat pieces."""
        count = 0
        for field in self._value_field(tensor):
            for piece in self._decode(tensor, field):
                count += piece.size
                yield piece
        self._check_count(tensor, count)

    def _decode(self, tensor: TensorInfo, field: wire.Field) -> Iterator[np.ndarray]:
        if tensor.dtype in _PACKED_FLOATS:
            dtype = _PACKED_FLOATS[tensor.dtype]
            for start in range(field.start, field.end, _CHUNK_BYTES):
                chunk = self._source[start : min(start + _CHUNK_BYTES, field.end)]
                if len(chunk) % dtype.itemsize:
                    raise self._corrupt(f"the values of {tensor.name!r} end within a number")
                yield np.frombuffer(chunk, dtype)
        elif tensor.dtype in _VARINTS:
            rest = b""
            for start in range(field.start, field.end, _CHUNK_BYTES):
                chunk = rest + self._source[start : min(start + _CHUNK_BYTES, field.end)]
                values, rest = _packed_varints(chunk)
                if len(rest) > 10:
                    break
                yield values.astype(tensor.dtype)
            if rest:
                raise self._corrupt(f"the values of {tensor.name!r} end within a number")
        else:
            raise errors.ArtifactError(f"{self._what}: values of dtype {tensor.dtype} (tensor {tensor.name!r}) are not read")

    def _strings(self, tensor: TensorInfo) -> list[bytes]:
        elements = [self._source[field.start : field.end] for field in self._value_field(tensor)]
        self._check_count(tensor, len(elements))
        return elements

    def _check_count(self, tensor: TensorInfo, count: int) -> None:
        if count != tensor.size:
            raise self._corrupt(f"the tensor {tensor.name!r} of shape {list(tensor.shape)} has {count} values")

    def _only(self, source: wire.Source, start: int, end: int, number: int) -> list[wire.Field]:
        found = [field for field in wire.fields(source, start, end, self._what, limit=8) if field.number == number]
        if len(found) != 1 or found[0].wire_type != wire.BYTES:
            raise self._corrupt("a record is no SavedTensorSlices message")
        return found

    def _name(self, source: wire.Source, field: wire.Field) -> str:
        if field.end - field.start > _MAX_NAME_BYTES:
            raise self._corrupt(f"a tensor has a name of {field.end - field.start} bytes")
        return source[field.start : field.end].decode("utf-8", "replace")

    def _corrupt(self, reason: str) -> errors.ArtifactError:
        return errors.ArtifactError(f"{self._what} is corrupt: {reason}")


@contextlib.contextmanager
def open_checkpoint(path: Union[str, os.PathLike]) -> Iterator[Checkpoint]:
    """Opens a V1 checkpoint. Reads its index only: a few microseconds per tensor, whatever their sizes.

    Raises:
      StorageError: the file cannot be read.
      ArtifactError: it is no V1 checkpoint, or is corrupt.
    """
    with wire.open_file(path) as source:
        yield Checkpoint(source, str(pathlib.Path(path)))


def _packed_varints(data: bytes) -> tuple[np.ndarray, bytes]:
    """The whole numbers at the start of the data, as uint64, and the bytes of the last, unfinished one."""
    octets = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(octets < 0x80)
    if not ends.size:
        return np.empty(0, np.uint64), data
    used = ends[-1] + 1
    starts = np.concatenate([[0], ends[:-1] + 1])
    shifts = np.arange(used) - np.repeat(starts, ends - starts + 1)
    payload = (octets[:used] & 0x7F).astype(np.uint64) << np.minimum(7 * shifts, 63).astype(np.uint64)
    return np.add.reduceat(payload, starts), data[used:]
