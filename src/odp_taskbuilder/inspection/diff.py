"""What differs between two builds: not bytes, but what they say (the documents of document.py)."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any, Union

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import artifact_set, manifest
from odp_taskbuilder.inspection.document import file_document, traffic_document
from odp_taskbuilder.inspection.inspect import inspect
from odp_taskbuilder.inspection.task_facts import resolved_config, text_documents

# What stands on the side that lacks something.
ABSENT = "(absent)"
# The converter numbers the names of subgraphs as it likes.
_INCIDENTAL = "subgraphs"


@dataclasses.dataclass(frozen=True)
class Difference:
    """One fact that is not the same on both sides.

    Attributes:
      path: where it stands: file, section, ..., name.
      left, right: what either side says; ABSENT where it says nothing.
    """

    path: tuple[str, ...]
    left: str
    right: str


def diff(left: Union[str, os.PathLike], right: Union[str, os.PathLike]) -> list[Difference]:
    """Compares two artifacts, or two directories file by file.

    Raises:
      StorageError, ArtifactError: as `inspect`.
      UsageError: one side is a directory, the other a file.
    """
    left, right = pathlib.Path(left), pathlib.Path(right)
    if left.is_dir() != right.is_dir():
        raise errors.UsageError(f"{left} and {right} cannot be compared: one is a directory, the other a file")
    return list(_differences(_document(left), _document(right), ()))


def _document(path: pathlib.Path) -> dict[str, Any]:
    inspection = inspect([path])
    if not path.is_dir():
        return file_document(inspection.files[0])
    document: dict[str, Any] = {file.path.name: file_document(file) for file in inspection.files}
    for content in document.values():
        if content["kind"] == "ClientOnlyPlan" and any(
            content["client"] == other.get("client") for other in document.values() if other is not content
        ):
            # What differs in it differs in its plan.
            content["client"] = "that of the plan"
    document.update({name: _by_position(text) for name, text in text_documents(path).items()})
    document["traffic"] = {entry.task: traffic_document(entry.traffic) for entry in inspection.traffic}
    if (path / artifact_set.MANIFEST).exists():
        made = manifest.read_manifest(path)
        document[artifact_set.MANIFEST] = {"inputs": made.inputs, "versions": made.versions, "config": resolved_config(path)}
        if made.compression.is_on:
            document[artifact_set.MANIFEST]["compression"] = dataclasses.asdict(made.compression)
    return document


def _differences(left: Any, right: Any, path: tuple[str, ...]) -> Iterator[Difference]:
    left, right = _keyed(left), _keyed(right)
    if not isinstance(left, dict) or not isinstance(right, dict):
        if left != right:
            yield Difference(path, _summary(left), _summary(right))
        return
    for key in [*left, *(key for key in right if key not in left)]:
        if key == _INCIDENTAL:
            continue
        if key not in left:
            yield Difference((*path, key), ABSENT, _summary(right[key]))
        elif key not in right:
            yield Difference((*path, key), _summary(left[key]), ABSENT)
        else:
            yield from _differences(left[key], right[key], (*path, key))


def _by_position(value: Any) -> Any:
    """A list of records becomes a mapping by position, so that single fields of them are told."""
    if isinstance(value, dict):
        return {key: _by_position(part) for key, part in value.items()}
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return {f"[{index}]": _by_position(item) for index, item in enumerate(value)}
    return value


def _keyed(value: Any) -> Any:
    """A list of named records becomes a mapping by name: order does not matter, and a record is compared with its namesake."""
    if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        return {item["name"]: {key: part for key, part in item.items() if key != "name"} for item in value}
    return value


def _summary(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, dict):
        if "dtype" in value and "shape" in value:
            return f"{value['dtype']}{'[...]' if value['shape'] is None else value['shape']}"
        if "count" in value:
            return f"{value['count']} times"
        if set(value) == {"value", "origin"}:
            return f"{json.dumps(value['value'])} ({value['origin']})"
        return "(present)"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return f"{len(value)} entries"
    return value if isinstance(value, str) else json.dumps(value)
