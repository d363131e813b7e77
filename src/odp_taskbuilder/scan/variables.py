"""The variables of a SavedModel: a tensor bundle, which is a sorted table of entries that point into data files.

The table (variables.index) has the format of LevelDB's: blocks of key-value pairs, an index block that points to them, and a footer.
Every offset and size in it is checked against the bytes that exist before it is used. Format: TensorFlow's
`tsl/lib/io/format.h` and `table_format.txt`, `core/util/tensor_bundle`.
"""

from __future__ import annotations

import os
import pathlib
import struct
from collections.abc import Iterator
from typing import Optional

import google_crc32c
from google.protobuf import message

import odp_taskbuilder.proto  # noqa: F401 - makes TensorFlow's messages importable without TensorFlow.
from odp_taskbuilder import errors
from odp_taskbuilder.scan import files, sizes
from odp_taskbuilder.scan.report import Finding, ScanLimits, printable

from tensorflow.core.framework import types_pb2  # isort: skip
from tensorflow.core.protobuf import tensor_bundle_pb2, trackable_object_graph_pb2  # isort: skip

_ObjectGraph = trackable_object_graph_pb2.TrackableObjectGraph
_OBJECT_GRAPH_KEY = b"_CHECKPOINTABLE_OBJECT_GRAPH"
_OBJECT_GRAPH = "the object graph in the variables"
_FOOTER_SIZE = 48
_TABLE_MAGIC = 0xDB4775248B80FB57
_BLOCK_TRAILER_SIZE = 5
_UNCOMPRESSED, _SNAPPY = 0, 1
# Keys are paths of attributes: "_weights/0/1/.ATTRIBUTES/VARIABLE_VALUE".
_MAX_KEY_SIZE = 1024
_CRC_MASK_DELTA = 0xA282EAD8
_WHERE = "variables"


def scan_variables(path: pathlib.Path, limits: ScanLimits) -> tuple[list[Finding], int]:
    """Returns what speaks against loading the variables, and the size of their data files in bytes.

    Raises:
      errors.ModelError: the index is truncated or damaged, or points outside of its data files.
    """
    index = files.read_file(path, files.INDEX_FILE, limits.index_bytes)
    try:
        table = dict(_read_table(index, limits))
        if b"" not in table:
            raise ValueError("it has no header")
        header = tensor_bundle_pb2.BundleHeaderProto.FromString(table.pop(b""))
        shards = _shards(path, header, limits)
        entries = {key: tensor_bundle_pb2.BundleEntryProto.FromString(value) for key, value in table.items()}
    except (ValueError, message.DecodeError) as error:
        raise errors.ModelError(f"{path}: {files.INDEX_FILE} is truncated or damaged: {error}.") from error

    findings = _stray_files(path, shards)
    for key, entry in entries.items():
        name = key.decode(errors="replace")
        problem = _entry_problem(entry, shards)
        if problem:
            raise errors.ModelError(f"{path}: the entry {printable(name)!r} of {files.INDEX_FILE} {problem}.")
        if entry.slices:
            findings.append(
                Finding(_WHERE, name, "", "the value is stored in slices, which may state a larger tensor than they hold")
            )
    total = sum(size for _, size in shards)
    stated = sum(entry.size for entry in entries.values())
    if stated > total:
        findings.append(
            Finding(_WHERE, "", "", f"the values are said to take {stated} bytes, more than the {total} that exist")
        )
    if total > limits.variables_bytes:
        findings.append(Finding(_WHERE, "", "", f"{total} bytes; at most {limits.variables_bytes} are accepted"))
    findings.extend(_scan_object_graph(path, entries.get(_OBJECT_GRAPH_KEY), shards, limits))
    return findings, total


def _shards(path: pathlib.Path, header: tensor_bundle_pb2.BundleHeaderProto, limits: ScanLimits) -> list[tuple[str, int]]:
    """Name and size of each data file."""
    count = header.num_shards
    if not 1 <= count <= limits.files:
        raise ValueError(f"it speaks of {count} data files")
    if header.endianness != tensor_bundle_pb2.BundleHeaderProto.LITTLE:
        raise ValueError("its values are big-endian")
    names = [f"variables/variables.data-{i:05d}-of-{count:05d}" for i in range(count)]
    return [(name, files.file_size(path, name)) for name in names]


