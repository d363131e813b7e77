"""Reads flatbuffer tables and flexbuffer vectors out of untrusted bytes.

The flatbuffers package reads with generated accessors that trust every offset and length in the file. Here each access is
checked against the end of the buffer, and the bytes that a reader follows references to are counted: in a file that a
converter wrote hardly anything is referred to twice, while a hostile one can name the same megabyte a million times.

Format: https://flatbuffers.dev/internals and https://flatbuffers.dev/flatbuffers_internals (flexbuffers). All numbers are little endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Optional

from odp_taskbuilder import errors

_MAX_TABLES = 200_000
_MAX_INTS = 2_000_000
_STRING, _VECTOR, _BLOB = 5, 10, 25


class FlatBuffer:
    """The bytes of one flatbuffer, and how much of them may still be read.

    Raises ArtifactError, from here and from the tables below, for any reference that leaves the buffer.
    """

    def __init__(self, data: bytes, what: str):
        self.data = data
        self.what = what
        self._bytes_left = 2 * len(data)
        self._tables_left = _MAX_TABLES
        self._ints_left = _MAX_INTS

    def root(self, identifier: bytes) -> Table:
        if len(self.data) < 8 or self.data[4:8] != identifier:
            raise self.corrupt(f"the file identifier is {bytes(self.data[4:8])!r}, not {identifier!r}")
        return self.table(self.unpack("<I", 0))

    def table(self, position: int) -> Table:
        self._tables_left -= 1
        if self._tables_left < 0:
            raise self.corrupt(f"it has more than {_MAX_TABLES} tables")
        return Table(self, position)

    def unpack(self, code: str, position: int) -> int:
        if position < 0 or position + struct.calcsize(code) > len(self.data):
            raise self.corrupt(f"an offset points to byte {position} of {len(self.data)}")
        return struct.unpack_from(code, self.data, position)[0]

    def span(self, position: int, length: int) -> bytes:
        """The bytes [position, position + length), each of them counted."""
        self._bytes_left -= length
        if position < 0 or position + length > len(self.data):
            raise self.corrupt(f"a length of {length} at byte {position} goes beyond its {len(self.data)} bytes")
        if self._bytes_left < 0:
            raise self.corrupt("it refers to the same bytes again and again")
        return self.data[position : position + length]

    def ints(self, position: int, count: int) -> tuple[int, ...]:
        octets = self.span(position, 4 * count)
        self._ints_left -= count
        if self._ints_left < 0:
            raise self.corrupt(f"its vectors hold more than {_MAX_INTS} numbers")
        return struct.unpack(f"<{count}i", octets)

    def corrupt(self, reason: str) -> errors.ArtifactError:
        return errors.ArtifactError(f"{self.what} is corrupt: {reason}")


class Table:
    """One table: fields are found through its vtable, by slot number; an absent field has its default."""

    def __init__(self, buffer: FlatBuffer, position: int):
        self._buffer = buffer
        self._position = position
        self._vtable = position - buffer.unpack("<i", position)
        self._vtable_size = buffer.unpack("<H", self._vtable)

    def scalar(self, slot: int, code: str, default: int) -> int:
        """The number in a slot; `code` is its struct format."""
        position = self._field(slot)
        return default if position is None else self._buffer.unpack(code, position)

    def string(self, slot: int) -> str:
        """The text in a slot; bytes that are not UTF-8 show as replacement characters."""
        return self.octets(slot).decode("utf-8", "replace")

    def length(self, slot: int) -> int:
        """The number of elements of a vector."""
        return self._vector(slot)[1]

    def octets(self, slot: int) -> bytes:
        start, count = self._vector(slot)
        return self._buffer.span(start, count)

    def ints(self, slot: int) -> tuple[int, ...]:
        """A vector of int32."""
        return self._buffer.ints(*self._vector(slot))

    def tables(self, slot: int) -> Iterator[Table]:
        start, count = self._vector(slot)
        self._buffer.span(start, 4 * count)
        for position in range(start, start + 4 * count, 4):
            yield self._buffer.table(position + self._buffer.unpack("<I", position))

    def _field(self, slot: int) -> Optional[int]:
        entry = 4 + 2 * slot
        if entry + 2 > self._vtable_size:
            return None
        offset = self._buffer.unpack("<H", self._vtable + entry)
        return self._position + offset if offset else None

    def _vector(self, slot: int) -> tuple[int, int]:
        """First element and number of elements."""
        field = self._field(slot)
        if field is None:
            return 0, 0
        position = field + self._buffer.unpack("<I", field)
        return position + 4, self._buffer.unpack("<I", position)


def flexbuffer_strings(data: bytes, what: str) -> list[bytes]:
    """The elements of a flexbuffer that is a vector of strings or blobs, as bytes: they need not be text.

    The root value stands at the end, followed by its type and its byte width; everything is referred to by the distance back.

    Raises:
      ArtifactError: it is something else.
    """
    buffer = FlatBuffer(data, what)

    def number(position: int, width: int) -> int:
        if width not in (1, 2, 4, 8):
            raise buffer.corrupt(f"its numbers are {width} bytes wide")
        return int.from_bytes(buffer.span(position, width), "little")

    if len(data) < 3:
        raise buffer.corrupt("it is too short for a flexbuffer")
    root_width, root_type = data[-1], data[-2]
    if root_type >> 2 != _VECTOR:
        raise buffer.corrupt(f"its root has flexbuffer type {root_type >> 2}, not {_VECTOR} (vector)")
    root = len(data) - 2 - root_width
    start, width = root - number(root, root_width), 1 << (root_type & 3)
    count = number(start - width, width)
    types = buffer.span(start + count * width, count)
    elements = []
    for index, type_ in enumerate(types):
        if type_ >> 2 not in (_STRING, _BLOB):
            raise buffer.corrupt(f"element {index} has flexbuffer type {type_ >> 2}, not {_STRING} (string)")
        slot = start + index * width
        position, element_width = slot - number(slot, width), 1 << (type_ & 3)
        elements.append(buffer.span(position, number(position - element_width, element_width)))
    return elements
