"""Checksums of whole files of data."""

from __future__ import annotations

import pathlib

import google_crc32c

from odp_taskbuilder import errors

_CHUNK_BYTES = 1 << 20


def file_checksum(path: pathlib.Path) -> str:
    """Size and CRC32C of a file, read once: about a second for each gigabyte or two.

    Raises:
      StorageError: it cannot be read.
    """
    checksum, size = google_crc32c.Checksum(), 0
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                checksum.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise errors.StorageError(f"Cannot read {path}: {error.strerror}") from error
    return f"{size} {checksum.digest().hex()}"
