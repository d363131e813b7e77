"""What the processes of a sandbox occupy: bounded by a control group where one can be had, looked at by the supervisor everywhere.

A control group counts everything, page caches and what lies in memory file systems included. The supervisor sees resident pages, files in
memory that some process of the sandbox has open (memfds, unlinked ones), and the scratch directory where that is in memory; not what
is only mapped, or on its way in a message between two processes.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource
import stat
import time
from collections.abc import Iterator
from typing import Optional

_PREFIX = "odp-task-"
# A tree of more files counts as too large: walking it would keep the supervisor from its work.
_MAX_FILES = 100_000
_MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs", "devtmpfs", "hugetlbfs")
# Memory that no mount shows: memfds, shared mappings without a file, System V segments.
_NAMELESS = ("/memfd:", "/dev/zero", "/SYSV")
# What the kernel takes to forget the processes of a group that have ended.
_REMOVAL_SECONDS = 2.0


class ControlGroup:
    """A control group with a bound on memory, for the processes of one sandbox. Version 2 of the kernel's interface, or 1."""

    def __init__(self, directory: pathlib.Path, memory_bytes: int):
        """Makes the group.

        Raises:
          OSError: this process may not, or the place has no control of memory.
        """
        directory.mkdir()
        self._directory = directory
        try:
            bounds = {"memory.max": memory_bytes, "memory.swap.max": 0}
            if not (directory / "memory.max").exists():
                bounds = {"memory.limit_in_bytes": memory_bytes, "memory.memsw.limit_in_bytes": memory_bytes}
            for position, (name, value) in enumerate(bounds.items()):
                # Not every kernel counts swapped pages.
                with contextlib.suppress(*(OSError,) * position):
                    (directory / name).write_text(str(value), encoding="ascii")
            self._members = os.open(directory / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            directory.rmdir()
            raise

    def join(self) -> None:
        """Moves this process into the group; what it starts from then on is in it as well."""
        os.write(self._members, b"0")

    def was_exceeded(self) -> bool:
        """Whether the kernel has ended a process for it."""
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                counts = dict(line.split() for line in (self._directory / name).read_text(encoding="ascii").splitlines())
                return int(counts.get("oom_kill", 0)) > 0
        return False

    def remove(self) -> None:
        os.close(self._members)
        give_up_at = time.monotonic() + _REMOVAL_SECONDS
        while time.monotonic() < give_up_at:
            try:
                self._directory.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.01)


def make_control_group(memory_bytes: int) -> Optional[ControlGroup]:
    """A new group below that of this process, or beside it; None where none can be had."""
    for place in _places():
        _remove_orphans(place)
        with contextlib.suppress(OSError, ValueError):
            return ControlGroup(place / f"{_PREFIX}{os.getpid()}", memory_bytes)
    return None


def usage(processes: Iterator[int], scratch: str) -> tuple[int, int]:
    """Bytes that processes and a scratch directory occupy in memory, and the number of threads."""
    memory = threads = 0
    devices = _memory_devices()
    files: dict[tuple[int, int], int] = {}
    for pid in processes:
        with contextlib.suppress(OSError, ValueError, IndexError):
            memory += int(pathlib.Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
            threads += len(os.listdir(f"/proc/{pid}/task"))
        files.update(_open_memory_files(pid, devices))
    with contextlib.suppress(OSError):
        if os.stat(scratch).st_dev in devices:
            files.update(_tree(scratch))
    return memory + sum(files.values()), threads


def _places() -> Iterator[pathlib.Path]:
    """Directories in which a group with control of memory may be made."""
    with contextlib.suppress(OSError):
        own = {}
        for line in pathlib.Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            own[controllers] = path
        for line in pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
            fields, _, behind = line.partition(" - ")
            root, mount_point = fields.split()[3:5]
            kind, _, options = behind.split(" ", 2)
            controllers = next((key for key in own if "memory" in key.split(",")), None) if kind == "cgroup" else ""
            if kind not in ("cgroup", "cgroup2") or controllers not in own or (kind == "cgroup" and "memory" not in options.split(",")):
                continue
            group = pathlib.Path(mount_point, os.path.relpath(own[controllers], root) if root != "/" else own[controllers].lstrip("/"))
            if kind == "cgroup":
                yield group
                continue
            for place in (group, group.parent):
                control = place / "cgroup.subtree_control"
                if control.exists() and "memory" in control.read_text(encoding="ascii").split():
                    yield place


def _remove_orphans(place: pathlib.Path) -> None:
    """Removes the groups of supervisors that were killed; the kernel keeps those that have processes."""
    for group in place.glob(f"{_PREFIX}[0-9]*"):
        if not os.path.exists(f"/proc/{group.name[len(_PREFIX):]}"):
            with contextlib.suppress(OSError):
                group.rmdir()


def _memory_devices() -> frozenset[int]:
    devices = set()
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            fields, _, behind = line.partition(" - ")
            if behind.split(" ", 1)[0] in _MEMORY_FILE_SYSTEMS:
                major, minor = fields.split()[2].split(":")
                devices.add(os.makedev(int(major), int(minor)))
    return frozenset(devices)


def _open_memory_files(pid: int, devices: frozenset[int]) -> Iterator[tuple[tuple[int, int], int]]:
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                path = f"/proc/{pid}/fd/{fd}"
                status = os.stat(path)
                if stat.S_ISREG(status.st_mode) and (status.st_dev in devices or os.readlink(path).startswith(_NAMELESS)):
                    yield (status.st_dev, status.st_ino), status.st_blocks * 512


def _tree(directory: str) -> Iterator[tuple[tuple[int, int], int]]:
    found = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            found += 1
            if found > _MAX_FILES:
                yield (-1, -1), 1 << 62
                return
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(folder, name))
                yield (status.st_dev, status.st_ino), status.st_blocks * 512
