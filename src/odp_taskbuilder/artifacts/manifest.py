"""manifest.json: what a directory of artifacts holds, and what it was made from.

    {
      "producer": "odp-task",
      "form": "MapReduce",
      "files": {"plan.pb": {"sha256": "...", "crc32c": "...", "size": 151342}, ...},
      "inputs": {"task_config": "<sha256>", "model/saved_model.pb": "<sha256>", ...},
      "config": {"mode": {"value": "TRAINING_ONLY", "origin": "config"}, ...},
      "replaced_ops": {"client_only_plan.pb": {"MaxPoolGrad": {"count": 2, "by": "..."}, ...}, ...},
      "compression": {"update_bits": 8, "model_bits": 7, "above": 10000, "evaluation": false},
      "versions": {"odp-task": "0.1.0", "tensorflow": "2.14.1", ...},
      "sha256": "..."
    }

`config` holds every value that the tasks were built with and where it came from (config.show). `replaced_ops` is there where ops of a
client graph were replaced by ops that phones have, `compression` where something travels in codes (config/compression.py). The last
entry is the SHA-256 of the document without it, so that the manifest, too, shows when it was damaged. It holds neither times nor
paths of the machine: the same inputs give the same bytes. `crc32c` is written as Cloud Storage shows it, base64 of the big-endian
checksum, so that an uploaded object can be compared without being downloaded.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import stat
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, BinaryIO, Optional, Union

import google_crc32c

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import artifact_set
from odp_taskbuilder.config.compression import Compression
from odp_taskbuilder.config.show import ResolvedValue
from odp_taskbuilder.config.spec import Origin
from odp_taskbuilder.installation.packages import TENSORFLOW_NAMES
from odp_taskbuilder.ops.report import ReplacedOp

_PRODUCER = "odp-task"
_SELF = "sha256"
_VERSIONED = ("odp-task", "tensorflow", "tensorflow-federated", "dp-accounting")
_CHUNK_BYTES = 1 << 20
# A manifest has some ten files and the files of one model.
_MAX_MANIFEST_BYTES = 4 << 20


@dataclasses.dataclass(frozen=True)
class FileDigest:
    """The content of one file: SHA-256 in hex, CRC32C in base64, size in bytes."""

    sha256: str
    crc32c: str
    size: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The content of a manifest.json.

    Attributes:
      form: value of config.spec.PlanForm.
      files: name in the directory -> digest. The manifest itself is not among them.
      inputs: name of an input file, relative to what it belongs to -> its SHA-256.
      versions: distribution -> version that made the artifacts.
      config: the values that the tasks were built with; empty in manifests of former versions.
      replaced_ops: name of a ClientOnlyPlan -> the ops that were replaced in its graph.
      compression: with which the plans were built.
    """

    form: str
    files: Mapping[str, FileDigest]
    inputs: Mapping[str, str]
    versions: Mapping[str, str]
    config: Sequence[ResolvedValue] = ()
    replaced_ops: Mapping[str, Sequence[ReplacedOp]] = dataclasses.field(default_factory=dict)
    compression: Compression = Compression()

    def to_json(self) -> str:
        document = {
            "producer": _PRODUCER,
            "form": self.form,
            "files": {name: dataclasses.asdict(digest) for name, digest in sorted(self.files.items())},
            "inputs": dict(sorted(self.inputs.items())),
            "versions": dict(self.versions),
        }
        if self.config:
            document["config"] = {item.path: {"value": item.value, "origin": item.origin.value} for item in self.config}
        if self.replaced_ops:
            document["replaced_ops"] = {
                name: {op.op: {"count": op.count, "by": op.by} for op in ops} for name, ops in sorted(self.replaced_ops.items())
            }
        if self.compression.is_on:
            document["compression"] = dataclasses.asdict(self.compression)
        document[_SELF] = hashlib.sha256(_render(document)).hexdigest()
        return _render(document).decode()


