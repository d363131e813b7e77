"""Directories that do not pile up: each is locked while its owner lives; one that nobody locks was left by a process that was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Callable, Optional

from odp_taskbuilder import errors


@contextlib.contextmanager
def private_directory(
    parent: Optional[pathlib.Path], prefix: str, is_spared: Callable[[pathlib.Path], bool] = lambda path: False
) -> Iterator[pathlib.Path]:
    """A directory that only this user can enter, removed at the end.

    Args:
      parent: None takes the system's directory for temporary files.
      prefix: of its name; abandoned directories of this prefix there are removed first.
      is_spared: whether an abandoned directory is to stay.

    Raises:
      OSError: it cannot be made.
    """
    parent = parent or pathlib.Path(tempfile.gettempdir())
    for path in parent.glob(f"{prefix}*"):
        with abandoned(path) as is_abandoned, contextlib.suppress(OSError):
            if is_abandoned and not is_spared(path):
                shutil.rmtree(path)
    with locked_directory(parent, prefix) as path:
        yield path


@contextlib.contextmanager
def locked_directory(parent: pathlib.Path, prefix: str) -> Iterator[pathlib.Path]:
    """The same without removing those that are abandoned."""
    path, lock = make_locked(parent, prefix)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def make_locked(parent: pathlib.Path, prefix: str) -> tuple[pathlib.Path, int]:
    """Makes a directory that only this user can enter; returns it with the descriptor that locks it until it is closed.

    Raises:
      OSError: it cannot be made.
    """
    while True:
        path = tempfile.mkdtemp(prefix=prefix, dir=parent)
        # Another process may have taken it for abandoned, before it was opened or before it was locked.
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.isdir(path):
            return pathlib.Path(path), lock
        os.close(lock)


@contextlib.contextmanager
def abandoned(path: pathlib.Path) -> Iterator[bool]:
    """Whether a directory is this user's, and nobody locks it; if so it is locked meanwhile."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_free = os.fstat(lock).st_uid == os.geteuid()
        except BlockingIOError:
            is_free = False
        yield is_free
    finally:
        os.close(lock)


def require_temporary_space(num_bytes: int) -> None:
    """Raises errors.StorageError where the directory for temporary files has less room than that."""
    directory = tempfile.gettempdir()
    free = shutil.disk_usage(directory).free
    if free < num_bytes:
        raise errors.StorageError(
            f"The temporary directory {directory} has {free:,} bytes left; a build takes up to {num_bytes:,}.",
            next_step="Make room there, or name another one: TMPDIR=/path odp-task build ...",
        )
