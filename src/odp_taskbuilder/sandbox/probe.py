"""Attempts, from inside of a sandbox, what a sandbox is there to prevent."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import mmap
import os
import pathlib
import resource
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from odp_taskbuilder.sandbox import confine, kernel

# Families of sockets that lead out of every network namespace, or into the kernel: VSOCK, NETLINK, PACKET, ALG.
_OTHER_FAMILIES = (40, 16, 17, 38)


def attempts(port: int, outside: str, caller: int, key: str, memory_bytes: int, file_bytes: int) -> dict[str, Any]:
    """Returns, for each attempt, whether it was prevented, and as `granted` what mechanisms this process is under.

    Args:
      port: where somebody listens on the loopback interface outside, for connections and for datagrams.
      outside: a directory outside of the scratch directory, with a file `secret`, and `socket` at which somebody listens.
      caller: a process outside.
      key: description of a key in the session keyring of the caller.
      memory_bytes, file_bytes: the limits that should hold.
    """
    secret = pathlib.Path(outside, "secret")
    # Whether it has arrived, only those outside can tell.
    _is_prevented(lambda: _send_datagram(port))
    return {
        "network": _is_prevented(lambda: socket.create_connection(("127.0.0.1", port), timeout=5).close()),
        "other sockets": _is_prevented(lambda: _connect_unix(f"{outside}/socket"))
        and all(_is_prevented(functools.partial(_open_socket, family)) for family in _OTHER_FAMILIES),
        "reading": _is_prevented(lambda: secret.read_bytes()),
        # Early versions of Landlock know nothing of truncation.
        "writing": _is_prevented(lambda: pathlib.Path(outside, "written").write_bytes(b""))
        and _is_prevented(lambda: os.truncate(secret, 0)),
        "metadata": _is_prevented(lambda: os.chmod(secret, 0o600))
        and _is_prevented(lambda: os.utime(secret, (1, 1)))
        and _is_prevented(lambda: os.setxattr(secret, "user.odp_task", b"1")),
        "keys": _is_prevented(lambda: kernel.find_session_key(key)),
        "other processes": _is_prevented(lambda: os.kill(caller, 0))
        and _is_prevented(lambda: pathlib.Path(f"/proc/{caller}/cmdline").read_bytes()),
        "privileges": _is_prevented(lambda: os.chroot("/")),
        "memory": _is_prevented(lambda: mmap.mmap(-1, 2 * memory_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()),
        "file size": _is_prevented(lambda: pathlib.Path("large").write_bytes(bytes(file_bytes + 1))),
        "processor time": resource.getrlimit(resource.RLIMIT_CPU)[1] != resource.RLIM_INFINITY,
        "granted": dataclasses.asdict(confine.granted),
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


def fill_shared_memory(size: int, seconds: float) -> bool:
    """Fills memory that no process has mapped, and keeps it for a while; returns whether that was prevented. A supervisor or the
    kernel may end this process instead."""
    fd = -1
    with contextlib.suppress(OSError):
        fd = os.memfd_create("held")
    if fd >= 0:
        block = bytes(1 << 20)
        with contextlib.suppress(OSError):
            for _ in range(size >> 20):
                os.write(fd, block)
            time.sleep(seconds)
            return False
        return True
    return _is_prevented(lambda: mmap.mmap(-1, size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS).close())


def _send_datagram(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"datagram", ("127.0.0.1", port))


def _connect_unix(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(path)


def _open_socket(family: int) -> None:
    socket.socket(family, socket.SOCK_DGRAM).close()


def _is_prevented(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (OSError, MemoryError):
        return True
    return False
