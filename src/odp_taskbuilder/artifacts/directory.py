"""Output to a directory that is there completely or not at all.

Everything is written into a private directory beside the destination, synced to disk, and then put in its place by one rename.
Whatever ends the process, the destination holds what it held before or the complete new content. The private directory is locked
while its owner lives; one that nobody locks was left by a process that was killed, and the next run removes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Callable, Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import artifact_set, manifest
from odp_taskbuilder.base.private_directory import private_directory
from odp_taskbuilder.config.compression import Compression
from odp_taskbuilder.config.show import ResolvedValue
from odp_taskbuilder.ops.report import ReplacedOp

# Of a directory, the names in it that are a former output.
FormerOutput = Callable[[pathlib.Path], set[str]]

_STAGING_PREFIX = ".odp-task-staging-"
# Inside the private directory: the new content, and, only where a file system cannot exchange two directories, the old one.
_NEW, _FORMER = "new", "former"
# linux/fcntl.h and linux/fs.h
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def population_directory(output: Union[str, os.PathLike], population_name: str) -> pathlib.Path:
    """The directory of a population's artifacts: `output/<population_name>`.

    Raises:
      UsageError: the name would lead out of `output`.
    """
    if population_name in ("", ".", "..") or any(character in population_name for character in "/\\\0"):
        raise errors.UsageError(f"The population name {population_name!r} cannot be the name of a directory")
    return pathlib.Path(output) / population_name


def save(
    artifacts: artifact_set.ArtifactSet,
    destination: Union[str, os.PathLike],
    *,
    form: str,
    inputs: Mapping[str, str],
    config: Sequence[ResolvedValue] = (),
    replaced: Mapping[str, Sequence[ReplacedOp]] = MappingProxyType({}),
    compression: Compression = Compression(),
    overwrite: bool = False,
) -> manifest.Manifest:
    """Writes an artifact set and its manifest to a directory.

    Args:
      artifacts: what to write.
      destination: the directory to make. See `check_destination` for one that exists.
      form: value of config.spec.PlanForm.
      inputs: digests of what the artifacts were made from (manifest.digest_file, manifest.digest_directory).
      config: the values that the tasks were built with (tasks.built_with).
      replaced: file prefix of a task -> the ops that were replaced in its client graph.
      compression: with which they were built.
      overwrite: replace whatever the destination holds.

    Raises:
      StorageError: the destination is not ours to replace, or something cannot be written. Nothing has changed then.
    """
    with staged_directory(destination, overwrite=overwrite) as staging:
        artifacts.write_files(staging)
        result = manifest.make_manifest(
            staging, form=form, inputs=inputs, config=config, replaced=replaced, compression=compression
        )
        (staging / artifact_set.MANIFEST).write_text(result.to_json(), encoding="utf-8")
    return result


def check_destination(
    destination: Union[str, os.PathLike], *, overwrite: bool = False, former_output: Optional[FormerOutput] = None
) -> None:
    """Says before an expensive build whether its output may go to a directory.

    It may where there is nothing yet or an empty directory, and where a complete former output stands (a manifest of ours and only
    the files that it lists): building again replaces that. Anything else is replaced with `overwrite` only.

    Args:
      former_output: tells the names in a directory that are a former output; those of a build unless given.

    Raises:
      StorageError: it may not, or nothing can be made where it is to stand.
    """
    path = pathlib.Path(destination)
    with _storage_errors(path):
        _check_writable(path)
        if not os.path.lexists(path):
            return
        if not path.is_dir():
            raise errors.StorageError(f"{path} exists and is not a directory", next_step="Choose another output directory.")
        # As found where the file system ignores case (macOS): the output of another population.
        names = os.listdir(path.parent)
        other = next((name for name in names if name.casefold() == path.name.casefold()), None)
        if path.name not in names and other is not None:
            raise errors.StorageError(
                f"{path} is {path.with_name(other)}: this file system ignores case, and populations differ by it.",
                next_step="Choose another output directory, or another population name.",
            )
        if overwrite:
            return
        foreign = set(os.listdir(path)) - (former_output or _former_output)(path)
    if foreign:
        shown = ", ".join(sorted(foreign)[:3]) + (", ..." if len(foreign) > 3 else "")
        raise errors.StorageError(
            f"{path} holds files that are not a former output of odp-task: {shown}",
            next_step="Choose another output directory, or replace the whole directory with --overwrite.",
        )


@contextlib.contextmanager
def staged_directory(
    destination: Union[str, os.PathLike], *, overwrite: bool = False, former_output: Optional[FormerOutput] = None
) -> Iterator[pathlib.Path]:
    """A directory to write into, which becomes `destination` when the block ends well and vanishes when it does not. Arguments are those
    of `check_destination`.

    Missing parents are made. An OSError that leaves the block becomes a StorageError.

    Raises:
      StorageError: see `check_destination`; or the file system refused something.
    """
    # A symbolic link stays: its target is what is replaced.
    destination = pathlib.Path(os.path.realpath(destination))
    check_destination(destination, overwrite=overwrite, former_output=former_output)
    with (
        _storage_errors(destination),
        _parents(destination),
        private_directory(destination.parent, _STAGING_PREFIX, _holds_former_content) as private,
    ):
        new = private / _NEW
        # Made by mkdir, not mkdtemp: what becomes the destination has the permissions that the user's umask gives.
        new.mkdir()
        yield new
        _sync_tree(new)
        _publish(new, destination, overwrite, former_output)
        _sync(destination.parent)


def _check_writable(path: pathlib.Path) -> None:
    """Makes a directory in the nearest parent that there is, and removes it: permissions alone do not tell. Raises OSError."""
    real = pathlib.Path(os.path.realpath(path))
    parent = next((parent for parent in real.parents if parent.exists()), real)
    try:
        probe = tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=parent)
    except OSError as error:
        # The probe's name says nothing to anybody.
        raise OSError(error.errno, error.strerror, str(parent)) from error
    with contextlib.suppress(FileNotFoundError):  # Another process may have taken it for abandoned.
        os.rmdir(probe)


def _former_output(directory: pathlib.Path) -> set[str]:
    """Names of the files that a build put into a directory; empty where no manifest of ours says so."""
    try:
        return {artifact_set.MANIFEST, *manifest.read_manifest(directory).files}
    except errors.OdpTaskError:
        return set()


@contextlib.contextmanager
def _storage_errors(destination: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = f" ({error.filename})" if isinstance(error.filename, str) and error.filename != str(destination) else ""
        raise errors.StorageError(f"Cannot write {destination}: {error.strerror or error}{place}") from error


@contextlib.contextmanager
def _parents(destination: pathlib.Path) -> Iterator[None]:
    """Makes the missing parents of the destination; takes them away again if the block fails."""
    missing = [parent for parent in destination.parents if not parent.exists()]
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # Not empty: somebody else uses them by now.
            for parent in missing:
                parent.rmdir()
        raise


def _holds_former_content(private: pathlib.Path) -> bool:
    """A process killed between the two renames of _swap_by_renames left the only copy of the old content there."""
    return (private / _FORMER).exists()


def _publish(new: pathlib.Path, destination: pathlib.Path, overwrite: bool, former_output: Optional[FormerOutput]) -> None:
    try:
        # Fails unless the destination is absent or an empty directory.
        os.rename(new, destination)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    # It may have appeared while the block ran.
    check_destination(destination, overwrite=overwrite, former_output=former_output)
    if not _exchange(new, destination):
        _swap_by_renames(new, destination)


def _exchange(new: pathlib.Path, destination: pathlib.Path) -> bool:
    """Exchanges two directories in one step; False where the system or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(destination), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(destination))


def _swap_by_renames(new: pathlib.Path, destination: pathlib.Path) -> None:
    former = new.parent / _FORMER
    os.rename(destination, former)
    try:
        os.rename(new, destination)
    except BaseException:
        os.rename(former, destination)
        raise


def _sync_tree(directory: pathlib.Path) -> None:
    for folder, _, files in os.walk(directory):
        for name in files:
            _sync(pathlib.Path(folder) / name)
        _sync(pathlib.Path(folder))


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
