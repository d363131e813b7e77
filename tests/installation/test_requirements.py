"""What the code imports, the wheel requires: nothing is here by the grace of another package's requirements."""

from __future__ import annotations

import ast
import importlib.metadata
import pathlib
import re
import sys
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement

from odp_taskbuilder.installation import packages

SOURCE = pathlib.Path(__file__).resolve().parents[2] / "src" / "odp_taskbuilder"


def imported_modules() -> dict[str, pathlib.Path]:
    """Modules that the source imports, wherever it does, each with one of the files."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update((alias.name, path) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                found.update((f"{node.module}.{alias.name}", path) for alias in node.names)
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required() -> Iterator[str]:
    for text in importlib.metadata.requires("odp-task"):
        yield normal(Requirement(text).name)
    # What `odp-task setup` adds.
    yield from (normal(package.name) for package in packages.listed_packages())


@pytest.mark.skipif(sys.version_info < (3, 10), reason="Python 3.9 cannot list the modules of the standard library")
def test_every_imported_package_is_a_stated_requirement():
    owners: dict[str, set[str]] = {}
    for distribution in importlib.metadata.distributions():
        name = normal(distribution.metadata["Name"])
        for path in re.findall(r"^([\w/]+)\.py,", distribution.read_text("RECORD") or "", re.MULTILINE):
            owners.setdefault(path.replace("/", ".").replace(".__init__", ""), set()).add(name)
    stated = set(required())
    # Debian's own binding of libseccomp, which no distribution has; pyseccomp serves as well.
    unowned = {"seccomp"}
    seen = set()
    for module, path in imported_modules().items():
        parts = module.split(".")
        if parts[0] in {*sys.stdlib_module_names, "odp_taskbuilder", *unowned}:
            continue
        # The first package on the way: `google` is none, and shared by many.
        owner = next((owners[name] for name in (".".join(parts[:n]) for n in range(1, len(parts) + 1)) if name in owners), None)
        assert owner is not None, f"{path}: nothing installed has {module}"
        assert owner & stated, f"{path}: {module} is of {sorted(owner)}, which no requirement of the wheel states"
        seen |= owner
    assert {"tensorboard", "google-api-core", "google-cloud-storage", "tensorflow-federated", "click"} <= seen
