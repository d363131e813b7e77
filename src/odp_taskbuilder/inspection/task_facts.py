"""What the text files and the manifest of a build say: tasks, report, and the config that they were built with."""

from __future__ import annotations

import hashlib
import pathlib
from typing import Any

from google.protobuf import json_format, message, text_format

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import artifact_set, manifest
from odp_taskbuilder.proto import task_builder_pb2, task_pb2
from odp_taskbuilder.push.artifact_files import MAX_TASK_BYTES

_MESSAGES = {
    artifact_set.TASK: task_pb2.Task,
    artifact_set.EVALUATION_PREFIX + artifact_set.TASK: task_pb2.Task,
    artifact_set.REPORT: task_builder_pb2.TaskReport,
}
# Of the document: what stands in the comments of a text file.
_NOTES = "notes"


def text_documents(directory: pathlib.Path) -> dict[str, dict[str, Any]]:
    """The tasks and the report of a directory by file name, as JSON documents with the comments in them as `notes`.

    A file that is no such message is told by its digest.

    Raises:
      StorageError: a file cannot be read.
    """
    return {name: _document(directory / name, kind()) for name, kind in _MESSAGES.items() if (directory / name).is_file()}


def resolved_config(directory: pathlib.Path) -> dict[str, dict[str, Any]]:
    """The values that the artifacts of a directory were built with, by path: {"value": ..., "origin": "config" | "default" | ...}.

    Empty where no usable manifest tells; `odp-task verify` says what is wrong with one.
    """
    try:
        values = manifest.read_manifest(directory).config
    except errors.OdpTaskError:
        return {}
    return {value.path: {"value": value.value, "origin": value.origin.value} for value in values}


def _document(path: pathlib.Path, parsed: message.Message) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_TASK_BYTES + 1)
    except OSError as error:
        raise errors.StorageError(f"Cannot read {path}: {error.strerror}") from error
    try:
        if len(content) > MAX_TASK_BYTES:
            raise ValueError("too large")
        text = content.decode("utf-8")
        text_format.Parse(text, parsed)
    except (ValueError, text_format.ParseError, RecursionError):
        digest = hashlib.sha256(content).hexdigest()[:16]
        return {"content": f"no {parsed.DESCRIPTOR.name} in text format; its SHA-256 starts with {digest}"}
    document = json_format.MessageToDict(parsed, preserving_proto_field_name=True)
    notes = [line[1:].strip() for line in text.splitlines() if line.startswith("#")]
    return {**document, **({_NOTES: dict.fromkeys(notes, "said")} if notes else {})}
