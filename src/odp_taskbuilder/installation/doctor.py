"""`odp-task doctor`: what odp-task finds on this machine, and what to do about what is wrong."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import pathlib
import platform
import shutil
import sys
import tempfile
from typing import Any, Optional

from odp_taskbuilder import errors
from odp_taskbuilder.base import memory, processors
from odp_taskbuilder.installation import packages, support

_ADDED = ("tensorflow-federated", "tensorflow-privacy", "google-vizier")
_SHOWN = ("odp-task", *packages.TENSORFLOW_NAMES, *_ADDED, "dp-accounting", "jax", "jaxlib", "numpy", "protobuf")
# TensorFlow, TFF and a small task: 0.7 GiB (docs/architecture.md); some for the task.
_MEMORY_BYTES = 3 << 29
_TEMPORARY_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something to mend.

    Attributes:
      message: what is wrong, in one sentence.
      cure: what to do.
      prevents_builds: whether nothing can be built as it is; other faults concern single commands.
    """

    message: str
    cure: str
    prevents_builds: bool = True

    def __str__(self) -> str:
        return f"{self.message} {self.cure}"


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
      platform: system, processor, C library, Python and where it is.
      versions: distribution -> installed version.
      tff_runtime: whether `simulate --engine tff` can run.
      processors: that this process may use.
      memory_bytes: that this process may have in all; None where nobody tells.
      available_memory_bytes: that are free now; None where nobody tells.
      sandbox: what a sandbox prevents here, as (name, in force, means); empty if no sandbox can be made.
      faults: what to mend.
    """

    platform: dict[str, str]
    versions: dict[str, str]
    tff_runtime: bool
    processors: int
    memory_bytes: Optional[int]
    available_memory_bytes: Optional[int]
    sandbox: tuple[tuple[str, bool, str], ...]
    faults: tuple[Fault, ...]

    @property
    def can_build(self) -> bool:
        return not any(fault.prevents_builds for fault in self.faults)

    def to_document(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in ("sandbox", "faults")},
            "sandbox": [{"prevented": name, "in_force": in_force, "means": means} for name, in_force, means in self.sandbox],
            "faults": [dataclasses.asdict(fault) for fault in self.faults],
            "can_build": self.can_build,
        }


def diagnose() -> Diagnosis:
    """Looks at everything that odp-task needs; nothing is imported that takes long, nothing is changed, and no network is used."""
    faults: list[Fault] = []
    reason = support.unsupported()
    if reason is not None:
        faults.append(Fault(reason, "Use a machine or an interpreter that is."))
    faults += _package_faults()
    faults += _machine_faults()
    protections, sandbox_faults = _sandbox()
    faults += sandbox_faults
    total, available = memory.memory_bytes()
    return Diagnosis(
        platform={
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
            "libc": " ".join(filter(None, platform.libc_ver())) or "unknown",
            "python": platform.python_version(),
            "environment": sys.prefix,
        },
        versions={name: version for name, version in ((name, _version(name)) for name in _SHOWN) if version is not None},
        tff_runtime=packages.has_tff_runtime(),
        processors=processors.available_processors(),
        memory_bytes=total,
        available_memory_bytes=available,
        sandbox=protections,
        faults=tuple(faults),
    )


def _version(name: str) -> Optional[str]:
    try:
        return importlib.metadata.version(name)
    except (importlib.metadata.PackageNotFoundError, KeyError, TypeError):
        return None


def _package_faults() -> list[Fault]:
    faults = []
    try:
        required = importlib.metadata.requires("odp-task") or []
    except importlib.metadata.PackageNotFoundError:
        # What it requires is written in its metadata.
        return [Fault("odp-task runs without being installed.", "Install the wheel, or run scripts/odp-task.", prevents_builds=False), *_added_faults()]
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return [Fault("packaging is missing.", "pip install 'packaging>=22,<23'")]
    for requirement in map(Requirement, required):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        alike = packages.TENSORFLOW_NAMES if requirement.name in packages.TENSORFLOW_NAMES else ()
        version = next(filter(None, map(_version, (requirement.name, *alike))), None)
        if version is None:
            faults.append(Fault(f"{requirement.name} is missing.", f"pip install '{requirement.name}{requirement.specifier}'"))
        elif version not in requirement.specifier:
            faults.append(
                Fault(
                    f"{requirement.name} is {version}; {requirement.specifier} is needed.",
                    f"pip install '{requirement.name}{requirement.specifier}'",
                )
            )
    faults += _added_faults()
    if sys.platform == "linux" and platform.machine() == "x86_64" and _version("tensorflow") and _version("tensorflow-cpu"):
        faults.append(
            Fault(
                "tensorflow and tensorflow-cpu are both installed, in the same directory: the last one installed is the one in use.",
                "Give odp-task an environment of its own.",
                prevents_builds=_version("tensorflow") != _version("tensorflow-cpu"),
            )
        )
    return faults


def _added_faults() -> list[Fault]:
    added = [f"{package.name} is {fault}" for package in packages.listed_packages() if (fault := packages.fault(package)) is not None]
    return [Fault(f"Not set up: {'; '.join(added)}.", "Run `odp-task setup`.")] if added else []


def _machine_faults() -> list[Fault]:
    faults = []
    if sys.platform == "linux" and platform.machine() == "x86_64" and not _has_avx():
        faults.append(Fault("This processor has no AVX, which TensorFlow is compiled for.", "Use another machine."))
    _, available = memory.memory_bytes()
    if available is not None and available < _MEMORY_BYTES:
        faults.append(
            Fault(
                f"{available / 2**30:.1f} GiB of memory are free; a build of a small model takes 0.7 GiB, a large one up to three times its weights more.",
                "End other programs, or raise the limit of the container.",
                prevents_builds=False,
            )
        )
    folder = tempfile.gettempdir() if _has_temporary_directory() else None
    if folder is None:
        faults.append(Fault("There is no directory for temporary files.", "Set TMPDIR to one that you can write to."))
    elif shutil.disk_usage(folder).free < _TEMPORARY_BYTES:
        faults.append(Fault(f"{folder} is full.", "Make room there, or set TMPDIR to another directory."))
    return faults


def _has_avx() -> bool:
    try:
        return " avx " in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True


def _has_temporary_directory() -> bool:
    try:
        return os.access(tempfile.gettempdir(), os.W_OK)
    except FileNotFoundError:
        return False


def _sandbox() -> tuple[tuple[tuple[str, bool, str], ...], list[Fault]]:
    if sys.platform != "linux":
        return (), [
            Fault(
                "There is no sandbox on this system: it is made of what the Linux kernel has.",
                "Build models of unknown origin on Linux; --trust_model is for models of your own.",
                prevents_builds=False,
            )
        ]
    from odp_taskbuilder import sandbox

    try:
        protections = tuple((each.name, each.in_force, each.means) for each in sandbox.available())
    except (errors.OdpTaskError, OSError) as error:
        return (), [
            Fault(f"No sandbox can be made here: {error}", "Build models of unknown origin on another machine.", prevents_builds=False)
        ]
    lacking = [f"{name} ({means})" for name, in_force, means in protections if not in_force]
    if not lacking:
        return protections, []
    return protections, [
        Fault(
            f"The sandbox does not prevent: {'; '.join(lacking)}.",
            "Build models of unknown origin where the kernel grants it; models of your own need none of it.",
            prevents_builds=False,
        )
    ]
