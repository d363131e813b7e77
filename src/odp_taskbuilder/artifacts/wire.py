"""Walks over serialized protocol buffers in place, without building messages.

A protobuf library allocates what the bytes say: two bytes of input may become a hundred of memory, and a field of a gigabyte is
copied. Here a field is a range of the source, which may be a file that is never read as a whole.

Format: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
from collections.abc import Iterator
from typing import Union

from odp_taskbuilder import errors

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class FileBytes:
    """The bytes of an open regular file, read where and when they are sliced."""

    def __init__(self, descriptor: int, what: str):
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self.what = what

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, range_: slice) -> bytes:
        start, stop, _ = range_.indices(self._size)
        chunks, position = [], start
        while position < stop:
            # One call returns at most 2 GiB.
            chunk = os.pread(self._descriptor, stop - position, position)
            if not chunk:
                raise errors.ArtifactError(f"{self.what} shrank while it was read")
            chunks.append(chunk)
            position += len(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


Source = Union[bytes, FileBytes]


@contextlib.contextmanager
def open_file(path: Union[str, os.PathLike]) -> Iterator[FileBytes]:
    """Opens a regular file.

    Raises:
      StorageError: it cannot be read, or is a pipe, a device or a directory.
    """
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise errors.StorageError(f"Cannot read {os.fspath(path)}: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise errors.StorageError(f"Cannot read {os.fspath(path)}: it is not a regular file")
        yield FileBytes(descriptor, os.fspath(path))
    finally:
        os.close(descriptor)


@dataclasses.dataclass(frozen=True)
class Field:
    """One field: its number, its wire type, and the range of its content; `value` is the number of a varint."""

    number: int
    wire_type: int
    start: int
    end: int
    value: int = 0


def fields(source: Source, start: int, end: int, what: str, *, limit: int) -> Iterator[Field]:
    """The fields of the message in [start, end), in file order.

    Args:
      source: where the message lies.
      what: the message's name in error messages.
      limit: the number of fields at which the message is refused.

    Raises:
      ArtifactError: the bytes are no message, or it has more fields than `limit`.
    """
    position = start
    for _ in range(limit):
        if position == end:
            return
        tag, position = varint(source, position, end, what)
        number, wire_type = tag >> 3, tag & 7
        value, length = 0, 0
        content = position
        if wire_type == VARINT:
            value, position = varint(source, position, end, what)
        elif wire_type == BYTES:
            length, content = varint(source, position, end, what)
            position = content + length
        elif wire_type in (FIXED64, FIXED32):
            position += 8 if wire_type == FIXED64 else 4
        else:
            raise errors.ArtifactError(f"{what} is corrupt: wire type {wire_type} at byte {content}")
        if position > end or number == 0:
            raise errors.ArtifactError(f"{what} is corrupt: field {number} at byte {content} goes beyond its end")
        yield Field(number, wire_type, content, position, value)
    if position != end:
        raise errors.ArtifactError(f"{what} has more than {limit} fields")


def varint(source: Source, position: int, end: int, what: str) -> tuple[int, int]:
    """The number at a position, and the position behind it. Raises ArtifactError."""
    # At most ten bytes; read at once, for a file's sake.
    head = source[position : min(position + 10, end)]
    result = 0
    for index, byte in enumerate(head):
        result |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return result, position + index + 1
    raise errors.ArtifactError(f"{what} is corrupt: no number at byte {position}")
