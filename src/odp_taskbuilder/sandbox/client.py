"""The caller's side: starts zygotes, has them run functions in a sandbox, and turns every end of a child into a value or an error."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import selectors
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, BinaryIO, Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.base import child_python
from odp_taskbuilder.sandbox import channel, failures
from odp_taskbuilder.sandbox.limits import SandboxLimits

PathLike = Union[str, os.PathLike]

LOG_NAME = "log.txt"

# The environment of a sandbox: nothing that could be a secret.
_KEPT_VARIABLES = ("PATH", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")
_OWN_VARIABLES = {
    "TF_CPP_MIN_LOG_LEVEL": "1",
    "CUDA_VISIBLE_DEVICES": "-1",
    # Its kernels end the process over operands that TensorFlow's own report as an error.
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONWARNINGS": "ignore",
}
# Seconds that a supervisor may take to end a child; it takes milliseconds.
_GRACE = 30.0
_CHUNK = 1 << 16


class Zygote:
    """A process that has imported modules once, and forks a sandboxed child for each call. Calls may come from several threads.

        with Zygote(preload=["tensorflow_federated"]) as zygote:
            zygote.run("package.module:function", {"path": "model"}, scratch=folder, readable=["model"])

    Importing TensorFlow Federated takes about ten seconds, a call after that a fraction of one.

    Args:
      preload: modules to import beforehand, outside of the sandbox: trusted code only.

    Raises:
      errors.OdpTaskError: a module cannot be imported.
    """

    def __init__(self, preload: Iterable[str] = ()):
        self._connection, zygote_end = socket.socketpair()
        self._lock = threading.Lock()
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        with zygote_end:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "odp_taskbuilder.sandbox.zygote", str(zygote_end.fileno()), *preload],
                pass_fds=[zygote_end.fileno()],
                env={**environment, **_OWN_VARIABLES, "PYTHONPATH": os.pathsep.join(child_python.module_path())},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C in a terminal is for the caller, who then ends its children.
                start_new_session=True,
            )
        answer = channel.receive(self._connection)
        if answer is None or "error" in answer:
            self.close()
            reason = "it ended at once" if answer is None else answer["error"]
            raise errors.OdpTaskError(f"The process that sandboxes are made from did not start: {reason}")

    def run(
        self,
        function: str,
        args: Mapping[str, Any],
        *,
        scratch: PathLike,
        readable: Iterable[PathLike] = (),
        limits: SandboxLimits = SandboxLimits(),
    ) -> Any:
        """Calls a function in a sandbox and returns its result.

        Args:
          function: "module:name" of a function that can be imported.
          args: its keyword arguments, as JSON can hold them.
          scratch: an existing directory that is new to the sandbox: the only place that the function can write to, its working
            directory and home. What it prints lands there in log.txt.
          readable: files and directories that it may read besides installed code.

        Returns:
          What the function returned, as JSON holds it. It is data from an untrusted process: check it.

        Raises:
          errors.OdpTaskError: one that the function raised, as the same class.
          errors.ModelError: the function failed otherwise, crashed, or was ended at one of its limits.
          errors.StorageError: the scratch directory cannot be used.
        """
        scratch = pathlib.Path(scratch).resolve()
        request = {
            "function": function,
            "args": dict(args),
            "limits": dataclasses.asdict(limits),
            "scratch": str(scratch),
            "readable": [str(pathlib.Path(path).resolve()) for path in readable],
        }
        caller, supervisor_end = socket.socketpair()
        with caller, contextlib.ExitStack() as opened:
            opened.enter_context(supervisor_end)
            log_fd = _open_log(scratch)
            opened.callback(os.close, log_fd)
            result_reader, result_writer = os.pipe()
            with os.fdopen(result_reader, "rb", buffering=0) as result:
                opened.callback(os.close, result_writer)
                with self._lock:
                    self._send_descriptors([supervisor_end.fileno(), result_writer, log_fd])
                opened.close()
                with contextlib.suppress(BrokenPipeError):
                    channel.send(caller, request)
                return _result(*_wait(caller, result, limits), limits)

    def close(self) -> None:
        """Ends the zygote and every child that is still running."""
        self._connection.close()
        # Its supervisors end with it, and everything in their sandboxes with them.
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Zygote:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.close()

    def _send_descriptors(self, fds: list[int]) -> None:
        try:
            socket.send_fds(self._connection, [b"+"], fds)
        except OSError as error:
            raise errors.OdpTaskError(f"The process that sandboxes are made from has ended: {error.strerror}") from error


def run(
    function: str,
    args: Mapping[str, Any],
    *,
    scratch: PathLike,
    readable: Iterable[PathLike] = (),
    limits: SandboxLimits = SandboxLimits(),
) -> Any:
    """Calls one function in a sandbox; as `Zygote.run`, with a zygote for this call only. What the function imports it imports inside."""
    with Zygote() as zygote:
        return zygote.run(function, args, scratch=scratch, readable=readable, limits=limits)


def open_output(scratch: PathLike, name: str, max_bytes: int) -> BinaryIO:
    """Opens a file that a sandboxed function left in its scratch directory.

    The function may have left a link, a pipe or a file of any size under that name instead.

    Args:
      name: a file name without directories.

    Raises:
      errors.ModelError: there is no regular file of this name with at most `max_bytes` bytes.
    """
    if not name or "/" in name or name in (".", ".."):
        raise ValueError(f"not a file name: {name!r}")
    try:
        fd = os.open(pathlib.Path(scratch) / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise errors.ModelError(f"The sandboxed work left no file {name!r}: {error.strerror}.") from error
    file = os.fdopen(fd, "rb")
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
        file.close()
        raise errors.ModelError(f"The sandboxed work left {name!r} as something else than a file of at most {max_bytes} bytes.")
    return file


def _open_log(scratch: pathlib.Path) -> int:
    try:
        return os.open(scratch / LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise errors.StorageError(
            f"The scratch directory {scratch} was used before; each sandboxed call needs a new one."
        ) from None
    except OSError as error:
        raise errors.StorageError(f"The scratch directory {scratch} cannot be used: {error.strerror}.") from error


def _wait(caller: socket.socket, result: Any, limits: SandboxLimits) -> tuple[bytes, Optional[dict], Optional[str]]:
    """Waits for a child's end; returns what it said, how it ended, and what for if it was this side that ended it."""
    deadline = time.monotonic() + limits.wall_seconds
    os.set_blocking(result.fileno(), False)
    said = bytearray()
    ended_for = None
    with selectors.DefaultSelector() as selector:
        selector.register(caller, selectors.EVENT_READ)
        selector.register(result, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select(max(0.0, deadline - time.monotonic()))]
            if result in ready:
                chunk = result.read(_CHUNK)
                if not chunk:
                    selector.unregister(result)
                said += chunk or b""
            if caller in ready:
                status = channel.receive(caller)
                said += _rest(result, limits) if ended_for is None else b""
                return bytes(said), status, ended_for
            if ended_for is not None and time.monotonic() >= deadline:
                return b"", None, ended_for
            if ended_for is None and (len(said) > limits.result_bytes or time.monotonic() >= deadline):
                ended_for = "result" if len(said) > limits.result_bytes else "time"
                # The supervisor ends the sandbox when it hears that nothing more will come, and then reports.
                caller.shutdown(socket.SHUT_WR)
                deadline = time.monotonic() + _GRACE