def digest_file(path: Union[str, os.PathLike]) -> FileDigest:
    """Reads a file once, a chunk at a time. Raises OSError."""
    sha256, crc32c, size = hashlib.sha256(), google_crc32c.Checksum(), 0
    with _open(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha256.update(chunk)
            crc32c.update(chunk)
            size += len(chunk)
    return FileDigest(sha256.hexdigest(), base64.b64encode(crc32c.digest()).decode("ascii"), size)


def digest_bytes(content: bytes) -> str:
    """SHA-256 in hex, for an input that is not a file."""
    return hashlib.sha256(content).hexdigest()


def digest_directory(directory: Union[str, os.PathLike], name: str) -> dict[str, str]:
    """SHA-256 of each regular file below a directory, under `name/<relative path>`; for the inputs of a manifest. Raises OSError."""
    root = pathlib.Path(directory)
    paths = sorted(path for path in root.rglob("*") if stat.S_ISREG(path.stat().st_mode))
    return {f"{name}/{path.relative_to(root).as_posix()}": digest_file(path).sha256 for path in paths}


def make_manifest(
    directory: Union[str, os.PathLike],
    *,
    form: str,
    inputs: Mapping[str, str],
    config: Sequence[ResolvedValue] = (),
    replaced: Mapping[str, Sequence[ReplacedOp]] = MappingProxyType({}),
    compression: Compression = Compression(),
) -> Manifest:
    """The manifest of the files that are in a directory now; `replaced` by file prefix of a task. Raises OSError."""
    files = {entry.name: digest_file(entry.path) for entry in os.scandir(os.fspath(directory)) if entry.name != artifact_set.MANIFEST}
    versions = {name: version for name, version in ((name, _installed_version(name)) for name in _VERSIONED) if version is not None}
    replaced_ops = {prefix + artifact_set.CLIENT_ONLY_PLAN: tuple(ops) for prefix, ops in replaced.items() if ops}
    return Manifest(form, files, dict(inputs), versions, tuple(config), replaced_ops, compression)


def _installed_version(name: str) -> Optional[str]:
    import importlib.metadata  # Here: many read manifests, and few write them.

    for distribution in TENSORFLOW_NAMES if name == "tensorflow" else (name,):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return None


def read_manifest(directory: Union[str, os.PathLike]) -> Manifest:
    """Reads the manifest of a directory of artifacts.

    Raises:
      StorageError: there is none, or it cannot be read.
      ArtifactError: it is not a manifest of ours.
    """
    path = pathlib.Path(directory) / artifact_set.MANIFEST
    try:
        with _open(path) as file:
            content = file.read(_MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise errors.StorageError(f"Cannot read {path}: {error.strerror}") from error
    if len(content) > _MAX_MANIFEST_BYTES:
        raise errors.ArtifactError(f"{path} is no manifest: it is larger than {_MAX_MANIFEST_BYTES} bytes")
    try:
        result = parse_manifest(content)
    except ValueError as error:
        raise errors.ArtifactError(f"{path} is no manifest of odp-task: {error}") from None
    if result.to_json().encode() != content:
        raise errors.ArtifactError(f"{path} was changed after it was written")
    return result


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is in a directory, beside what its manifest lists.

    Attributes:
      manifest: None where the directory has none; nothing is a fault then.
      found: file name -> digest, of the listed files that are there; without a manifest of all files.
      faults: name of a listed file -> what is wrong with it, as a predicate: "is missing", ...
      unlisted: names of files that are there and in no list.
    """

    manifest: Optional[Manifest]
    found: Mapping[str, FileDigest]
    faults: Mapping[str, str]
    unlisted: tuple[str, ...]


def compare(directory: Union[str, os.PathLike]) -> Comparison:
    """Reads the files that the manifest of a directory lists, or all where there is no manifest, and compares them with it.

    Raises:
      StorageError: the directory or a file in it cannot be read.
      ArtifactError: the manifest is none of ours.
    """
    directory = pathlib.Path(directory)
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise errors.StorageError(f"Cannot read {directory}: {error.strerror}") from error
    listed = read_manifest(directory) if artifact_set.MANIFEST in names else None
    found: dict[str, FileDigest] = {}
    for name in names:
        path = directory / name
        if path.is_file() and (name != artifact_set.MANIFEST if listed is None else name in listed.files):
            try:
                found[name] = digest_file(path)
            except OSError as error:
                raise errors.StorageError(f"Cannot read {path}: {error.strerror}") from error
    if listed is None:
        return Comparison(None, found, {}, ())
    faults = {}
    for name, digest in sorted(listed.files.items()):
        if name not in found:
            faults[name] = "is missing"
        elif found[name] != digest:
            faults[name] = f"is not the file that {artifact_set.MANIFEST} lists: its digest differs"
    unlisted = tuple(name for name in names if name not in listed.files and name != artifact_set.MANIFEST)
    return Comparison(listed, found, faults, unlisted)


def require_as_built(directory: Union[str, os.PathLike]) -> Comparison:
    """Compares a directory of artifacts with its manifest; one without a manifest passes, and so do files beside those that it lists.

    Raises:
      StorageError, ArtifactError: as `compare`; also when a listed file is missing or another.
    """
    comparison = compare(directory)
    if comparison.faults:
        faults = "; ".join(f"{os.path.join(directory, name)} {fault}" for name, fault in comparison.faults.items())
        raise errors.ArtifactError(f"{faults}.", next_step="Build it again: odp-task build.")
    return comparison


def parse_manifest(content: bytes) -> Manifest:
    """Reads what `Manifest.to_json` wrote; its own digest is not looked at. Raises ValueError."""
    try:
        return _from_document(json.loads(content))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _open(path: Union[str, os.PathLike]) -> BinaryIO:
    # Opening a pipe that nobody writes to would wait for ever.
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))


def _render(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()


def _from_document(document: Any) -> Manifest:
    if not isinstance(document, dict) or document.get("producer") != _PRODUCER:
        raise ValueError(f"expected an object with producer {_PRODUCER!r}")
    files = {}
    for name, digest in _mapping(document, "files").items():
        if not isinstance(digest, dict) or set(digest) != {"sha256", "crc32c", "size"} or not isinstance(digest["size"], int):
            raise ValueError(f"the entry of {name!r} is not made of sha256, crc32c and size")
        if pathlib.PurePath(name).name != name or name in ("", ".", "..", artifact_set.MANIFEST):
            raise ValueError(f"{name!r} is not the name of an artifact")
        files[name] = FileDigest(str(digest["sha256"]), str(digest["crc32c"]), digest["size"])
    inputs, versions = _mapping(document, "inputs"), _mapping(document, "versions")
    form, replaced = str(document.get("form")), _replaced_ops(document)
    return Manifest(form, files, inputs, versions, _config(document), replaced, _compression(document))


def _config(document: Mapping[str, Any]) -> tuple[ResolvedValue, ...]:
    values = []
    for path, entry in _mapping(document, "config").items() if "config" in document else ():
        if not isinstance(entry, dict) or set(entry) != {"value", "origin"}:
            raise ValueError(f"the config's {path!r} is not made of value and origin")
        if not isinstance(entry["value"], (str, int, float, bool, type(None))):
            raise ValueError(f"the value of the config's {path!r} is no single value")
        values.append(ResolvedValue(path, entry["value"], Origin(entry["origin"])))
    return tuple(values)


def _replaced_ops(document: Mapping[str, Any]) -> dict[str, tuple[ReplacedOp, ...]]:
    result = {}
    for name, ops in _mapping(document, "replaced_ops").items() if "replaced_ops" in document else ():
        if not isinstance(ops, dict):
            raise ValueError(f"the replaced ops of {name!r} are not an object")
        for op, entry in ops.items():
            if not isinstance(entry, dict) or set(entry) != {"count", "by"} or not isinstance(entry["count"], int):
                raise ValueError(f"the entry of the replaced op {op!r} is not made of count and by")
        result[name] = tuple(ReplacedOp(op, entry["count"], str(entry["by"])) for op, entry in ops.items())
    return result


def _compression(document: Mapping[str, Any]) -> Compression:
    if "compression" not in document:
        return Compression()
    entry = _mapping(document, "compression")
    if set(entry) != {field.name for field in dataclasses.fields(Compression)}:
        raise ValueError("the entry of compression is not made of update_bits, model_bits, above and evaluation")
    try:
        return Compression(**entry)
    except errors.UsageError as error:
        raise ValueError(error.message) from None


def _mapping(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    if not isinstance(value, dict):
        raise ValueError(f"{key!r} is not an object")
    return value
