"""The interface of a store."""

from __future__ import annotations

import dataclasses
import enum
import pathlib
from typing import Callable, Optional, Protocol

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import manifest

# Called with the number of bytes sent so far.
OnProgress = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class StoredObject:
    """One object.

    Attributes:
      url: where it is.
      size: in bytes, as stored.
      generation: the version of the object; None where there are no versions.
      crc32c: of the bytes as stored, in base64 as Cloud Storage writes it; None where only reading the object would tell.
      gzipped: the store holds a gzip stream, and readers are meant to get what is inside. The task server compresses artifacts
        in place some time after they were uploaded.
    """

    url: str
    size: int
    generation: Optional[int] = None
    crc32c: Optional[str] = None
    gzipped: bool = False


@dataclasses.dataclass(frozen=True)
class TreeLimits:
    """How much a tree may hold. The defaults suit a SavedModel, which has a few dozen files."""

    max_files: int = 1000
    max_bytes: int = 8 << 30

    def check(self, tree: str, num_files: int, num_bytes: int) -> None:
        """Raises errors.StorageError if `tree` holds more."""
        if num_files > self.max_files:
            raise errors.StorageError(f"{tree} holds more than {self.max_files} files.")
        if num_bytes > self.max_bytes:
            raise errors.StorageError(f"{tree} holds more than {self.max_bytes} bytes.")


class Outcome(enum.Enum):
    """What writing an object came to."""

    WRITTEN = "written"
    IDENTICAL = "identical"  # The very bytes were there already.
    REPLACED = "replaced"


class Store(Protocol):
    """One kind of place. URLs are gs://bucket/object, file:///path or local paths, whichever the store is for.

    Every method raises errors.StorageError when the place cannot be reached, or refuses.
    """

    def stat(self, url: str) -> Optional[StoredObject]:
        """Describes an object; None if there is none."""

    def read(self, url: str, max_bytes: int) -> bytes:
        """Returns the (decompressed) content of an object of at most `max_bytes`."""

    def list(self, url: str, limits: TreeLimits) -> dict[str, StoredObject]:
        """Everything below `url`, by name relative to it."""

    def download_tree(self, url: str, target: pathlib.Path, limits: TreeLimits) -> None:
        """Copies everything below `url` into `target`, a directory that does not exist yet.

        Nothing is written outside `target`. What arrives existed together: an object that changes meanwhile is an error.
        """

    def write(
        self, url: str, source: pathlib.Path, *, overwrite: bool = False, on_progress: Optional[OnProgress] = None
    ) -> Outcome:
        """Stores the file `source` at `url`, whole or not at all, and makes sure that it arrived.

        An object with the same content is left alone; one with other content is an error unless `overwrite`.
        """


def digest(source: pathlib.Path) -> manifest.FileDigest:
    """Digests a file that is to be stored.

    Raises:
      errors.StorageError: it cannot be read.
    """
    try:
        return manifest.digest_file(source)
    except OSError as error:
        raise errors.StorageError(f"Cannot read {source}: {error.strerror or error}.") from error


def other_content_error(url: str) -> errors.StorageError:
    """An object stands where another one was to be written."""
    return errors.StorageError(
        f"{url} exists already, with other content.",
        next_step="Write to another place, or replace it with --overwrite.",
    )


def changed_error(url: str) -> errors.StorageError:
    """What was read does not belong together."""
    return errors.StorageError(f"{url} changed while it was read.", next_step="Run the command again when nobody writes there.")
