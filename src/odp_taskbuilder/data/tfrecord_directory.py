"""A directory of TFRecord files, one a client."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Iterator

from odp_taskbuilder import errors
from odp_taskbuilder.data import tfrecord
from odp_taskbuilder.data.client_data import ClientData

SUFFIXES = (".tfrecord", ".tfrecords")


class TfRecordDirectory(ClientData):
    """One `.tfrecord` or `.tfrecords` file a client; the file name without the suffix is the client id.

    Opening lists the directory. `num_examples` reads the client's record headers, `examples` streams the file.
    """

    def __init__(self, path: pathlib.Path):
        """Opens a directory, or a single file as the data of one client.

        Raises:
          StorageError: the directory cannot be listed.
          UsageError: it holds no TFRecord file, or two for one client.
        """
        self.source = str(path)
        self._files = _files_by_client(path)
        self.client_ids = tuple(sorted(self._files))

    def num_examples(self, client_id: str) -> int:
        return tfrecord.count_records(self._files[client_id])

    def examples(self, client_id: str) -> Iterator[bytes]:
        return tfrecord.read_records(self._files[client_id])

    def fingerprint(self) -> str:
        """From the lengths and checksums of the records; the data itself is not read."""
        digest = hashlib.sha256()
        for client_id, path in sorted(self._files.items()):
            digest.update(repr((client_id, tfrecord.checksum(path))).encode())
        return digest.hexdigest()

    def location(self, client_id: str) -> str:
        return str(self._files[client_id])


def _files_by_client(path: pathlib.Path) -> dict[str, pathlib.Path]:
    try:
        entries = sorted(path.iterdir()) if path.is_dir() else [path]
    except OSError as error:
        raise errors.StorageError(f"Cannot list {path}: {error.strerror}") from error
    files: dict[str, pathlib.Path] = {}
    for entry in entries:
        if entry.suffix in SUFFIXES and entry.is_file():
            if entry.stem in files:
                raise errors.UsageError(f"Two files for client {entry.stem!r}: {files[entry.stem]} and {entry}.")
            files[entry.stem] = entry
    if not files:
        inner = [
            entry.name for entry in entries if entry.is_dir() and any(child.suffix in SUFFIXES for child in entry.iterdir())
        ]
        raise errors.UsageError(
            f"{path} holds no TFRecord file; expected one CLIENT.tfrecord per client.",
            next_step=f"Name a directory inside it: {', '.join(inner)}." if inner else None,
        )
    return files
