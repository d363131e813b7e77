"""Where the builds of a service work: a directory for each, locked while its owner lives.

What a killed service left there is found by the next one: a directory that nobody locks goes, except for artifacts whose push
has begun. Those are kept as `unfinished-*`, until `odp-task push --resume` has completed them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Optional

from odp_taskbuilder import errors
from odp_taskbuilder.base.private_directory import abandoned, locked_directory, make_locked
from odp_taskbuilder.push import auth, journal, push
from odp_taskbuilder.server import observability

# The artifacts of a build, below its directory.
ARTIFACTS = "artifacts"

_OWN_PREFIX = "odp-task-serve-"
_BUILD_PREFIX = "build-"
_UNFINISHED_PREFIX = "unfinished-"


@contextlib.contextmanager
def opened(given: Optional[pathlib.Path], login: auth.Login) -> Iterator[pathlib.Path]:
    """The work directory of a service, without what killed services left: `given`, or a temporary one.

    A temporary one goes away at the end, unless something unfinished is in it.

    Args:
      login: of the service, for the commands that finish pushes.

    Raises:
      errors.StorageError: it cannot be made or written to.
    """
    with contextlib.ExitStack() as stack:
        try:
            if given is None:
                for left in pathlib.Path(tempfile.gettempdir()).glob(f"{_OWN_PREFIX}*"):
                    with abandoned(left) as is_abandoned:
                        if is_abandoned:
                            _clean(left, login)
                            _remove_if_empty(left)
                work_dir, lock = make_locked(pathlib.Path(tempfile.gettempdir()), _OWN_PREFIX)
                stack.callback(os.close, lock)
                stack.callback(_remove_if_empty, work_dir)
            else:
                given.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=given):
                    pass
                work_dir = given
                _clean(work_dir, login)
        except OSError as error:
            raise errors.StorageError(
                f"Cannot use the work directory {given or tempfile.gettempdir()}: {error.strerror or error}.",
                next_step="Name another one with --work_dir.",
            ) from error
        yield work_dir.resolve()


def of_build(work_dir: pathlib.Path) -> contextlib.AbstractContextManager[pathlib.Path]:
    """A directory for one build, removed at the end.

    Raises:
      OSError: it cannot be made.
    """
    return locked_directory(work_dir, _BUILD_PREFIX)


def keep(work_dir: pathlib.Path, artifacts: pathlib.Path, login: auth.Login) -> str:
    """Moves artifacts that are to be pushed later, with their journal, to where no build cleans up.

    Returns:
      The command that finishes the push; it is logged, too.

    Raises:
      OSError: they cannot be moved.
    """
    kept = pathlib.Path(tempfile.mkdtemp(prefix=_UNFINISHED_PREFIX, dir=work_dir)) / artifacts.name
    os.rename(artifacts, kept)
    os.rename(journal.path_for(artifacts), journal.path_for(kept))
    return _log_unfinished(kept, login)


def _log_unfinished(artifacts: pathlib.Path, login: auth.Login) -> str:
    command = push.resume_command(artifacts, push.PushOptions(login=login))
    observability.log("unfinished push", level=logging.WARNING, command=command)
    return command


def _clean(work_dir: pathlib.Path, login: auth.Login) -> None:
    """Removes what killed services left, and names the pushes that are unfinished."""
    for unfinished in work_dir.glob(f"{_UNFINISHED_PREFIX}*"):
        if _is_complete(unfinished / ARTIFACTS):
            shutil.rmtree(unfinished, ignore_errors=True)
        else:
            _log_unfinished(unfinished / ARTIFACTS, login)
    for build in work_dir.glob(f"{_BUILD_PREFIX}*"):
        with abandoned(build) as is_abandoned:
            if is_abandoned:
                if journal.path_for(build / ARTIFACTS).exists() and not _is_complete(build / ARTIFACTS):
                    keep(work_dir, build / ARTIFACTS, login)
                shutil.rmtree(build, ignore_errors=True)


def _is_complete(artifacts: pathlib.Path) -> bool:
    """Whether every task that was asked for is in its place. A journal that cannot be read does not say so."""
    try:
        earlier = journal.Journal.load(journal.path_for(artifacts))
    except errors.StorageError:
        return False
    return earlier is not None and all(entry.is_complete for entry in earlier.tasks.values())


def _remove_if_empty(directory: pathlib.Path) -> None:
    # Not empty: an unfinished push lies in it, and the log says so.
    with contextlib.suppress(OSError):
        directory.rmdir()
