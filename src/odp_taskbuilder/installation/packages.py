"""The packages that `odp-task setup` adds to what the wheel brings, and whether they are here, completely."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
from typing import Optional

from odp_taskbuilder import errors

TFF = "tensorflow-federated"
# The distributions that hold TensorFlow itself, of which a machine needs one.
TENSORFLOW_NAMES = ("tensorflow", "tensorflow-cpu", "tensorflow-cpu-aws", "tensorflow-macos")
# TensorFlow Federated's own runtime, the one native file of its wheel. Importing TFF checks that it exists; only its execution contexts start it.
WORKER = "tensorflow_federated/data/worker_binary"
_NATIVE = (b"\x7fELF",)
_LIST = pathlib.Path(__file__).with_name("packages.json")


@dataclasses.dataclass(frozen=True)
class Package:
    """One package to add.

    Attributes:
      name: of the distribution.
      version: the release.
      sha256: of its wheel.
      download_bytes: size of its wheel.
    """

    name: str
    version: str
    sha256: str
    download_bytes: int


def listed_packages(path: Optional[pathlib.Path] = None) -> tuple[Package, ...]:
    """The packages of a list like packages.json, by default of that, in the order in which they are installed."""
    document = json.loads((path or _LIST).read_text(encoding="utf-8"))
    return tuple(Package(name, entry["version"], entry["sha256"], entry["bytes"]) for name, entry in document.items())


def fault(package: Package) -> Optional[str]:
    """What is wrong with a package in this environment: missing, another version, incomplete; None if nothing is.

    An installation that was interrupted leaves files without their record, or a record of files that are not there. Takes milliseconds.
    """
    import importlib.metadata  # Here: every command imports this module, and few look at packages.

    try:
        distribution = importlib.metadata.distribution(package.name)
        version = distribution.version
    except importlib.metadata.PackageNotFoundError:
        return "missing"
    except (KeyError, TypeError):  # A directory of metadata without metadata.
        return "incomplete"
    if version != package.version:
        return f"{version} instead of {package.version}"
    record = distribution.read_text("RECORD")
    if not record or not record.strip():
        return "incomplete"
    for entry in distribution.files or ():
        # Compiled files are not part of a wheel, and come and go.
        if entry.suffix == ".pyc" or not entry.size:
            continue
        try:
            size = os.stat(entry.locate()).st_size
        except OSError:
            return f"incomplete: {entry} is missing"
        if size != entry.size:
            return f"incomplete: {entry} has {size} bytes instead of {entry.size}"
    return None


def require_tff() -> None:
    """Raises errors.UsageError, with the one line that helps, unless what `odp-task setup` adds is here."""
    for package in listed_packages():
        if fault(package) is not None:
            raise errors.UsageError("TensorFlow Federated is not installed completely: run `odp-task setup` once.")


def has_tff_runtime() -> bool:
    """Whether TensorFlow Federated's own runtime is here, and not what stands in its place."""
    worker = _worker_path()
    try:
        return worker is not None and worker.open("rb").read(4) in _NATIVE
    except OSError:
        return False


def require_tff_runtime() -> None:
    """Raises errors.UsageError unless TensorFlow Federated's own runtime is here."""
    require_tff()
    if not has_tff_runtime():
        from odp_taskbuilder.installation import support

        cure = (
            "`odp-task setup --with_tff_runtime` adds it (0.3 GB)"
            if support.tff_runtime_runs_here()
            else "it is published for Linux on x86-64 only"
        )
        raise errors.UsageError(
            f"TensorFlow Federated's own runtime is not installed: {cure}.",
            next_step="--engine local runs the artifacts themselves, as phones and servers do, and needs none.",
        )


def require_sandbox() -> None:
    """Raises errors.UsageError on a system that a sandbox cannot be made on: it consists of what the Linux kernel has."""
    if sys.platform != "linux":
        raise errors.UsageError(
            "Models of unknown origin are built on Linux only, whose kernel the sandbox is made of; "
            "build your own with `odp-task build --trust_model`."
        )


def _worker_path() -> Optional[pathlib.Path]:
    import importlib.metadata

    try:
        return pathlib.Path(str(importlib.metadata.distribution(TFF).locate_file(WORKER)))
    except importlib.metadata.PackageNotFoundError:
        return None
