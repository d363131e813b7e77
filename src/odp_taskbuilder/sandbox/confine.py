"""Puts the current process under restrictions, as many of them as the kernel grants.

Nothing here fails because the kernel refuses: `protections.available` finds out, by trying, what is in force.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import resource
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from odp_taskbuilder.sandbox import kernel, system_calls
from odp_taskbuilder.sandbox.limits import SandboxLimits

# The user that a sandboxed process appears to be; not 0, which would get its capabilities back with every program that it starts.
_NOBODY = 65534
# Seconds between the signal that a process may not survive by default and the one that it cannot survive.
_CPU_GRACE = 5

_READ = kernel.READ_FILE | kernel.READ_DIR
_RUN = _READ | kernel.EXECUTE
_EVERYTHING = -1
# What interpreters, TensorFlow and gRPC look at: shared libraries, time zones, and the number and kind of processors.
_SYSTEM_RULES = (
    ("/usr/lib", _RUN),
    ("/usr/lib64", _RUN),
    ("/lib", _RUN),
    ("/lib64", _RUN),
    ("/usr/local/lib", _RUN),
    ("/usr/share/zoneinfo", _READ),
    ("/etc/ld.so.cache", _READ),
    ("/etc/localtime", _READ),
    ("/sys/devices/system", _READ),
    ("/proc/self", _READ),
    ("/proc/cpuinfo", _READ),
    ("/proc/meminfo", _READ),
    ("/proc/stat", _READ),
    ("/proc/sys/vm", _READ),
    ("/dev/null", _READ | kernel.WRITE_FILE),
    ("/dev/random", _READ),
    ("/dev/urandom", _READ),
)


@dataclasses.dataclass(frozen=True)
class Mechanisms:
    """What the kernel granted; the defaults are nothing.

    Attributes:
      namespaces: namespaces of its own for users (not where only the superuser may make the others), network and shared memory.
      read_only_mounts: everything but the scratch directory is mounted read-only.
      keyring: an empty session keyring.
      landlock: the version of Landlock; 0 for none.
      system_calls: the filter of system calls.
      control_group: a control group bounds the memory of the sandbox.
    """

    namespaces: bool = False
    read_only_mounts: bool = False
    keyring: bool = False
    landlock: int = 0
    system_calls: bool = False
    control_group: bool = False

    def missing(self) -> list[str]:
        """What is not in force, each in a few words."""
        return [
            text
            for text, in_force in (
                ("namespaces (this kernel refuses them)", self.namespaces),
                ("read-only mounts", self.read_only_mounts),
                ("a session keyring of its own", self.keyring),
                ("Landlock (this kernel lacks it)", self.landlock > 0),
                ("the filter of system calls (libseccomp or pyseccomp is missing)", self.system_calls),
            )
            if not in_force
        ]


def enter_namespaces(*, of_processes: bool = True) -> bool:
    """Moves this process into namespaces of its own for network, shared memory and, from its next child on, processes.

    Must be called while this process has one thread. Returns whether the kernel granted them.

    Args:
      of_processes: also for processes; a process that starts threads itself, instead of a child that does, cannot have that.
    """
    uid, gid = os.getuid(), os.getgid()
    apart = kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | (kernel.CLONE_NEWPID if of_processes else 0)
    # Everybody may make the other namespaces inside of a new user namespace; where that is switched off, the superuser still may.
    for flags in (kernel.CLONE_NEWUSER | apart, apart):
        try:
            kernel.unshare(flags)
        except OSError:
            continue
        if flags & kernel.CLONE_NEWUSER:
            _map_user(uid, gid)
        with contextlib.suppress(OSError):
            # TFF talks to its own worker process through this interface.
            kernel.raise_loopback()
        return True
    return False


# Of this process, once it is closed off.
granted = Mechanisms()


def restrict(
    limits: SandboxLimits, scratch: pathlib.Path, readable: Sequence[str], *, in_namespaces: bool, control_group: bool
) -> None:
    """Applies all other restrictions to this process, for good, and makes the scratch directory its home and working directory."""
    for bound, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
    ):
        _set_limit(bound, value, value)
    _set_limit(resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + _CPU_GRACE)
    if in_namespaces:
        # Elsewhere it would count all processes of the user; the supervisor counts those of the sandbox.
        _set_limit(resource.RLIMIT_NPROC, limits.processes, limits.processes)
    close_off([scratch], readable, home=scratch, in_namespaces=in_namespaces, control_group=control_group)


def close_off(
    writable: Sequence[pathlib.Path],
    readable: Sequence[str],
    *,
    home: Optional[pathlib.Path] = None,
    in_namespaces: bool,
    control_group: bool = False,
) -> Mechanisms:
    """Takes from this process, for good, what it could reach besides installed code and the given files.

    Must be called while this process has one thread. Returns what the kernel granted; `granted` is that from then on.

    Args:
      writable: directories, absolute.
      readable: files and directories, absolute.
      home: the one of the writable directories that becomes HOME, TMPDIR and the working directory; None leaves them.
    """
    os.umask(0o077)
    global granted
    given: dict[str, Any] = {"namespaces": in_namespaces, "control_group": control_group}
    if in_namespaces:
        with contextlib.suppress(OSError):
            kernel.make_mounts_read_only([str(path) for path in writable])
            given["read_only_mounts"] = True
    if home is not None:
        # From here on the directory is the writable one, not the one that it was before.
        os.chdir(home)
        for name in ("HOME", "TMPDIR"):
            os.environ[name] = str(home)
        # The zygote may have asked for the directory already, and Python remembers the answer.
        tempfile.tempdir = str(home)
    with contextlib.suppress(OSError):
        kernel.join_new_session_keyring()
        given["keyring"] = True
    with contextlib.suppress(OSError):
        kernel.forbid_new_privileges()
    rules = [
        *_SYSTEM_RULES,
        *((path, _RUN) for path in _code_folders()),
        *((path, _READ) for path in readable),
        *((str(path), _EVERYTHING) for path in writable),
    ]
    with contextlib.suppress(OSError):
        kernel.landlock_restrict(rules, deny_tcp=not in_namespaces)
        given["landlock"] = kernel.landlock_abi()
    with contextlib.suppress(OSError):
        kernel.drop_capabilities()
    with contextlib.suppress(OSError):
        system_calls.restrict(has_network=in_namespaces)
        given["system_calls"] = True
    granted = Mechanisms(**given)
    return granted


def close_off_this_process(writable: Sequence[str], readable: Sequence[str]) -> list[str]:
    """Takes from this process, which is no zygote's, for good what it could reach besides installed code and the given files: the
    network, other files, other processes as far as Landlock knows them, keys, privileges and rare system calls.

    Must be called while this process has one thread. Nothing is bounded: neither memory nor time.

    Args:
      writable: directories.
      readable: files and directories; those that do not exist count for nothing.

    Returns:
      What the kernel refused, each in a few words.
    """
    # Resolved while this process still sees everything.
    directories = [pathlib.Path(path).resolve() for path in writable]
    files = [os.path.realpath(path) for path in readable]
    return close_off(directories, files, in_namespaces=enter_namespaces(of_processes=False)).missing()


def _set_limit(bound: int, soft: int, hard: int) -> None:
    """Lowers a limit; one that is lower already stays."""
    _, current = resource.getrlimit(bound)
    if current != resource.RLIM_INFINITY:
        soft, hard = min(soft, current), min(hard, current)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(bound, (soft, hard))


def _map_user(uid: int, gid: int) -> None:
    # Without a map the process is nobody as well, but it could not make files.
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        pathlib.Path("/proc/self/uid_map").write_text(f"{_NOBODY} {uid} 1", encoding="ascii")
        pathlib.Path("/proc/self/gid_map").write_text(f"{_NOBODY} {gid} 1", encoding="ascii")


def _code_folders() -> Iterator[str]:
    """Where Python finds modules: the interpreter, the installed packages and this package."""
    yield str(pathlib.Path(__file__).resolve().parent.parent)
    yield from (entry for entry in sys.path if pathlib.PurePath(entry).name in ("site-packages", "dist-packages"))
    yield from {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    for prefix in {sys.prefix, sys.base_prefix}:
        yield from (f"{prefix}/lib", f"{prefix}/lib64", f"{prefix}/bin", f"{prefix}/pyvenv.cfg")
