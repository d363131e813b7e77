"""How much memory this process may have."""

from __future__ import annotations

import os
import pathlib
from typing import Optional

_CGROUP = pathlib.Path("/sys/fs/cgroup")
_MEMINFO = pathlib.Path("/proc/meminfo")


def memory_bytes() -> tuple[Optional[int], Optional[int]]:
    """Bytes of memory that the machine and the control group of this process grant: in all, and free now. None where nobody tells."""
    total, available = _of_machine()
    limit, used = _limit(), _used()
    if limit is not None and (total is None or limit < total):
        total = limit
        if used is not None:
            left = max(0, limit - used)
            available = left if available is None else min(available, left)
    return total, available


def _of_machine() -> tuple[Optional[int], Optional[int]]:
    try:
        fields = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines())
        return int(fields["MemTotal"].split()[0]) << 10, int(fields["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
    except (OSError, ValueError):
        return None, None


def _limit() -> Optional[int]:
    return _first_number("memory.max", "memory/memory.limit_in_bytes")


def _used() -> Optional[int]:
    used = _first_number("memory.current", "memory/memory.usage_in_bytes")
    # The cache of files counts as used, and goes when memory is needed.
    try:
        lines = (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        reclaimable = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    except (OSError, ValueError, IndexError):
        reclaimable = 0
    return None if used is None else max(0, used - reclaimable)


def _first_number(*names: str) -> Optional[int]:
    """What the first of these files says that exists (cgroup v2, then v1); None without one, or where it says "max"."""
    for name in names:
        try:
            return int((_CGROUP / name).read_text(encoding="ascii"))
        except OSError:
            continue
        except ValueError:
            return None
    return None
