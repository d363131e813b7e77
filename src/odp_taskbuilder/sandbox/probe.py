"""Attempts, from inside of a sandbox, what a sandbox is there to prevent."""

from __future__ import annotations

import contextlib
import mmap
import os
import pathlib
import resource
import signal
import socket
import time
from collections.abc import Callable


def attempts(port: int, outside: str, caller: int, memory_bytes: int, file_bytes: int) -> dict[str, bool]:
    """Returns, for each attempt, whether it was prevented.

    Args:
      port: where somebody listens on the loopback interface outside.
      outside: a directory outside of the scratch directory, with a file `secret`.
      caller: a process outside.
      memory_bytes, file_bytes: the limits that should hold.
    """
    return {
        "network": _is_prevented(lambda: socket.create_connection(("127.0.0.1", port), timeout=5).close()),
        "reading": _is_prevented(lambda: pathlib.Path(outside, "secret").read_bytes()),
        # Early versions of Landlock know nothing of truncation.
        "writing": _is_prevented(lambda: pathlib.Path(outside, "written").write_bytes(b""))
        and _is_prevented(lambda: os.truncate(pathlib.Path(outside, "secret"), 0)),
        "other processes": _is_prevented(lambda: os.kill(caller, 0))
        and _is_prevented(lambda: pathlib.Path(f"/proc/{caller}/cmdline").read_bytes()),
        "privileges": _is_prevented(lambda: os.chroot("/")),
        "memory": _is_prevented(lambda: mmap.mmap(-1, 2 * memory_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()),
        "file size": _is_prevented(lambda: pathlib.Path("large").write_bytes(bytes(file_bytes + 1))),
        "processor time": resource.getrlimit(resource.RLIMIT_CPU)[1] != resource.RLIM_INFINITY,
    }


def start_processes(number: int, seconds: float) -> bool:
    """Starts processes that stay for a while; returns whether that was prevented. A supervisor may end this process instead."""
    with contextlib.ExitStack() as started:
        for _ in range(number):
            try:
                pid = os.fork()
            except OSError:
                return True
            if pid == 0:
                time.sleep(seconds)
                os._exit(0)
            started.callback(os.waitpid, pid, 0)
            started.callback(os.kill, pid, signal.SIGKILL)
        time.sleep(seconds)
    return False


def _is_prevented(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (OSError, MemoryError):
        return True
    return False
