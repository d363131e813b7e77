"""TFF's SQLite client data, the files that its tutorials download."""

from __future__ import annotations

import hashlib
import lzma
import pathlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from typing import Any, Optional

from odp_taskbuilder import errors
from odp_taskbuilder.base.cache import cache_directory, make_cache_directory
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
        self._num_examples: dict[str, int] = {}
        # Ids as they are stored: text, numbers or bytes.
        self._stored_ids: dict[str, Any] = {}
        for stored, count in self._query(
            "SELECT client_id, num_examples FROM client_metadata WHERE split_name IS ?", self._split
        ):
            self._add_client(stored, count)
        self.client_ids = tuple(sorted(self._num_examples))

    def num_examples(self, client_id: str) -> int:
        return self._num_examples[client_id]

    def examples(self, client_id: str) -> Iterator[bytes]:
        query = "SELECT serialized_example_proto FROM examples WHERE {} AND split_name IS ? ORDER BY rowid"
        count = 0
        for (serialized,) in self._query(query.format("client_id = ?"), self._stored_ids[client_id], self._split):
            count += 1
            yield self._checked(serialized, client_id, count)
        if count == 0 < self._num_examples[client_id]:
            # The tables store ids in different types. This reads all rows: no index knows a value by its text.
            for (serialized,) in self._query(query.format("CAST(client_id AS TEXT) = ?"), client_id, self._split):
                count += 1
                yield self._checked(serialized, client_id, count)
        if count != self._num_examples[client_id]:
            raise errors.StorageError(
                f"{self.source}: client_metadata counts {self._num_examples[client_id]} examples of client {client_id!r}, the table "
                f"examples holds {count}.",
                next_step="Write the database again.",
            )

    def fingerprint(self) -> str:
        return f"{file_checksum.file_checksum(self._path)} {self._split}"

    def _add_client(self, stored: Any, count: Any) -> None:
        client_id = stored.decode(errors="backslashreplace") if isinstance(stored, bytes) else str(stored)
        if stored is None or not client_id:
            raise errors.UsageError(f"{self.source}: a row of client_metadata names no client.")
        if client_id in self._stored_ids:
            raise errors.UsageError(
                f"{self.source}: client_metadata names client {client_id!r} twice in split {self._split!r}."
            )
        if not isinstance(count, int) or count < 0:
            raise errors.UsageError(f"{self.source}: client_metadata counts {count!r} examples of client {client_id!r}.")
        self._stored_ids[client_id] = stored
        self._num_examples[client_id] = count

    def _checked(self, serialized: Any, client_id: str, number: int) -> bytes:
        if not isinstance(serialized, bytes):
            raise errors.UsageError(
                f"Client {client_id!r}, example {number - 1} of {self.source}: expected the bytes of a tf.train.Example, found "
                f"{type(serialized).__name__}."
            )
        return serialized

    def _query(self, query: str, *values: Any) -> Iterator[tuple]:
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

    def _choose_split(self, split: Optional[str]) -> Any:
        stored = [row[0] for row in self._query("SELECT DISTINCT split_name FROM client_metadata ORDER BY split_name")]
        splits = {str(name): name for name in stored}
        if split in splits:
            return splits[split]
        if not splits:
            raise errors.UsageError(f"{self.source} holds no client: client_metadata is empty.")
        if split is None and len(stored) == 1:
            return stored[0]
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
    cache = cache_directory()
    target = cache / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.sqlite"
    if target.exists():
        return target
    temporary = None
    try:
        make_cache_directory()
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