def _stray_files(path: pathlib.Path, shards: list[tuple[str, int]]) -> list[Finding]:
    """Whoever digests or copies the model reads these, and nobody loads them."""
    known = {files.INDEX_FILE, *(name for name, _ in shards)}
    strays = sorted({f"variables/{name}" for name in os.listdir(path / "variables")} - known)
    return [Finding(printable(name), "", "", "no part of the variables, as their index names them") for name in strays]


def _entry_problem(entry: tensor_bundle_pb2.BundleEntryProto, shards: list[tuple[str, int]]) -> str:
    if entry.dtype != types_pb2.DT_STRING and entry.dtype not in sizes.DTYPE_SIZES:
        return f"has a type that no variable has ({entry.dtype})"
    if not 0 <= entry.shard_id < len(shards):
        return f"lies in data file {entry.shard_id}, of {len(shards)}"
    name, available = shards[entry.shard_id]
    if entry.offset < 0 or entry.size < 0 or entry.offset + entry.size > available:
        return f"lies at bytes {entry.offset} to {entry.offset + entry.size} of {name}, which has {available}"
    if entry.slices:
        return ""
    try:
        elements = sizes.num_elements(entry.shape)
    except ValueError as error:
        return f"has {error}"
    if entry.dtype == types_pb2.DT_STRING:
        # At least a byte per element, for its length.
        return f"has {entry.size} bytes, too few for {elements} strings" if entry.size < elements else ""
    expected = elements * sizes.DTYPE_SIZES[entry.dtype]
    return f"has {entry.size} bytes, where its shape and type make {expected}" if entry.size != expected else ""


def _scan_object_graph(
    path: pathlib.Path, entry: Optional[tensor_bundle_pb2.BundleEntryProto], shards: list[tuple[str, int]], limits: ScanLimits
) -> list[Finding]:
    """The checkpoint names, for each object, how it is restored; a registered saver is a function of the host's Python."""
    if entry is None:
        return []
    try:
        if entry.dtype != types_pb2.DT_STRING or entry.shape.dim or entry.size > limits.index_bytes:
            raise ValueError("it is not one string of reasonable size")
        stored = files.read_range(path, shards[entry.shard_id][0], entry.offset, entry.size)
        length, start = _varint(stored, 0)
        # The checksum of the length stands between it and the string.
        content = _slice(stored, start + 4, length)
    except ValueError as error:
        raise errors.ModelError(f"{path}: the object graph in the variables is damaged: {error}.") from error
    problem = files.excess(path, _OBJECT_GRAPH, content, _ObjectGraph, limits)
    if problem is not None:
        return [Finding(_WHERE, _OBJECT_GRAPH, "", problem)]
    findings = []
    for i, node in enumerate(files.parse(path, _OBJECT_GRAPH, content, _ObjectGraph).nodes):
        if node.slot_variables:
            findings.append(Finding(_WHERE, f"object {i}", "", "has an optimizer's slot variables"))
        if node.HasField("registered_saver"):
            reason = f"restored by the registered saver {printable(node.registered_saver.name)!r}"
            findings.append(Finding(_WHERE, f"object {i}", "", reason))
    return findings


def _read_table(data: bytes, limits: ScanLimits) -> Iterator[tuple[bytes, bytes]]:
    """Yields the key-value pairs of a table."""
    footer = _slice(data, len(data) - _FOOTER_SIZE, _FOOTER_SIZE)
    if struct.unpack_from("<Q", footer, 40)[0] != _TABLE_MAGIC:
        raise ValueError("it does not end as a table does")
    _, _, position = _handle(footer, 0)  # Of the meta index, which tables of variables leave empty.
    offset, size, _ = _handle(footer, position)
    num_entries = 0
    last_key = None
    content_left = limits.index_bytes
    for num_blocks, (_, value) in enumerate(_pairs(_block(data, offset, size, content_left))):
        if num_blocks >= limits.variables:
            raise ValueError(f"it has more than {limits.variables} blocks")
        block = _block(data, *_handle(value, 0)[:2], content_left)
        # Compressed blocks hold more than the file has bytes, and nothing keeps them from being listed twice.
        content_left -= len(block)
        for key, entry in _pairs(block):
            num_entries += 1
            if num_entries > limits.variables:
                raise ValueError(f"it has more than {limits.variables} entries")
            # TensorFlow finds an entry by bisection, and would find another one than this walk if the order were broken.
            if last_key is not None and key <= last_key:
                raise ValueError("its keys are out of order")
            last_key = key
            yield key, entry


