"""TFF's SQLite client data, the files that its tutorials download."""

from __future__ import annotations

import hashlib
import lzma
import os
import pathlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from typing import Optional

from odp_taskbuilder import errors
from odp_taskbuilder.data import file_checksum
from odp_taskbuilder.data.client_data import ClientData

MAGIC = b"SQLite format 3\x00"
# An .xz file, and the older .lzma, which is what TFF publishes.
LZMA_MAGICS = (b"\xfd7zXZ\x00", b"\x5d\x00\x00")

_COLUMNS = {
    "examples": {"split_name", "client_id", "serialized_example_proto"},
    "client_metadata": {"client_id", "split_name", "num_examples"},
}


class SqliteClientData(ClientData):
    """A database with these tables, one split of it (the schema is that of `tff.simulation.datasets`):

        CREATE TABLE examples (split_name TEXT, client_id TEXT, serialized_example_proto BLOB)
        CREATE TABLE client_metadata (client_id TEXT, split_name TEXT, num_examples INTEGER)

    Opening reads client_metadata. `examples` reads the client's rows; that is random access where the database has an index on
    client_id, as TFF's files have, and a scan of the table otherwise.
    """

    def __init__(self, path: pathlib.Path, split: Optional[str] = None):
        """Opens a database read-only.

        Args:
          path: the database, or an .lzma or .xz of it, which is unpacked into the user's cache directory the first time.
          split: value of split_name; may be left out when there is only one.

        Raises:
          StorageError: the file cannot be read or unpacked.
          UsageError: the tables are not there, or the split is not.
        """
        self.source = str(path)
        if _starts_with(path, LZMA_MAGICS):
            path = _unpacked(path)
        self._path = path
        self._connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        self._check_tables()
        self._split = self._choose_split(split)
        rows = self._query("SELECT client_id, num_examples FROM client_metadata WHERE split_name = ?", self._split)
        self._num_examples = {str(client_id): int(count) for client_id, count in rows}
        self.client_ids = tuple(sorted(self._num_examples))

    def num_examples(self, client_id: str) -> int:
        return self._num_examples[client_id]

    def examples(self, client_id: str) -> Iterator[bytes]:
        query = "SELECT serialized_example_proto FROM examples WHERE client_id = ? AND split_name = ? ORDER BY rowid"
        for (serialized,) in self._query(query, client_id, self._split):
            yield serialized

    def fingerprint(self) -> str:
        return f"{file_checksum.file_checksum(self._path)} {self._split}"

    def _query(self, query: str, *values: str) -> Iterator[tuple]:
        try:
            yield from self._connection.execute(query, values)
        except sqlite3.Error as error:
            raise errors.StorageError(f"Cannot read {self.source}: {error}.") from error

    def _check_tables(self) -> None:
        for table, wanted in _COLUMNS.items():
            missing = wanted - {row[1] for row in self._query(f"PRAGMA table_info({table})")}
            if missing:
                raise errors.UsageError(
                    f"{self.source} is no client data of TFF: table {table!r} lacks {', '.join(sorted(missing))}.",
                    next_step="Expected the tables `examples` and `client_metadata` of tff.simulation.datasets.",
                )

    def _choose_split(self, split: Optional[str]) -> str:
        splits = [row[0] for row in self._query("SELECT DISTINCT split_name FROM client_metadata ORDER BY split_name")]
        if split in splits:
            return split
        if split is None and len(splits) == 1:
            return splits[0]
        # TFF takes all splits when none is named; its EMNIST file then holds the same examples twice.
        found = "no split is named" if split is None else f"there is no split {split!r}"
        raise errors.UsageError(f"{self.source}: {found}.", next_step=f"Append ?split=NAME with one of: {', '.join(splits)}.")


def _starts_with(path: pathlib.Path, magics: tuple[bytes, ...]) -> bool:
    with open(path, "rb") as file:
        return file.read(max(map(len, magics))).startswith(magics)


def _unpacked(path: pathlib.Path) -> pathlib.Path:
    """The unpacked copy of a compressed file, made once for each version of it."""
    status = path.stat()
    identity = f"{path.resolve()}\n{status.st_size}\n{status.st_mtime_ns}"
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "odp-task"
    target = cache / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.sqlite"
    if target.exists():
        return target
    temporary = None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with lzma.open(path) as packed, tempfile.NamedTemporaryFile(dir=cache, delete=False) as file:
            temporary = pathlib.Path(file.name)
            shutil.copyfileobj(packed, file)
        temporary.replace(target)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise errors.StorageError(f"Cannot unpack {path} into {cache}: {error}.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return target
