"""What a sandbox prevents on this machine, found out by trying."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import tempfile
from typing import NamedTuple

from odp_taskbuilder import errors
from odp_taskbuilder.sandbox import kernel
from odp_taskbuilder.sandbox.client import Zygote
from odp_taskbuilder.sandbox.limits import SandboxLimits

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
    """Tries, in a sandbox, what it is there to prevent. Takes about a second.

    Raises:
      errors.ModelError: no sandbox can be made here at all.
    """
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        zygote = stack.enter_context(Zygote())
        prevented = _attempts(zygote, folder)
        prevented["processes"], means_for_processes = _attempt_processes(zygote, folder)
    abi = kernel.landlock_abi()
    landlock = f"Landlock, version {abi}" if abi else "Landlock, which this kernel lacks"
    network = "a network namespace" if prevented["network"] else "a network namespace, which this kernel refuses"
    return tuple(
        Protection(name, bool(prevented[key]), means)
        for key, name, means in (
            ("network", "use of the network", network),
            ("reading", "reading of files other than code and what is given", landlock),
            ("writing", "writing outside of the scratch directory", landlock),
            ("other processes", "looking at and signalling of other processes", f"a process namespace; {landlock}"),
            ("privileges", "use of privileges", "dropped capabilities, no new privileges"),
            ("memory", "memory beyond the limit", "RLIMIT_DATA for each process, a supervisor for all together"),
            ("processor time", "processor time beyond the limit", "RLIMIT_CPU"),
            ("processes", "processes and threads beyond the limit", means_for_processes),
            ("file size", "files beyond the limit", "RLIMIT_FSIZE"),
        )
    )


def _attempts(zygote: Zygote, folder: pathlib.Path) -> dict[str, bool]:
    scratch, outside = folder / "scratch", folder / "outside"
    scratch.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret", encoding="ascii")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return zygote.run(
            "odp_taskbuilder.sandbox.probe:attempts",
            {
                "port": listener.getsockname()[1],
                "outside": str(outside),
                "caller": os.getpid(),
                "memory_bytes": _PROBE_LIMITS.memory_bytes,
                "file_bytes": _PROBE_LIMITS.file_bytes,
            },
            scratch=scratch,
            limits=_PROBE_LIMITS,
        )


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