def _rest(result: Any, limits: SandboxLimits) -> bytes:
    """What is left in the pipe of a child that has ended."""
    said = bytearray()
    while len(said) <= limits.result_bytes:
        chunk = result.read(_CHUNK)
        if not chunk:
            break
        said += chunk
    return bytes(said)


def _result(said: bytes, status: Optional[dict], ended_for: Optional[str], limits: SandboxLimits) -> Any:
    if status is None:
        raise errors.OdpTaskError("The supervisor of a sandbox ended without a report.")
    ended_for = ended_for or status["stopped_for"]
    reasons = {
        "time": f"took longer than {limits.wall_seconds:g} seconds",
        "memory": f"took more than {limits.memory_bytes} bytes of memory",
        "processes": f"had more than {limits.processes} processes and threads",
        "result": f"returned more than {limits.result_bytes} bytes",
    }
    if ended_for is None and len(said) > limits.result_bytes:
        ended_for = "result"
    if ended_for is not None:
        raise errors.ModelError(f"The work on the model {reasons.get(ended_for, 'was cancelled')}, and was ended.")
    code = os.waitstatus_to_exitcode(status["status"])
    if code == -signal.SIGXCPU or (code == -signal.SIGKILL and status["cpu_seconds"] >= limits.cpu_seconds):
        raise errors.ModelError(
            f"The work on the model took more than {limits.cpu_seconds} seconds of processor time, and was ended."
        )
    if code < 0:
        raise errors.ModelError(f"The work on the model crashed ({signal.Signals(-code).name}).")
    if code > 0:
        raise errors.ModelError(f"The work on the model ended its process with code {code}, without a result.")
    try:
        document = channel.parse(said)
        if "value" in document:
            return document["value"]
        error = failures.from_document(document["error"])
    except (ValueError, TypeError, KeyError, AttributeError) as cause:
        raise errors.ModelError("The work on the model ended with something else than a result.") from cause
    raise error
