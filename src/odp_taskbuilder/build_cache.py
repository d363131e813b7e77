"""Builds that were made before, by all that their artifacts depend on: `odp-task build` takes them from here, without TensorFlow.

    $XDG_CACHE_HOME/odp-task/builds/<key>/entry.json, plan.pb, ...

The key is a digest of everything that a build reads: the model's files, the resolved config, every option, the versions of what it runs
on and the files of this package itself. An entry appears whole or not at all, and is used only if every file has the digest that was
written with it. Entries that were used last stay, up to a total size. The directory is the user's own, as is what is built from it.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import enum
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from typing import Any, Optional

from odp_taskbuilder import build_request, errors
from odp_taskbuilder.artifacts import artifact_set, directory, manifest
from odp_taskbuilder.base.cache import make_cache_directory
from odp_taskbuilder.base.private_directory import private_directory
from odp_taskbuilder.config import LoadedConfig
from odp_taskbuilder.config.build_options import BuildOptions
from odp_taskbuilder.config.spec import DpAggregator, TaskSpec
from odp_taskbuilder.privacy import PrivacyBudget
from odp_taskbuilder.proto import task_builder_pb2

# Of all entries together, and of one that is worth keeping.
MAX_BYTES = 1 << 30
MAX_ENTRY_BYTES = 1 << 28
_ENTRY = "entry.json"
_MAX_ENTRY_JSON_BYTES = 4 << 20
_STAGING_PREFIX = ".new-"
_CHUNK_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class BuiltFacts:
    """What a build says beside its artifacts.

    Attributes:
      notices: all of them, those of the resolved config first.
    """

    notices: tuple[str, ...]
    budget: PrivacyBudget
    report: task_builder_pb2.TaskReport
    task_group: task_builder_pb2.TaskGroup


class _Damaged(Exception):
    """An entry is not what was written."""


class BuildCache:
    """
    Attributes:
      notices: what was found out of order, one sentence each.
    """

    def __init__(self) -> None:
        self.notices: list[str] = []

    def key(
        self, saved_model: pathlib.Path, task_config: LoadedConfig, spec: TaskSpec, options: BuildOptions
    ) -> Optional[str]:
        """What a build depends on, as one name; None for one that is built every time: noise with seeds of its own, or a model that is too
        large to be read before the scan has looked at it.

        Raises:
          ModelError: the model cannot be read.
        """
        if spec.mode.trains and not spec.privacy.skip_aggregator and spec.privacy.aggregator.is_tree:
            return None
        with contextlib.suppress(OSError):
            if sum(path.lstat().st_size for path in saved_model.rglob("*")) > MAX_ENTRY_BYTES:
                return None
        # Whatever fields they have.
        document = {
            "inputs": dict(sorted(build_request.input_digests(saved_model, task_config).items())),
            "spec": _plain(spec),
            "options": _plain(options),
            "versions": _versions(),
            "package": _package_digest(),
            "machine": [platform.machine(), sys.version],
        }
        return manifest.digest_bytes(json.dumps(document, sort_keys=True).encode())

    def take(
        self, key: str, destination: pathlib.Path, *, overwrite: bool
    ) -> Optional[tuple[BuiltFacts, manifest.Manifest]]:
        """Puts the artifacts of a former build into a directory, completely or not at all; None if there are none, or damaged ones, which
        are removed.

        Raises:
          StorageError: the directory cannot be written.
        """
        builds = _entries()
        if builds is None:
            return None
        entry = builds / key
        with contextlib.ExitStack() as held:
            try:
                opened = os.open(entry, os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                return None
            held.callback(os.close, opened)
            try:
                facts, files = _read_entry(entry)
                with directory.staged_directory(destination, overwrite=overwrite) as staging:
                    for name, digest in files.items():
                        _copy(entry / name, staging / name, digest)
                    written = manifest.read_manifest(staging)
            except (_Damaged, errors.ArtifactError) as error:
                # Other builds make room, and put entries of the same name in the place of damaged ones.
                if _is_at(opened, entry):
                    self.notices.append(f"The cached build {entry} is damaged ({error}) and is made anew.")
                    _remove(entry)
                return None
        with contextlib.suppress(OSError):
            os.utime(entry)
        return facts, written

    def keep(self, key: str, artifacts: pathlib.Path, facts: BuiltFacts) -> None:
        """Keeps the artifacts in a directory, unless they are too large or the cache cannot be written: then they are built again."""
        builds = _entries()
        if builds is None:
            return
        with contextlib.suppress(OSError, errors.ArtifactError, errors.StorageError):
            files = {path.name: path.stat().st_size for path in artifacts.iterdir()}
            if sum(files.values()) > MAX_ENTRY_BYTES:
                return
            with private_directory(builds, _STAGING_PREFIX) as private:
                entry = private / "entry"
                entry.mkdir()
                digests = {}
                for name in files:
                    shutil.copyfile(artifacts / name, entry / name)
                    digests[name] = manifest.digest_file(entry / name).sha256
                # Somebody may have touched them meanwhile.
                manifest.require_as_built(entry)
                (entry / _ENTRY).write_bytes(_entry_json(facts, digests))
                # Fails where another build was first, whose entry is as good.
                os.rename(entry, builds / key)
            _keep_within(builds, MAX_BYTES)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    # Anything whose content is not known here would be left out of the key.
    raise TypeError(f"{type(value).__name__} cannot be part of a cache key")


@functools.cache
def _versions() -> dict[str, str]:
    """Of the libraries that this one names as its requirements."""
    versions = {}
    try:
        required = importlib.metadata.requires("odp-task") or ()
    except importlib.metadata.PackageNotFoundError:
        required = ()
    for requirement in (*required, "keras", "jax", "scipy"):
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return dict(sorted(versions.items()))


@functools.cache
def _package_digest() -> str:
    """Of this package's own files: a checkout changes without its version."""
    root = pathlib.Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def _entries() -> Optional[pathlib.Path]:
    """The directory of all entries; None where there can be none."""
    try:
        builds = make_cache_directory() / "builds"
        builds.mkdir(mode=0o700, exist_ok=True)
        return builds
    except OSError:
        return None


