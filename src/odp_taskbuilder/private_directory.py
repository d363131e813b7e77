"""Temporary directories that do not pile up: each is locked while its owner lives, and the next one removes those that killed
processes left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Optional


@contextlib.contextmanager
def private_directory(parent: Optional[pathlib.Path], prefix: str) -> Iterator[pathlib.Path]:
    """A directory that only this user can enter, removed at the end.

    Args:
      parent: None takes the system's directory for temporary files.
      prefix: of its name; directories of this prefix there are removed first, where nobody locks them.

    Raises:
      OSError: it cannot be made.
    """
    parent = parent or pathlib.Path(tempfile.gettempdir())
    for abandoned in parent.glob(f"{prefix}*"):
        _remove_unless_locked(abandoned)
    path, lock = _make_locked(parent, prefix)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _make_locked(parent: pathlib.Path, prefix: str) -> tuple[pathlib.Path, int]:
    while True:
        path = tempfile.mkdtemp(prefix=prefix, dir=parent)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Another process may have taken it for abandoned before it was locked.
        if os.path.isdir(path):
            return pathlib.Path(path), lock
        os.close(lock)


def _remove_unless_locked(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError):  # Locked, of another user, or already gone.
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_uid == os.geteuid():
                shutil.rmtree(path)
        finally:
            os.close(lock)
