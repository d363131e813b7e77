"""Reads the table that a V1 checkpoint is, out of untrusted bytes. plan/sstable.py describes the format, and writes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import google_crc32c

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import wire
from odp_taskbuilder.plan.sstable import FOOTER_BYTES, MAGIC, TRAILER_BYTES, mask_crc

_UNCOMPRESSED = 0
_MAX_KEY_BYTES = 1 << 16
_MAX_INDEX_BYTES = 16 << 20
_MAX_ENTRIES = 50_000
_CHUNK_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Entry:
    """A key with the range of its value in the file."""

    key: bytes
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class _Block:
    """The range of a block, without its trailer."""

    start: int
    end: int


class Table:
    """The entries of one table file, in key order. Values are ranges of the file and are not read.

    Raises ArtifactError where the file is not such a table.
    """

    def __init__(self, source: wire.Source, what: str):
        self._source = source
        self._what = what
        footer = len(source) - FOOTER_BYTES
        if footer < 0 or source[footer + FOOTER_BYTES - len(MAGIC) :] != MAGIC:
            raise errors.ArtifactError(f"{what} is no V1 checkpoint: it does not end as a table does")
        _, position = self._handle(footer, footer + FOOTER_BYTES)
        index, _ = self._handle(position, footer + FOOTER_BYTES)
        if index.end - index.start > _MAX_INDEX_BYTES:
            raise self._corrupt("its index is too large")
        self._check(index)
        self.blocks: list[Any] = []
        for entry in self._entries(index):
            block, _ = self._handle(entry.start, entry.end)
            # Ascending and disjoint: nothing is read twice.
            if block.start < (self.blocks[-1].end + TRAILER_BYTES if self.blocks else 0):
                raise self._corrupt("its blocks overlap")
            self.blocks.append(block)

    def entries(self) -> Iterator[Entry]:
        """All entries. The blocks' checksums are not looked at: see `check`."""
        for block in self.blocks:
            yield from self._entries(block)

    def check(self) -> None:
        """Reads the whole file and compares every block with its checksum. Raises ArtifactError."""
        for block in self.blocks:
            self._check(block)

    def _check(self, block: _Block) -> None:
        checksum = google_crc32c.Checksum()
        covered = block.end + 1  # The type byte is under the checksum too.
        for start in range(block.start, covered, _CHUNK_BYTES):
            checksum.update(self._source[start : min(start + _CHUNK_BYTES, covered)])
        stored = int.from_bytes(self._source[covered : covered + 4], "little")
        if stored != mask_crc(int.from_bytes(checksum.digest(), "big")):
            raise self._corrupt(f"the block at byte {block.start} does not have its checksum")

    def _handle(self, position: int, end: int) -> tuple[_Block, int]:
        start, position = wire.varint(self._source, position, end, self._what)
        size, position = wire.varint(self._source, position, end, self._what)
        block = _Block(start, start + size)
        if block.end + TRAILER_BYTES > len(self._source) - FOOTER_BYTES:
            raise self._corrupt(f"a block of {size} bytes at byte {start} goes beyond its end")
        kind = self._source[block.end : block.end + 1][0]
        if kind != _UNCOMPRESSED:
            raise errors.ArtifactError(
                f"{self._what}: the block at byte {start} has compression type {kind}; checkpoints are not compressed"
            )
        return block, position

    def _entries(self, block: _Block) -> Iterator[Entry]:
        restarts = int.from_bytes(self._source[max(block.start, block.end - 4) : block.end], "little")
        end = block.end - 4 * (restarts + 1)
        if end < block.start:
            raise self._corrupt(f"the block at byte {block.start} has {restarts} restart points")
        position, key = block.start, b""
        for entries in range(_MAX_ENTRIES):
            if position >= end:
                return
            shared, position = wire.varint(self._source, position, end, self._what)
            rest, position = wire.varint(self._source, position, end, self._what)
            length, position = wire.varint(self._source, position, end, self._what)
            if shared > len(key) or shared + rest > _MAX_KEY_BYTES or position + rest + length > end:
                raise self._corrupt(f"the entry at byte {position} goes beyond its block")
            previous, key = key, key[:shared] + self._source[position : position + rest]
            if entries and previous >= key:
                raise self._corrupt(f"the keys of the block at byte {block.start} are not in order")
            position += rest + length
            yield Entry(key, position - length, position)
        raise self._corrupt(f"a block has more than {_MAX_ENTRIES} entries")

    def _corrupt(self, reason: str) -> errors.ArtifactError:
        return errors.ArtifactError(f"{self._what} is corrupt: {reason}")
