"""On which machines and Pythons odp-task runs. `python support.py` prints why it does not run on this one, and ends with 2 then.

This file runs before anything is installed, and in Pythons that are too old: it imports the standard library only, and its syntax is
that of Python 3.6.
"""

import os
import platform
import sys
from typing import Optional, Tuple  # noqa: UP035

# What TensorFlow 2.14 and jaxlib 0.4.20 are published for, and the processors on which they are.
PYTHONS = ((3, 9), (3, 10), (3, 11))
PROCESSORS = {"linux": ("x86_64", "aarch64"), "darwin": ("arm64",)}
# The wheels of the lock that ask for the latest one: manylinux_2_28 (cryptography, h5py, matplotlib).
OLDEST_GLIBC = (2, 28)
# Of TensorFlow Federated's native file, manylinux_2_31.
OLDEST_GLIBC_OF_TFF_RUNTIME = (2, 31)

WINDOWS = "odp-task does not run on Windows itself: install and start it in WSL, the Windows Subsystem for Linux."
_SUPPORTED = "odp-task runs on Linux (glibc {}.{} or later) on x86-64 and aarch64, and on macOS on Apple silicon; this".format(*OLDEST_GLIBC)


def unsupported() -> Optional[str]:
    """One sentence that says why odp-task does not run in this interpreter, or None."""
    if sys.platform in ("win32", "cygwin", "msys"):
        return WINDOWS
    machine = platform.machine()
    if machine not in PROCESSORS.get(sys.platform, ()):
        return f"{_SUPPORTED} is {platform.system() or sys.platform} on {machine or 'an unknown processor'}."
    if sys.maxsize < 2**32:
        return f"{_SUPPORTED} Python is a 32-bit program."
    if sys.version_info[:2] not in PYTHONS:
        return "odp-task needs Python 3.9, 3.10 or 3.11, for which TensorFlow 2.14 is published; this is Python {}.{}.".format(*sys.version_info[:2])
    if platform.python_implementation() != "CPython":
        return f"odp-task needs CPython, for which TensorFlow is published; this is {platform.python_implementation()}."
    if sys.platform == "linux":
        glibc = glibc_version()
        if glibc is None:
            return f"{_SUPPORTED} Linux has another C library (musl?), for which TensorFlow is not published."
        if glibc < OLDEST_GLIBC:
            return f"{_SUPPORTED} is glibc {'.'.join(map(str, glibc))}."
    return None


def tff_runtime_runs_here() -> bool:
    """Whether TensorFlow Federated's native file can run here: it is published for Linux on x86-64."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and (glibc_version() or (0, 0)) >= OLDEST_GLIBC_OF_TFF_RUNTIME


def glibc_version() -> Optional[Tuple[int, int]]:  # noqa: UP006
    """(major, minor) of the GNU C library, or None where there is another."""
    try:
        name, version = os.confstr("CS_GNU_LIBC_VERSION").split()
        major, minor = version.split(".")[:2]
        return (int(major), int(minor)) if name == "glibc" else None
    except (AttributeError, OSError, ValueError):
        return None


if __name__ == "__main__":
    reason = unsupported()
    if reason is not None:
        sys.stderr.write(reason + "\n")
        sys.exit(2)