def _block(data: bytes, offset: int, size: int, limit: int) -> bytes:
    """Returns the content of a block of the table, decompressed."""
    block = _slice(data, offset, size)
    trailer = _slice(data, offset + size, _BLOCK_TRAILER_SIZE)
    compression = trailer[0]
    if _masked_crc(block + trailer[:1]) != struct.unpack_from("<I", trailer, 1)[0]:
        raise ValueError("a checksum does not fit")
    if compression == _SNAPPY:
        block = decompress_snappy(block, limit)
    elif compression != _UNCOMPRESSED:
        raise ValueError("a block is compressed in an unknown way")
    if not 4 <= len(block) <= limit:
        raise ValueError("a block is too short or too long")
    return block


def _pairs(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the pairs of one block; each key shares its beginning with the one before."""
    num_restarts = struct.unpack_from("<I", block, len(block) - 4)[0]
    end = len(block) - 4 - 4 * num_restarts
    if end < 0:
        raise ValueError("a block is too short")
    restarts = set(struct.unpack_from(f"<{num_restarts}I", block, end))
    key, position = b"", 0
    while position < end:
        start = position
        shared, position = _varint(block, position)
        unshared, position = _varint(block, position)
        value_size, position = _varint(block, position)
        if shared > len(key):
            raise ValueError("a key shares more than there is")
        if shared + unshared > _MAX_KEY_SIZE:
            raise ValueError("a key is too long")
        if shared == 0:
            restarts.discard(start)
        key = key[:shared] + _slice(block, position, unshared)
        position += unshared
        yield key, _slice(block, position, value_size)
        position += value_size
    # Where bisection starts to read; an empty block has one at its end.
    if restarts - {end}:
        raise ValueError("a block can be entered in the middle of an entry")


def _handle(data: bytes, position: int) -> tuple[int, int, int]:
    """Reads offset and size of a block; also returns the position behind them."""
    offset, position = _varint(data, position)
    size, position = _varint(data, position)
    return offset, size, position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(data):
            raise ValueError("a number is cut off")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number is too long")


def _slice(data: bytes, offset: int, size: int) -> bytes:
    if offset < 0 or size < 0 or offset + size > len(data):
        raise ValueError(f"bytes {offset} to {offset + size} are missing")
    return data[offset : offset + size]


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _CRC_MASK_DELTA) & 0xFFFFFFFF


def decompress_snappy(data: bytes, limit: int) -> bytes:
    """Returns the content of one raw Snappy block, in which newer TensorFlow releases store the index.

    Format: google/snappy `format_description.txt`. Written for safety, not for speed: an index has a few kilobytes.

    Raises:
      ValueError: the block is malformed, or its content is longer than `limit` bytes.
    """
    try:
        return _decompress(data, limit)
    except IndexError:
        raise ValueError("a compressed block is cut off") from None


def _decompress(data: bytes, limit: int) -> bytes:
    expected, position = _snappy_length(data)
    if expected > limit:
        raise ValueError(f"a compressed block has {expected} bytes; at most {limit} are read")
    out = bytearray()
    while position < len(data):
        tag = data[position]
        position += 1
        kind, upper = tag & 3, tag >> 2
        if kind == 0:
            position = _snappy_literal(data, position, upper, out)
            continue
        if kind == 1:
            length, offset = 4 + (upper & 7), (upper >> 3) << 8 | data[position]
            position += 1
        else:
            width = 2 if kind == 2 else 4
            length, offset = 1 + upper, int.from_bytes(data[position : position + width], "little")
            position += width
        if not 0 < offset <= len(out):
            raise ValueError("a compressed block refers to bytes before its start")
        # Source and destination may overlap: a short pattern repeats itself.
        start = len(out) - offset
        pattern = out[start : start + length]
        out += (pattern * (length // len(pattern) + 1))[:length]
        if len(out) > expected:
            break
    if len(out) != expected:
        raise ValueError("a compressed block does not have the length that it states")
    return bytes(out)


def _snappy_literal(data: bytes, position: int, upper: int, out: bytearray) -> int:
    """Copies bytes that stand for themselves; returns the position behind them."""
    length = upper + 1
    if upper >= 60:
        width = upper - 59
        length = int.from_bytes(data[position : position + width], "little") + 1
        position += width
    if position + length > len(data):
        raise IndexError
    out += data[position : position + length]
    return position + length


def _snappy_length(data: bytes) -> tuple[int, int]:
    value = 0
    for position in range(5):
        value |= (data[position] & 0x7F) << (7 * position)
        if data[position] < 0x80:
            return value, position + 1
    raise ValueError("the length of a compressed block is too long")
