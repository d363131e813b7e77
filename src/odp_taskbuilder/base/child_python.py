"""Other Python processes, which find modules where this one does and none in the working directory, which may be anybody's.

`python -c` and `python -m`, by which multiprocessing starts its processes, too, look there before anywhere else: a `socket.py` beside a
stranger's artifacts would run with the user's rights as soon as a command needs a second process.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import pkgutil
import sys
from collections.abc import Iterator

from odp_taskbuilder import errors

_VARIABLE = "PYTHONSAFEPATH"


def module_path() -> list[str]:
    """Where this process finds modules, but for what depends on the working directory."""
    return [entry for entry in sys.path if os.path.isabs(entry)]


def program(statements: str) -> list[str]:
    """The command that runs statements, in one line, in another process; `sys` is imported."""
    return [sys.executable, "-c", f"import sys; sys.path[:] = {module_path()!r}; {statements}"]


def module(name: str) -> list[str]:
    """The command that runs a module as `python -m` does; arguments may follow."""
    return program(f"import runpy; runpy.run_module({name!r}, run_name='__main__', alter_sys=True)")


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """A block in which the processes that multiprocessing starts do not look into the working directory.

    Raises:
      UsageError: Python before 3.11 cannot be told so, and there is something that it would run in place of its own modules.
    """
    if sys.version_info < (3, 11):
        _require_nothing_in_front()
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


def _require_nothing_in_front() -> None:
    """Passes where the caller's own modules come from the working directory: whatever lies there is theirs."""
    here = pathlib.Path.cwd()
    if any(pathlib.Path(entry or ".").resolve() == here for entry in sys.path):
        return
    own = {found.name for found in pkgutil.iter_modules([os.path.dirname(os.__file__), f"{os.path.dirname(os.__file__)}/lib-dynload"])}
    in_front = sorted(found.name for found in pkgutil.iter_modules([str(here)]) if found.name in own)
    if in_front:
        raise errors.UsageError(
            f"The working directory, {here}, holds a module {in_front[0]!r}, which Python {sys.version_info[0]}.{sys.version_info[1]} would run in "
            "place of its own in the processes of this command.",
            next_step="Go to another directory, or use Python 3.11.",
        )