def _entry_json(facts: BuiltFacts, digests: Mapping[str, str]) -> bytes:
    document = {
        "files": dict(sorted(digests.items())),
        "notices": list(facts.notices),
        "budget": _plain(facts.budget),
        "report": base64.b64encode(facts.report.SerializeToString()).decode(),
        "task_group": base64.b64encode(facts.task_group.SerializeToString()).decode(),
    }
    content = json.dumps(document).encode()
    return manifest.digest_bytes(content).encode() + b"\n" + content


def _read_entry(entry: pathlib.Path) -> tuple[BuiltFacts, dict[str, str]]:
    try:
        with open(entry / _ENTRY, "rb") as file:
            digest, _, content = file.read(_MAX_ENTRY_JSON_BYTES).partition(b"\n")
    except OSError as error:
        raise _Damaged(f"{_ENTRY}: {error.strerror}") from error
    if manifest.digest_bytes(content).encode() != digest:
        raise _Damaged(f"{_ENTRY} was changed")
    document = json.loads(content)
    budget = document["budget"]
    aggregator = budget["aggregator"] and DpAggregator(budget["aggregator"])
    facts = BuiltFacts(
        notices=tuple(document["notices"]),
        budget=PrivacyBudget(**{**budget, "aggregator": aggregator, "assumptions": tuple(budget["assumptions"])}),
        report=task_builder_pb2.TaskReport.FromString(base64.b64decode(document["report"])),
        task_group=task_builder_pb2.TaskGroup.FromString(base64.b64decode(document["task_group"])),
    )
    files = document["files"]
    if artifact_set.MANIFEST not in files:
        raise _Damaged("it has no manifest")
    return facts, files


def _copy(source: pathlib.Path, target: pathlib.Path, digest: str) -> None:
    """Copies a file and looks at what was copied. Raises _Damaged; OSError if the target cannot be written."""
    found = hashlib.sha256()
    try:
        opened = open(source, "rb")
    except OSError as error:
        raise _Damaged(f"{source.name}: {error.strerror}") from error
    with opened, open(target, "xb") as copy:
        while chunk := opened.read(_CHUNK_BYTES):
            found.update(chunk)
            copy.write(chunk)
    if found.hexdigest() != digest:
        raise _Damaged(f"{source.name} was changed")


def _is_at(opened: int, path: pathlib.Path) -> bool:
    """Whether an open directory is the one of a path."""
    try:
        return os.path.samestat(os.fstat(opened), os.stat(path))
    except OSError:
        return False


def _keep_within(builds: pathlib.Path, max_bytes: int) -> None:
    """Removes the entries that nobody has used for longest."""
    entries = []
    for path in builds.iterdir():
        if not path.name.startswith("."):
            with contextlib.suppress(OSError):
                entries.append((path.stat().st_mtime, path, sum(file.stat().st_size for file in path.iterdir())))
    total = sum(size for _, _, size in entries)
    for _, path, size in sorted(entries):
        if total <= max_bytes:
            return
        _remove(path)
        total -= size


def _remove(entry: pathlib.Path) -> None:
    """Removes an entry in one step, as others see it."""
    with contextlib.suppress(OSError), private_directory(entry.parent, _STAGING_PREFIX) as private:
        os.rename(entry, private / "removed")
