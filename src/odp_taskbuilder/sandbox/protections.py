"""What a sandbox prevents on this machine, found out by trying."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import socket
import tempfile
from concurrent import futures
from typing import Any, NamedTuple

from odp_taskbuilder import errors
from odp_taskbuilder.sandbox import confine, kernel
from odp_taskbuilder.sandbox.client import Zygote
from odp_taskbuilder.sandbox.limits import SandboxLimits

_MISSING_LIBRARY = "libseccomp or pyseccomp"
_PROBE_LIMITS = SandboxLimits(
    wall_seconds=60, cpu_seconds=30, memory_bytes=256 * 2**20, processes=16, file_bytes=2**16, open_files=64
)


class Protection(NamedTuple):
    """One thing that a sandbox prevents.

    Attributes:
      name: what is prevented.
      in_force: whether it was prevented when it was tried here.
      means: by what, or what is missing.
    """

    name: str
    in_force: bool
    means: str

    def __str__(self) -> str:
        return f"{'prevented' if self.in_force else 'NOT PREVENTED'}: {self.name} ({self.means})"


def available() -> tuple[Protection, ...]:
    """Tries, in a sandbox, what it is there to prevent. Takes about two seconds.

    Raises:
      errors.ModelError: no sandbox can be made here at all.
    """
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        key = f"odp-task-probe-{os.getpid()}"
        # A kernel or container without keys has none to protect.
        with contextlib.suppress(OSError):
            stack.callback(kernel.remove_session_key, kernel.add_session_key(key, b"probe"))
        zygote = stack.enter_context(Zygote())
        with futures.ThreadPoolExecutor(3) as pool:
            attempted = pool.submit(_attempts, zygote, folder, key)
            processes = pool.submit(_attempt_processes, zygote, folder)
            shared_memory = pool.submit(_attempt_shared_memory, zygote, folder)
        prevented = attempted.result()
        granted = confine.Mechanisms(**prevented.pop("granted"))
        prevented["processes"], means_for_processes = processes.result()
        prevented["shared memory"] = shared_memory.result()
    prevented["sharing"] = granted.namespaces
    landlock = f"Landlock, version {granted.landlock}" if granted.landlock else "Landlock, which this kernel lacks"
    namespaces = "" if granted.namespaces else ", which this kernel refuses"
    calls = "a filter of system calls" + ("" if granted.system_calls else f", for which {_MISSING_LIBRARY} is missing")
    mounts = "read-only mounts" + ("" if granted.read_only_mounts else ", which this kernel refuses")
    group = "a control group" if granted.control_group else "no control group, which cannot be had here; a supervisor, which sees open files only"
    return tuple(
        Protection(name, bool(prevented[key]), means)
        for key, name, means in (
            ("sharing", "sharing of network, processes and mounts with others", f"namespaces{namespaces}"),
            ("network", "use of the network", f"a network namespace{namespaces}; {landlock}"),
            ("datagrams", "sending of datagrams (UDP)", f"a network namespace{namespaces}; {calls}"),
            ("other sockets", "sockets of other families (UNIX, VSOCK, NETLINK, PACKET)", calls),
            ("reading", "reading of files other than code and what is given", landlock),
            ("writing", "writing outside of the scratch directory", f"{landlock}; {mounts}"),
            ("metadata", "changing of mode, owner, times and attributes of files outside", f"{mounts}; {calls}"),
            ("keys", "use of the session keyring of whoever started it", "a keyring of its own"),
            ("other processes", "looking at and signalling of other processes", f"a process namespace{namespaces}; {landlock}"),
            ("privileges", "use of privileges", "dropped capabilities, no new privileges"),
            ("memory", "memory beyond the limit", f"RLIMIT_DATA for each process, a supervisor for all together, {group}"),
            ("shared memory", "memory in memfds and memory file systems beyond the limit", f"{group}; {calls}"),
            ("processor time", "processor time beyond the limit", "RLIMIT_CPU"),
            ("processes", "processes and threads beyond the limit", means_for_processes),
            ("file size", "files beyond the limit", "RLIMIT_FSIZE"),
        )
    )


def _attempts(zygote: Zygote, folder: pathlib.Path, key: str) -> dict[str, Any]:
    scratch, outside = folder / "scratch", folder / "outside"
    scratch.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret", encoding="ascii")
    with contextlib.ExitStack() as stack:
        listener, receiver = _listen_twice(stack)
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(outside / "socket"))
        unix.listen()
        prevented = zygote.run(
            "odp_taskbuilder.sandbox.probe:attempts",
            {
                "port": listener.getsockname()[1],
                "outside": str(outside),
                "caller": os.getpid(),
                "key": key,
                "memory_bytes": _PROBE_LIMITS.memory_bytes,
                "file_bytes": _PROBE_LIMITS.file_bytes,
            },
            scratch=scratch,
            limits=_PROBE_LIMITS,
        )
        receiver.setblocking(False)
        try:
            prevented["datagrams"] = not receiver.recv(16)
        except BlockingIOError:
            prevented["datagrams"] = True
    return prevented


def _listen_twice(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    """A listener and a receiver of datagrams on the same port."""
    while True:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        receiver = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        # The port is free for connections, and may yet be somebody's for datagrams.
        with contextlib.suppress(OSError):
            receiver.bind(listener.getsockname())
            return listener, receiver


def _attempt_shared_memory(zygote: Zygote, folder: pathlib.Path) -> bool:
    scratch = folder / "shared-memory"
    scratch.mkdir()
    limits = dataclasses.replace(_PROBE_LIMITS, file_bytes=2 * _PROBE_LIMITS.memory_bytes)
    args = {"size": _PROBE_LIMITS.memory_bytes * 5 // 4, "seconds": 5.0}
    try:
        return zygote.run("odp_taskbuilder.sandbox.probe:fill_shared_memory", args, scratch=scratch, limits=limits)
    except errors.ModelError:
        return True


def _attempt_processes(zygote: Zygote, folder: pathlib.Path) -> tuple[bool, str]:
    """The kernel does not hold the superuser to RLIMIT_NPROC; then the supervisor ends the sandbox."""
    scratch = folder / "processes"
    scratch.mkdir()
    args = {"number": _PROBE_LIMITS.processes + 1, "seconds": 5.0}
    try:
        prevented = zygote.run("odp_taskbuilder.sandbox.probe:start_processes", args, scratch=scratch, limits=_PROBE_LIMITS)
    except errors.ModelError:
        return True, "a supervisor, which looks four times a second"
    return prevented, "RLIMIT_NPROC"
