"""`odp-task setup`: adds the packages that the wheel cannot name as requirements, each checked against its hash."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import importlib
import importlib.metadata
import io
import pathlib
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import Optional

from odp_taskbuilder import errors
from odp_taskbuilder.base.stages import Stage, unannounced
from odp_taskbuilder.installation import support
from odp_taskbuilder.installation.installers import Installer, find_installer
from odp_taskbuilder.installation.packages import TFF, WORKER, Package, fault, has_tff_runtime, listed_packages

PLACEHOLDER = """#!/bin/sh
# In place of TensorFlow Federated's worker_binary, which odp-task setup left out: 0.3 GB that only `odp-task simulate --engine tff` needs.
echo "odp-task: TensorFlow Federated's own runtime is not installed. On Linux on x86-64, odp-task setup --with_tff_runtime adds it." >&2
exit 2
"""
# Of files that installers write themselves.
_NOT_OF_THE_WHEEL = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json")


def set_up(
    *, with_tff_runtime: bool = False, packages: Optional[Sequence[Package]] = None, stage: Stage = unannounced
) -> list[str]:
    """Installs what is missing, incomplete or of another version; nothing if all is there.

    Args:
      with_tff_runtime: also TensorFlow Federated's own runtime. Without it, one that is there stays.
      packages: what to install; by default what packages.json lists.
      stage: told of the parts of the work.

    Returns:
      The names of the packages that were installed.

    Raises:
      errors.UsageError: odp-task does not run here, the runtime does not, or there is neither pip nor uv. Nothing was downloaded.
      errors.StorageError: a download failed, or had another hash: of that package nothing was installed.
    """
    reason = support.unsupported()
    if reason is not None:
        raise errors.UsageError(reason)
    if with_tff_runtime and not support.tff_runtime_runs_here():
        raise errors.UsageError(
            "TensorFlow Federated's own runtime is published for Linux (glibc 2.31 or later) on x86-64 only.",
            next_step="Leave --with_tff_runtime out: nothing but `simulate --engine tff` needs it.",
        )
    installer = find_installer()
    with _alone():
        pending = [package for package in packages or listed_packages() if _is_pending(package, with_tff_runtime)]
        for package in pending:
            with stage(f"{installer.name} installs {package.name} {package.version} ({package.download_bytes / 1e6:.1f} MB to download)"):
                _install(installer, package, with_tff_runtime)
            importlib.invalidate_caches()
            left = fault(package)
            if left is not None:
                raise errors.StorageError(f"{package.name} {package.version} was installed, but is {left}.")
    return [package.name for package in pending]


def _is_pending(package: Package, with_tff_runtime: bool) -> bool:
    return fault(package) is not None or (package.name == TFF and with_tff_runtime and not has_tff_runtime())


def _install(installer: Installer, package: Package, with_tff_runtime: bool) -> None:
    keeps_runtime = with_tff_runtime or (support.tff_runtime_runs_here() and has_tff_runtime())
    _remove_remains(package)
    with tempfile.TemporaryDirectory(prefix="odp-task-setup-") as folder:
        requirement = pathlib.Path(folder, "requirements.txt")
        requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="ascii")
        checked = ["--no-deps", "--require-hashes", "--requirement", str(requirement)]
        if package.name != TFF or keeps_runtime:
            installer.install([*installer.reinstall_arguments(), *checked])
            return
        # Published for one platform, for the sake of the one file that is left out here.
        unpacked = pathlib.Path(folder, "unpacked")
        installer.install([*installer.target_arguments(str(unpacked)), *checked])
        wheel = _wheel_without_worker(unpacked, package, pathlib.Path(folder))
        installer.install([*installer.reinstall_arguments(), "--no-deps", "--no-index", str(wheel)])


def _wheel_without_worker(unpacked: pathlib.Path, package: Package, folder: pathlib.Path) -> pathlib.Path:
    """A wheel for every platform of what was unpacked, with the placeholder in place of the worker."""
    base = f"{package.name.replace('-', '_')}-{package.version}"
    info = f"{base}.dist-info"
    wheel = folder / f"{base}-py3-none-any.whl"
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(unpacked.rglob("*")):
            name = path.relative_to(unpacked).as_posix()
            if not path.is_file() or path.suffix == ".pyc" or (path.parent.name == info and path.name in _NOT_OF_THE_WHEEL):
                continue
            if name.startswith("bin/") or name == ".lock":  # Of the installer, beside the packages.
                continue
            content = path.read_bytes() if name != WORKER else PLACEHOLDER.encode("ascii")
            if name == f"{info}/WHEEL":
                content = b"Wheel-Version: 1.0\nGenerator: odp-task setup\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o100755 if name == WORKER else 0o100644) << 16
            archive.writestr(entry, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode("ascii")
            rows.writerow((name, f"sha256={digest}", len(content)))
        rows.writerow((f"{info}/RECORD", "", ""))
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), record.getvalue())
    return wheel


def _remove_remains(package: Package) -> None:
    """Removes the metadata of an installation that was interrupted before its record was written: installers refuse to replace it."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        packages = pathlib.Path(str(importlib.metadata.distribution(package.name).locate_file("")))
        for info in packages.glob(f"{package.name.replace('-', '_')}-*.dist-info"):
            record = info / "RECORD"
            if not record.is_file() or not record.read_bytes().strip():
                shutil.rmtree(info)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Holds off a second setup of the same environment while one runs."""
    import fcntl

    try:
        file = open(pathlib.Path(sys.prefix, ".odp-task-setup.lock"), "a", encoding="ascii")
    except OSError:  # Not ours to write to: the installer decides where packages go, and whether.
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
