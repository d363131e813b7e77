"""TFRecord files: the framing of records, with its checksums, read and written without TensorFlow.

A record is: uint64 length, uint32 masked CRC32C of the length, the data, uint32 masked CRC32C of the data; all
little-endian. The format is that of TensorFlow's `tf.io.TFRecordWriter` without compression; TensorBoard's event files use
it, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import google_crc32c

from odp_taskbuilder import errors

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


def masked_crc32c(data: bytes) -> int:
    """CRC32C, rotated and offset: the format masks it because data may itself hold checksums."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(record: bytes) -> bytes:
    """One record with its header and footer."""
    length = struct.pack("<Q", len(record))
    return length + _FOOTER.pack(masked_crc32c(length)) + record + _FOOTER.pack(masked_crc32c(record))


def write_records(path: pathlib.Path, records: Iterable[bytes]) -> int:
    """Writes a TFRecord file and returns the number of records.

    Raises:
      StorageError: the file cannot be written.
    """
    count = 0
    try:
        with open(path, "wb") as file:
            for record in records:
                file.write(frame(record))
                count += 1
    except OSError as error:
        raise errors.StorageError(f"Cannot write {path}: {error.strerror}") from error
    return count


def begins_file(content: bytes) -> bool:
    """Whether this is the beginning of a TFRecord file: the length of a record, and its checksum."""
    return len(content) >= _HEADER.size and _FOOTER.unpack_from(content, 8)[0] == masked_crc32c(content[:8])


def read_records(path: pathlib.Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file, one in memory at a time.

    Raises:
      StorageError: the file cannot be read, is truncated, or a checksum differs; names the record and its byte offset.
    """
    with _open(path) as file:
        for offset, length in _headers(file, path):
            record = file.read(length)
            footer = file.read(_FOOTER.size)
            if _FOOTER.unpack(footer)[0] != masked_crc32c(record):
                raise _damaged(path, offset, "the checksum of its data differs")
            yield record


def count_records(path: pathlib.Path) -> int:
    """The number of records, found by skipping from header to header; the data is neither read nor checked.

    Raises:
      StorageError: the file cannot be read, is truncated, or the checksum of a length differs.
    """
    count = 0
    with _open(path) as file:
        for _, length in _headers(file, path):
            file.seek(length + _FOOTER.size, os.SEEK_CUR)
            count += 1
    return count


def checksum(path: pathlib.Path) -> str:
    """A digest of the records' lengths and checksums, as far as the file can be read and is sound; the data is neither read nor
    checked."""
    digest = hashlib.sha256()
    # What is wrong with a file is said when its records are read.
    with contextlib.suppress(errors.StorageError), _open(path) as file:
        digest.update(str(os.fstat(file.fileno()).st_size).encode())
        for _, length in _headers(file, path):
            file.seek(length, os.SEEK_CUR)
            digest.update(_HEADER.pack(length, *_FOOTER.unpack(file.read(_FOOTER.size))))
    return digest.hexdigest()


def _open(path: pathlib.Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise errors.StorageError(f"Cannot read {path}: {error.strerror}") from error


def _headers(file: BinaryIO, path: pathlib.Path) -> Iterator[tuple[int, int]]:
    """Yields (offset of the record, length of its data); the caller consumes data and footer in between."""
    size = os.fstat(file.fileno()).st_size
    while True:
        offset = file.tell()
        header = file.read(_HEADER.size)
        if not header:
            return
        if len(header) < _HEADER.size:
            raise _damaged(path, offset, "the file ends inside its header")
        length, crc = _HEADER.unpack(header)
        if crc != masked_crc32c(header[:8]):
            raise _damaged(path, offset, "the checksum of its length differs")
        # Checked before the data is read: a length may be anything, memory is not.
        if length > size - offset - _HEADER.size - _FOOTER.size:
            raise _damaged(path, offset, f"the file ends inside its {length} bytes of data")
        yield offset, length


def _damaged(path: pathlib.Path, offset: int, what: str) -> errors.StorageError:
    return errors.StorageError(
        f"{path} is not a sound TFRecord file: record at byte {offset}: {what}.",
        next_step="Write the file again; TFRecord files must be uncompressed.",
    )
