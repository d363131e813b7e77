"""Directories as a store."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
import shutil
import stat
from collections.abc import Iterator
from typing import BinaryIO, NoReturn, Optional

from odp_taskbuilder import errors
from odp_taskbuilder.stores import base, urls

_CHUNK_BYTES = 1 << 20


class LocalStore:
    """Files, by path or file:// URL."""

    def stat(self, url: str) -> Optional[base.StoredObject]:
        path = _path(url)
        with _storage_errors("look at", path):
            try:
                with _open_regular(path) as file:
                    return base.StoredObject(url, os.fstat(file.fileno()).st_size)
            except FileNotFoundError:
                return None

    def read(self, url: str, max_bytes: int) -> bytes:
        path = _path(url)
        with _storage_errors("read", path), _open_regular(path) as file:
            content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise errors.StorageError(f"{path} is larger than the {max_bytes} bytes that are read of such a file.")
        return content

    def list(self, url: str, limits: base.TreeLimits) -> dict[str, base.StoredObject]:
        """Everything below a directory; symbolic links are refused, since they may lead anywhere."""
        root = _path(url)
        stored: dict[str, base.StoredObject] = {}
        num_bytes = 0
        with _storage_errors("read", root):
            for directory, subdirectories, names in os.walk(root, onerror=_raise):
                for name in subdirectories:
                    if os.path.islink(os.path.join(directory, name)):
                        raise _unfit(pathlib.Path(directory, name), "a symbolic link")
                for name in names:
                    path = pathlib.Path(directory, name)
                    with _open_regular(path, os.O_NOFOLLOW) as file:
                        size = os.fstat(file.fileno()).st_size
                    stored[path.relative_to(root).as_posix()] = base.StoredObject(str(path), size)
                    num_bytes += size
                    limits.check(url, len(stored), num_bytes)
        return stored

    def download_tree(self, url: str, target: pathlib.Path, limits: base.TreeLimits) -> None:
        stored = self.list(url, limits)
        if not stored:
            raise errors.StorageError(f"There are no files in {url}.")
        for name, info in stored.items():
            copy = target / name
            with _storage_errors("write", copy):
                copy.parent.mkdir(parents=True, exist_ok=True)
            with _storage_errors("read", pathlib.Path(info.url)), _open_regular(pathlib.Path(info.url), os.O_NOFOLLOW) as file:
                _copy_exactly(file, copy, info)

    def write(
        self, url: str, source: pathlib.Path, *, overwrite: bool = False, on_progress: Optional[base.OnProgress] = None
    ) -> base.Outcome:
        path = _path(url)
        stored = self.stat(url)
        if stored is not None:
            if base.digest(path) == base.digest(source):
                return base.Outcome.IDENTICAL
            if not overwrite:
                raise base.other_content_error(url)
        with _storage_errors("write", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _put(path, source, overwrite)
        if on_progress is not None:
            on_progress(source.stat().st_size)
        return base.Outcome.WRITTEN if stored is None else base.Outcome.REPLACED


def _copy_exactly(file: BinaryIO, copy: pathlib.Path, info: base.StoredObject) -> None:
    """Copies a file of the size that was counted; one that grows meanwhile is copied no further."""
    missing = info.size
    with open(copy, "xb") as target:
        while missing and (chunk := file.read(min(missing, _CHUNK_BYTES))):
            target.write(chunk)
            missing -= len(chunk)
    if missing or file.read(1):
        raise base.changed_error(info.url)


def _put(path: pathlib.Path, source: pathlib.Path, overwrite: bool) -> None:
    """Writes beside the destination, then gives the finished file its name."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(unfinished, "xb") as file, open(source, "rb") as content:
            shutil.copyfileobj(content, file, _CHUNK_BYTES)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            os.replace(unfinished, path)
        else:
            # Unlike a rename, a link fails if another writer was faster.
            os.link(unfinished, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextlib.contextmanager
def _open_regular(path: pathlib.Path, flags: int = 0) -> Iterator[BinaryIO]:
    """Opens a file that is one: a pipe would block, a device would never end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags)
    except OSError:
        if path.is_symlink() and flags & os.O_NOFOLLOW:
            raise _unfit(path, "a symbolic link") from None
        raise
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _unfit(path, "not a regular file")
        yield file


@contextlib.contextmanager
def _storage_errors(action: str, path: pathlib.Path) -> Iterator[None]:
    """Turns the operating system's errors into ours."""
    try:
        yield
    except OSError as error:
        raise errors.StorageError(f"Cannot {action} {path}: {error.strerror or error}.") from error


def _unfit(path: pathlib.Path, what: str) -> errors.StorageError:
    return errors.StorageError(f"{path} is {what}.", next_step="Only regular files are read.")


def _raise(error: OSError) -> NoReturn:
    raise error


def _path(url: str) -> pathlib.Path:
    place = urls.parse(url)
    assert isinstance(place, pathlib.Path)  # open_store gives bucket URLs to another store.
    return place
