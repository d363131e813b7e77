"""Checksums of whole files of data."""

from __future__ import annotations

import pathlib

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import manifest


def file_checksum(path: pathlib.Path) -> str:
    """SHA-256 of a file, read once.

    Raises:
      StorageError: it cannot be read.
    """
    try:
        return manifest.digest_file(path).sha256
    except OSError as error:
        raise errors.StorageError(f"Cannot read {path}: {error.strerror}") from error
