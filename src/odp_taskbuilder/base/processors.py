"""How many processors this process may use."""

from __future__ import annotations

import math
import os
import pathlib
from typing import Optional

_CGROUP = pathlib.Path("/sys/fs/cgroup")


def available_processors() -> int:
    """What the scheduler and the control group of this process grant, at least 1; a share of a processor counts as one."""
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return max(1, granted if quota is None else min(granted, math.ceil(quota)))


def _quota() -> Optional[float]:
    """Processors that the control group grants (cgroup v2, else v1); None without a limit, and where there are no control groups."""
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (_CGROUP / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (_CGROUP / "cpu" / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max"
        return None
