"""Cloud Storage buckets as a store, through Google's client, which obeys STORAGE_EMULATOR_HOST.

What the client leaves open is settled here: no upload without a generation precondition, which also makes repeating it safe;
checksums go with the object, so that the server refuses what was damaged on the way; whatever an upload was answered, only what
is stored afterwards counts.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import pathlib
import tempfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Optional

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import manifest
from odp_taskbuilder.stores import base, gcs_client, urls
from odp_taskbuilder.transport import deadline as deadlines

# The client sends files up to 8 MiB in one request, and larger ones in chunks of this size: a lost connection costs one chunk.
_UPLOAD_CHUNK_BYTES = 8 << 20
_COPY_BYTES = 1 << 20
_GZIP_HEADER_BYTES = 1024


class BucketStore:
    """Objects in buckets, as gs:// URLs."""

    def __init__(self, network: deadlines.Network, deadline: deadlines.Deadline):
        """Finds the credentials.

        Raises:
          errors.StorageError: there are none, and no emulator either.
        """
        self._network = network
        self._deadline = deadline
        self._client = gcs_client.new_client(network, deadline)

    def stat(self, url: str) -> Optional[base.StoredObject]:
        place = _bucket_place(url)
        blob = self._client.bucket(place.bucket).blob(place.name)

        def attempt() -> Optional[base.StoredObject]:
            try:
                blob.reload(timeout=self._timeout(), retry=self._retry())
            except gcs_client.not_found():
                return None
            return _describe(blob)

        with gcs_client.storage_errors("look at", url):
            return deadlines.repeat(attempt, gcs_client.is_damaged_answer, self._network, self._deadline)

    def read(self, url: str, max_bytes: int) -> bytes:
        stored = self.stat(url)
        if stored is None:
            raise errors.StorageError(f"There is no object {url}.")
        # What does not compress grows by a header and by five bytes for each block.
        if stored.size > max_bytes + (_GZIP_HEADER_BYTES + max_bytes // 1000 if stored.gzipped else 0):
            raise errors.StorageError(f"{url} is larger than the {max_bytes} bytes that are read of such an object.")
        with gcs_client.storage_errors("read", url), self._content(stored, max_bytes) as path:
            return path.read_bytes()

    def list(self, url: str, limits: base.TreeLimits) -> dict[str, base.StoredObject]:
        """The objects below `url`; `models/m` does not take in `models/m_other`."""
        place = _bucket_place(url)
        prefix = f"{place.name}/" if place.name else ""

        def attempt() -> dict[str, base.StoredObject]:
            stored: dict[str, base.StoredObject] = {}
            num_bytes = 0
            blobs = self._client.list_blobs(
                place.bucket,
                prefix=prefix,
                max_results=limits.max_files + 1,
                timeout=self._timeout(),
                retry=self._retry(),
            )
            for blob in blobs:
                if blob.name.endswith("/") and not blob.size:
                    continue  # What consoles write to show a folder.
                info = _describe(blob)
                num_bytes += info.size
                stored[blob.name[len(prefix) :]] = info
                limits.check(url, len(stored), num_bytes)
            return stored

        with gcs_client.storage_errors("list", url):
            return deadlines.repeat(attempt, gcs_client.is_damaged_answer, self._network, self._deadline)

    def download_tree(self, url: str, target: pathlib.Path, limits: base.TreeLimits) -> None:
        stored = self.list(url, limits)
        files = {urls.tree_parts(name, url): info for name, info in stored.items()}
        if not files:
            raise errors.StorageError(f"There are no objects below {url}.", next_step="Check the bucket and the path.")
        with gcs_client.storage_errors("copy", url):
            target.mkdir(parents=True)
            for parts, info in files.items():
                path = target.joinpath(*parts)
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with self._content(info, limits.max_bytes, near=target.parent) as content:
                        os.replace(content, path)
                except (FileExistsError, NotADirectoryError, IsADirectoryError):
                    raise errors.StorageError(f"{url} holds an object and a directory of the same name: {info.url}.") from None
        # Single objects are pinned to their generation; that they belong to each other shows only afterwards.
        if self.list(url, limits) != stored:
            raise base.changed_error(url)

    def write(
        self, url: str, source: pathlib.Path, *, overwrite: bool = False, on_progress: Optional[base.OnProgress] = None
    ) -> base.Outcome:
        ours = base.digest(source)
        stored = self.stat(url)
        if stored is not None:
            # Comparing may need room in the temporary directory.
            with gcs_client.storage_errors("compare with", url):
                if self._holds(stored, ours):
                    return base.Outcome.IDENTICAL
            if not overwrite:
                raise base.other_content_error(url)
        generation = 0 if stored is None else stored.generation

        def attempt() -> None:
            self._upload(url, source, ours, generation, on_progress)

        with gcs_client.storage_errors("upload to", url):
            deadlines.repeat(attempt, gcs_client.is_worth_another_upload, self._network, self._deadline)
        return base.Outcome.WRITTEN if stored is None else base.Outcome.REPLACED

    def _upload(
        self,
        url: str,
        source: pathlib.Path,
        ours: manifest.FileDigest,
        generation: Optional[int],
        on_progress: Optional[base.OnProgress],
    ) -> None:
        """Uploads once; returns when the object is there, however the upload was answered."""
        place = _bucket_place(url)
        blob = self._client.bucket(place.bucket).blob(place.name)
        blob.chunk_size = _UPLOAD_CHUNK_BYTES
        blob.crc32c = ours.crc32c
        try:
            with open(source, "rb") as file:
                blob.upload_from_file(
                    _Watched(file, on_progress),
                    size=ours.size,
                    content_type="application/octet-stream",
                    if_generation_match=generation,
                    # The client's own check of a chunked upload deletes the object when the answer, not the object, is damaged.
                    checksum=None,
                    timeout=self._timeout(),
                    retry=self._retry(),
                )
            failure: Exception = ValueError("the upload was confirmed, and another object is there, or none")
        except Exception as error:  # Answers may be damaged in any way; what is stored decides.
            failure = error
        with contextlib.suppress(errors.StorageError):
            stored = self.stat(url)
            if stored is not None and self._holds(stored, ours):
                return
        raise failure

    def _holds(self, stored: base.StoredObject, ours: manifest.FileDigest) -> bool:
        """Whether the object has our content; one that the task server has compressed is read for that."""
        if not stored.gzipped:
            return (stored.size, stored.crc32c) == (ours.size, ours.crc32c)
        try:
            with self._content(stored, ours.size) as path:
                return manifest.digest_file(path) == ours
        except _UnpacksToMore:
            return False

    @contextlib.contextmanager
    def _content(
        self, stored: base.StoredObject, max_bytes: int, near: Optional[pathlib.Path] = None
    ) -> Iterator[pathlib.Path]:
        """A temporary file with the (decompressed) content of the very generation that `stored` describes."""
        with tempfile.TemporaryDirectory(prefix=".odp-task-", dir=near) as scratch:
            path = pathlib.Path(scratch, "content")
            self._download(stored, path)
            if stored.gzipped:
                path = _unpack(path, pathlib.Path(scratch, "unpacked"), stored.url, max_bytes)
            yield path

    def _download(self, stored: base.StoredObject, path: pathlib.Path) -> None:
        """Brings the bytes as they are stored."""
        place = _bucket_place(stored.url)
        blob = self._client.bucket(place.bucket).blob(place.name, generation=stored.generation)

        def attempt() -> None:
            with open(path, "wb") as file:
                blob.download_to_file(
                    _Bounded(file, stored.size),
                    raw_download=True,
                    checksum="crc32c",
                    timeout=self._timeout(),
                    retry=self._retry(),
                )
            digest = manifest.digest_file(path)
            if (digest.size, digest.crc32c) != (stored.size, stored.crc32c):
                raise gcs_client.DamagedDownload(f"{digest.size} bytes with checksum {digest.crc32c} arrived")

        with gcs_client.storage_errors("read", stored.url):
            try:
                deadlines.repeat(attempt, gcs_client.is_worth_another_download, self._network, self._deadline)
            except gcs_client.not_found():
                raise base.changed_error(stored.url) from None

    def _timeout(self) -> tuple[float, float]:
        return (self._network.connect_timeout, self._network.silence)

    def _retry(self) -> Any:
        """The client's rules of what may be repeated, with our patience."""
        from google.cloud.storage.retry import DEFAULT_RETRY

        network = self._network
        return DEFAULT_RETRY.with_delay(network.first_pause, network.longest_pause, 2.0).with_timeout(
            min(network.retry_for, self._deadline.remaining())
        )


class _UnpacksToMore(errors.StorageError):
    """A compressed object with more in it than is taken."""


class _Bounded:
    """A file for the client to download into, that takes no more than it should."""

    def __init__(self, file: BinaryIO, max_bytes: int):
        self._file = file
        self._max_bytes = max_bytes

    def write(self, data: bytes) -> int:
        if self._file.tell() + len(data) > self._max_bytes:
            raise gcs_client.DamagedDownload(f"more than {self._max_bytes} bytes arrived")
        return self._file.write(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class _Watched:
    """A file for the client to upload from, that tells how far it got."""

    def __init__(self, file: BinaryIO, on_progress: Optional[base.OnProgress]):
        self._file = file
        self._on_progress = on_progress

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        if self._on_progress is not None:
            self._on_progress(self._file.tell())
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _bucket_place(url: str) -> urls.BucketPlace:
    place = urls.parse(url)
    assert isinstance(place, urls.BucketPlace)  # open_store gives paths to another store.
    return place


def _describe(blob: Any) -> base.StoredObject:
    return base.StoredObject(
        url=f"gs://{blob.bucket.name}/{blob.name}",
        size=blob.size or 0,
        crc32c=blob.crc32c or "",
        generation=blob.generation,
        gzipped=blob.content_encoding == "gzip",
    )


def _unpack(packed: pathlib.Path, target: pathlib.Path, url: str, max_bytes: int) -> pathlib.Path:
    """Decompresses at most `max_bytes`, so that what unpacks without end does not fill the disk; returns `target`."""
    num_bytes = 0
    try:
        with gzip.open(packed) as source, open(target, "wb") as unpacked:
            while chunk := source.read(_COPY_BYTES):
                num_bytes += len(chunk)
                if num_bytes > max_bytes:
                    raise _UnpacksToMore(f"{url} unpacks to more than {max_bytes} bytes.")
                unpacked.write(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise errors.StorageError(f"{url} says that it is gzip, and is not: {error}.") from error
    return target
