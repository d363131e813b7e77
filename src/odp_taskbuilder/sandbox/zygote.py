"""The process that sandboxed children are forked from, and those children. Runs as `python -m odp_taskbuilder.sandbox.zygote`.

    caller ── zygote ── supervisor ── init ── child
              │         │             │       └ restricts itself, then does the untrusted work
              │         │             └ first process of the child's own process namespace; when it ends, everything in there ends
              │         └ outside; ends the init when the caller says so or hangs up, or when the sandbox grows too large
              └ has imported what is slow to import, and knows nothing else

The zygote ends when its caller hangs up, which a caller that is killed does as well; each of the others is ended by the kernel when
the one before it ends. The zygote imports and then waits: it handles no model, and starts no TensorFlow operation, so that its forks
are fresh.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pathlib
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any, NoReturn, Optional

from odp_taskbuilder.sandbox import channel, confine, failures, kernel, memory
from odp_taskbuilder.sandbox.limits import SandboxLimits

# How often a supervisor looks at what its sandbox takes.
_WATCH_MILLISECONDS = 250
# What the init tells the supervisor: wait status, processor seconds and maximum resident kilobytes of the child.
_ENDED = struct.Struct("<idq")
_FAILURE = 70


def main(zygote_fd: int, preload: list[str]) -> None:
    """Imports modules, says so, then forks a supervisor for each pair of descriptors that arrives, until the caller hangs up."""
    with socket.socket(fileno=zygote_fd) as connection:
        try:
            for name in preload:
                importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - whatever importing raises is the caller's to hear.
            channel.send(connection, {"error": f"{type(error).__name__}: {error}"})
            return
        channel.send(connection, {"ready": True})
        # Keeps the collector from touching, and thereby copying, the pages that children share.
        gc.collect()
        gc.freeze()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        zygote = os.getpid()
        while True:
            message, fds, _, _ = socket.recv_fds(connection, 1, 3)
            if not message:
                return
            if os.fork() == 0:
                connection.close()
                _run_and_exit(_supervise, zygote, *fds)
            for fd in fds:
                os.close(fd)


def _run_and_exit(function: Any, *args: Any) -> NoReturn:
    """Runs the whole life of a forked process: it must never return into the code of the one that it was forked from."""
    try:
        function(*args)
        os._exit(0)
    except BaseException:  # noqa: BLE001
        os._exit(_FAILURE)


def _supervise(zygote: int, caller_fd: int, result_fd: int, log_fd: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with contextlib.suppress(OSError):
        kernel.become_subreaper()
    _end_with_parent(zygote)
    with socket.socket(fileno=caller_fd) as caller:
        request = channel.receive(caller)
        if request is None:
            return
        limits = SandboxLimits(**request["limits"])
        # Before this process enters a user namespace, in which it could make none.
        group = memory.make_control_group(limits.memory_bytes)
        request["in_namespaces"] = confine.enter_namespaces()
        request["control_group"] = group is not None
        ended_reader, ended_writer = os.pipe()
        supervisor = os.getpid()
        init = os.fork()
        if init == 0:
            caller.close()
            os.close(ended_reader)
            if group is not None:
                group.join()
            _run_and_exit(_init, supervisor, request, limits, ended_writer, result_fd, log_fd)
        for fd in (ended_writer, result_fd, log_fd):
            os.close(fd)
        stopped_for = _watch(caller, ended_reader, init, group, limits, request["scratch"])
        ended = os.read(ended_reader, _ENDED.size) if stopped_for is None else b""
        _end_descendants()
        if group is not None:
            if stopped_for is None and group.was_exceeded():
                stopped_for = "memory"
            group.remove()
        status, cpu_seconds, rss_kilobytes = _ENDED.unpack(ended) if len(ended) == _ENDED.size else (signal.SIGKILL, 0.0, 0)
        # The caller may be gone.
        with contextlib.suppress(OSError):
            channel.send(
                caller,
                {"stopped_for": stopped_for, "status": status, "cpu_seconds": cpu_seconds, "rss_bytes": rss_kilobytes * 1024},
            )


def _watch(
    caller: socket.socket,
    ended_reader: int,
    init: int,
    group: Optional[memory.ControlGroup],
    limits: SandboxLimits,
    scratch: str,
) -> Optional[str]:
    """Waits for the child's end; returns what it must be ended for before that, if anything."""
    poll = select.poll()
    poll.register(caller, select.POLLIN | select.POLLHUP)
    poll.register(ended_reader, select.POLLIN | select.POLLHUP)
    while True:
        ready = {fd for fd, _ in poll.poll(_WATCH_MILLISECONDS)}
        if ended_reader in ready:
            return None
        if caller.fileno() in ready:
            # The caller sends nothing after its request: this is the end of what it has to say.
            return "caller"
        occupied, threads = memory.usage(_descendants(init), scratch)
        if threads > limits.processes:
            return "processes"
        # The kernel may have ended one process of several; those that are left, which may wait for it, then stay below the bound.
        if occupied > limits.memory_bytes or (group is not None and group.was_exceeded()):
            return "memory"


def _end_descendants() -> None:
    """Ends the init, and whatever has left its process group if it has no process namespace to end with."""
    while True:
        descendants = list(_descendants(os.getpid()))
        for pid in descendants:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            # Orphans become children of this process. Where the kernel lists no children, those that have ended are all there is.
            os.waitpid(-1, 0 if descendants else os.WNOHANG)
        except ChildProcessError:
            return


def _init(supervisor: int, request: dict, limits: SandboxLimits, ended_writer: int, result_fd: int, log_fd: int) -> None:
    with contextlib.suppress(OSError):
        kernel.become_subreaper()
    _end_with_parent(supervisor)
    init = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(ended_writer)
        _run_and_exit(_child, init, request, limits, result_fd, log_fd)
    os.close(result_fd)
    while True:
        # Also reaps what the child leaves behind.
        pid, status, usage = os.wait4(-1, 0)
        if pid == child:
            os.write(ended_writer, _ENDED.pack(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss))
            return


def _child(init: int, request: dict, limits: SandboxLimits, result_fd: int, log_fd: int) -> None:
    _end_with_parent(init)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    os.close(log_fd)
    confine.restrict(
        limits,
        pathlib.Path(request["scratch"]),
        request["readable"],
        in_namespaces=request["in_namespaces"],
        control_group=request["control_group"],
    )
    try:
        _renew_execution_context()
        module, _, name = request["function"].partition(":")
        value = getattr(importlib.import_module(module), name)(**request["args"])
        document = json.dumps({"value": value})
    except BaseException as error:  # noqa: BLE001 - every failure of the work is an answer.
        document = json.dumps({"error": failures.to_document(error)})
    with os.fdopen(result_fd, "wb") as result:
        result.write(document.encode())


def _renew_execution_context() -> None:
    """TFF runs computations in a thread that it starts when it is imported. A fork has no copy of that thread, and would wait for it."""
    tff = sys.modules.get("tensorflow_federated")
    if tff is not None:
        tff.backends.native.set_sync_local_cpp_execution_context()


def _end_with_parent(parent: int) -> None:
    with contextlib.suppress(OSError):
        kernel.set_parent_death_signal(signal.SIGKILL)
    # The parent may have ended before the kernel was asked. In a process namespace of its own the first process sees no parent.
    if os.getppid() not in (parent, 0):
        os._exit(_FAILURE)


def _descendants(pid: int) -> Iterator[int]:
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{parent}/task"):
                children = pathlib.Path(f"/proc/{parent}/task/{thread}/children").read_text(encoding="ascii")
                for child in map(int, children.split()):
                    yield child
                    waiting.append(child)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
