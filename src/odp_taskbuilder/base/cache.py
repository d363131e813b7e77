"""Where files are kept that can be made again."""

from __future__ import annotations

import os
import pathlib
import tempfile


def cache_directory() -> pathlib.Path:
    """`odp-task` in $XDG_CACHE_HOME or ~/.cache; it need not exist. A user without a home (a container's, often) gets a directory of
    its own among the temporary files."""
    root = os.environ.get("XDG_CACHE_HOME")
    if root and os.path.isabs(root):
        return pathlib.Path(root, "odp-task")
    home = os.path.expanduser("~")
    if os.path.isabs(home) and os.access(home, os.W_OK | os.X_OK):
        return pathlib.Path(home, ".cache", "odp-task")
    return pathlib.Path(tempfile.gettempdir(), f"odp-task-cache-{os.getuid()}")


def make_cache_directory() -> pathlib.Path:
    """Makes `cache_directory`, readable by this user only.

    Raises:
      OSError: it cannot be made, or among the temporary files somebody else has made it.
    """
    path = cache_directory()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to another user")
    return path
