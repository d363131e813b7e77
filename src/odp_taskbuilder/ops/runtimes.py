"""The release of TensorFlow Lite that first has each version of a builtin op.

Phones have an old TensorFlow Lite (spec: phone.md, H5). The list is data, `runtimes.csv` beside this file: for each op and version, what
TensorFlow 2.14.1's converter states (`min_runtime_version`) for a graph that needs nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Optional

from odp_taskbuilder import errors
from odp_taskbuilder.base import package_data

# Major, minor and patch number of a release.
Runtime = tuple[int, int, int]


def min_runtime(op: str, version: int) -> Optional[Runtime]:
    """The first release that has a builtin op in a version; None where the list does not tell.

    >>> min_runtime("RIGHT_SHIFT", 1)
    (2, 13, 0)
    """
    return _table().get((op, version))


def runtime_text(runtime: Runtime) -> str:
    return ".".join(map(str, runtime))


def parse_runtime(text: str) -> Runtime:
    """Reads a release as people write it, with two or three numbers.

    Raises:
      errors.UsageError: it is none.

    >>> parse_runtime("2.13")
    (2, 13, 0)
    """
    numbers = text.split(".")
    if len(numbers) not in (2, 3) or not all(number.isascii() and number.isdigit() and len(number) < 6 for number in numbers):
        raise errors.UsageError(f"{text!r} is no release of TensorFlow Lite.", next_step="Write it as 2.13.0.")
    major, minor, patch = (*map(int, numbers), 0)[:3]
    return major, minor, patch


@functools.cache
def _table() -> Mapping[tuple[str, int], Runtime]:
    text = package_data.read_text(__package__, "runtimes.csv", encoding="ascii")
    rows = (line.split(",") for line in text.splitlines()[1:])
    return {(op, int(version)): parse_runtime(runtime) for op, version, runtime in rows}
