"""Writing V1 checkpoints, the only format that servers and devices read, one tensor at a time (spec: plan.md, section 8).

TensorFlow's own writer takes all tensors at once and holds them twice. This one needs memory for one tensor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Callable

import numpy as np

import odp_taskbuilder.proto  # noqa: F401  makes TensorFlow's protos importable without TensorFlow
from odp_taskbuilder.plan.sstable import TableWriter, Writable, varint

# isort: split
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.util import saved_tensor_slice_pb2

# V1 checkpoints hold values in TensorProto's typed fields, never in tensor_content. float and double fields are raw
# little-endian numbers on the wire and are streamed; the others go through protobuf.
_STREAMED = {types_pb2.DT_FLOAT: (5, "<f4"), types_pb2.DT_DOUBLE: (6, "<f8")}
_FIELDS = {
    types_pb2.DT_INT32: "int_val",
    types_pb2.DT_INT16: "int_val",
    types_pb2.DT_INT8: "int_val",
    types_pb2.DT_UINT8: "int_val",
    types_pb2.DT_UINT16: "int_val",
    types_pb2.DT_INT64: "int64_val",
    types_pb2.DT_UINT32: "uint32_val",
    types_pb2.DT_UINT64: "uint64_val",
    types_pb2.DT_BOOL: "bool_val",
    types_pb2.DT_STRING: "string_val",
}
_CHUNK_BYTES = 1 << 24


@dataclasses.dataclass(frozen=True)
class CheckpointTensor:
    """One tensor to be written.

    Attributes:
      dtype: a tensorflow.DataType enumerator.
      read: returns the value, of shape `shape`; called once, when the tensor's turn comes.
    """

    name: str
    dtype: int
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def write_checkpoint(file: Writable, tensors: Sequence[CheckpointTensor]) -> None:
    """Writes `tensors` to `file` as a V1 checkpoint of one part.

    Raises:
      ValueError: a value has not the shape or the dtype that was announced.
    """
    tensors = sorted(tensors, key=lambda tensor: tensor.name)
    header = saved_tensor_slice_pb2.SavedTensorSlices()
    header.meta.versions.producer = 1
    for tensor in tensors:
        meta = header.meta.tensor.add(name=tensor.name, type=tensor.dtype)
        meta.shape.SetInParent()
        for size in tensor.shape:
            meta.shape.dim.add(size=size)
        _fill_slice(meta.slice.add(), len(tensor.shape))
    table = TableWriter(file)
    serialized = header.SerializeToString()
    table.add(b"", len(serialized), [serialized])
    for tensor in sorted(tensors, key=_key):
        size, chunks = _saved_slices(tensor)
        table.add(_key(tensor), size, chunks)
    table.finish()


def _fill_slice(slice_proto: Any, rank: int) -> None:
    # An empty extent is the whole dimension.
    for _ in range(rank):
        slice_proto.extent.add()


def _key(tensor: CheckpointTensor) -> bytes:
    """Sort key of a whole tensor, in TensorFlow's order-preserving code: 0, the name, the rank, and (0, -1) for each axis."""
    name = tensor.name.encode().replace(b"\xff", b"\xff\x00").replace(b"\x00", b"\x00\xff")
    rank = len(tensor.shape)
    return b"\0" + name + b"\0\x01" + (bytes([1, rank]) if rank else b"\0") + b"\x80\x7f" * rank


def _saved_slices(tensor: CheckpointTensor) -> tuple[int, Iterator[bytes]]:
    """Size and bytes of SavedTensorSlices{data: SavedSlice{name, slice, data: TensorProto{...}}}."""
    saved = saved_tensor_slice_pb2.SavedSlice(name=tensor.name)
    saved.slice.SetInParent()
    _fill_slice(saved.slice, len(tensor.shape))
    head = saved.SerializeToString()
    proto_bytes, chunks = _tensor_proto(tensor)
    # Field 3 of SavedSlice, then field 2 of SavedTensorSlices around all of it.
    head += b"\x1a" + varint(proto_bytes)
    outer = b"\x12" + varint(len(head) + proto_bytes)

    def parts() -> Iterator[bytes]:
        yield outer + head
        yield from chunks

    return len(outer) + len(head) + proto_bytes, parts()


def _tensor_proto(tensor: CheckpointTensor) -> tuple[int, Iterator[bytes]]:
    if tensor.dtype in _STREAMED:
        field, wire_dtype = _STREAMED[tensor.dtype]
        size = np.dtype(wire_dtype).itemsize * int(np.prod(tensor.shape, dtype=np.int64))
        if size == 0:
            return 0, iter(())
        tag = bytes([field << 3 | 2]) + varint(size)
        return len(tag) + size, _stream(tensor, tag, wire_dtype)
    proto = tensor_pb2.TensorProto()
    getattr(proto, _FIELDS[tensor.dtype]).extend(_checked(tensor).ravel().tolist())
    serialized = proto.SerializeToString()
    return len(serialized), iter((serialized,))


def _stream(tensor: CheckpointTensor, tag: bytes, wire_dtype: str) -> Iterator[bytes]:
    yield tag
    flat = np.ascontiguousarray(_checked(tensor), dtype=wire_dtype).reshape(-1).view(np.uint8)
    for start in range(0, flat.size, _CHUNK_BYTES):
        yield flat[start : start + _CHUNK_BYTES].tobytes()


def _checked(tensor: CheckpointTensor) -> np.ndarray:
    value = np.asarray(tensor.read())
    if value.shape != tensor.shape:
        raise ValueError(f"{tensor.name}: the value has shape {value.shape}, the checkpoint announces {tensor.shape}")
    return value
