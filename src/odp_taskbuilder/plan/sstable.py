"""The table format of V1 checkpoints: sorted keys and values in checksummed blocks, written front to back.

The layout is LevelDB's: data blocks, an empty metaindex block, an index block (last key of each data block -> its place) and a footer of
fixed size. A block is a run of entries (shared key bytes, key bytes, value bytes, as varints, then the bytes), the offsets of its restart
points, their number, a compression type (0: none) and a masked CRC-32C. TensorFlow writes its tables uncompressed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import Any, Optional, Protocol

import google_crc32c

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER_BYTES = 48
TRAILER_BYTES = 5
_CRC_MASK_DELTA = 0xA282EAD8
# Entries are gathered into blocks up to this size, keys of which every 16th is stored whole, as TensorFlow does it.
_BLOCK_BYTES = 262144
_RESTART_INTERVAL = 16


def varint(value: int) -> bytes:
    """LEB128, as in protobuf."""
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def mask_crc(crc: int) -> int:
    """The form in which tables store a CRC-32C, so that a CRC over data that holds CRCs stays useful."""
    return ((crc >> 15 | crc << 17) + _CRC_MASK_DELTA) & 0xFFFFFFFF


class Writable(Protocol):
    """What a table is written to: a binary file, or what only counts."""

    def write(self, data: bytes, /) -> Any: ...


class TableWriter:
    """Writes one table to `file`. Memory: the index, and whatever chunk of a value is being added."""

    def __init__(self, file: Writable):
        self._file = file
        self._offset = 0
        self._index: list[tuple[bytes, bytes]] = []
        self._begin_block()

    def add(self, key: bytes, value_bytes: int, value: Iterable[bytes]) -> None:
        """Adds an entry. Keys must come in increasing order.

        Args:
          value_bytes: total size of `value`, which comes in chunks that are written as they arrive.
        """
        size = self._block_bytes()
        if size and size + len(key) + value_bytes >= _BLOCK_BYTES:
            self._end_data_block(next_key=key)
        self._add_entry(key, value_bytes, value, _RESTART_INTERVAL)

    def finish(self) -> None:
        """Writes what closes the table; the file stays open."""
        if self._block_bytes():
            self._end_data_block(next_key=None)
        metaindex = self._end_block()
        self._begin_block()
        for key, handle in self._index:
            self._add_entry(key, len(handle), [handle], 1)
        index = self._end_block()
        self._file.write((metaindex + index).ljust(FOOTER_BYTES - len(MAGIC), b"\0") + MAGIC)

    def _begin_block(self) -> None:
        self._block_start = self._offset
        self._crc = google_crc32c.Checksum()
        self._restarts = [0]
        self._entries = 0
        self._last_key = b""

    def _block_bytes(self) -> int:
        return self._offset - self._block_start

    def _write(self, data: bytes) -> None:
        self._crc.update(data)
        self._file.write(data)
        self._offset += len(data)

    def _add_entry(self, key: bytes, value_bytes: int, value: Iterable[bytes], restart_interval: int) -> None:
        shared = 0
        if self._entries % restart_interval == 0:
            # Restart points hold their keys whole: readers search them first.
            self._restarts[self._entries // restart_interval :] = [self._block_bytes()]
        else:
            shared = len(os.path.commonprefix([self._last_key, key]))
        self._write(varint(shared) + varint(len(key) - shared) + varint(value_bytes) + key[shared:])
        for chunk in value:
            self._write(chunk)
        self._entries += 1
        self._last_key = key

    def _end_data_block(self, next_key: Optional[bytes]) -> None:
        last_key = self._last_key
        self._index.append((_separator(last_key, next_key), self._end_block()))
        self._begin_block()

    def _end_block(self) -> bytes:
        self._write(struct.pack(f"<{len(self._restarts) + 1}I", *self._restarts, len(self._restarts)))
        start, size = self._block_start, self._block_bytes()
        self._write(b"\0")
        crc = mask_crc(int.from_bytes(self._crc.digest(), "big"))
        self._file.write(struct.pack("<I", crc))
        self._offset += 4
        return varint(start) + varint(size)


def _separator(key: bytes, next_key: Optional[bytes]) -> bytes:
    """A short key that is not before `key` and, unless it is the last one, before `next_key`."""
    shared = 0 if next_key is None else len(os.path.commonprefix([key, next_key]))
    limit = 0x100 if next_key is None or shared >= len(next_key) else next_key[shared]
    if shared < len(key) and key[shared] + 1 < limit and key[shared] != 0xFF:
        return key[:shared] + bytes([key[shared] + 1])
    return key
