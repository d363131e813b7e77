"""Taking what a sandboxed build left, which may be anything, to where it can be pushed from."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO, Callable

from google.protobuf import text_format

from odp_taskbuilder import errors, sandbox, tasks
from odp_taskbuilder.artifacts import artifact_set
from odp_taskbuilder.config.spec import ArtifactUrls, TaskSpec
from odp_taskbuilder.proto import task_pb2
from odp_taskbuilder.service import artifact_files, build_failures

# Where a build leaves its artifacts, below its scratch directory.
DIRECTORY = "artifacts"


def take(job: pathlib.Path, spec: TaskSpec, artifacts_only: bool) -> pathlib.Path:
    """Moves the files of a build out of its sandbox, and writes the tasks that go with them.

    The tasks are made here, from the request; of what the sandbox says, only the version that a client plan needs is used.
    """
    built, artifacts = job / "scratch" / DIRECTORY, job / "artifacts"
    artifacts.mkdir()
    for role, fill, urls_of_role in _roles(spec):
        prefix = artifact_files.PREFIXES[role]
        version = _min_client_version(built, f"{prefix}{artifact_set.TASK}")
        task = tasks.artifact_only_task(urls_of_role, version) if artifacts_only else fill(spec, version)
        (artifacts / f"{prefix}{artifact_set.TASK}").write_text(text_format.MessageToString(task), encoding="utf-8")
        for name in (artifact_set.PLAN, artifact_set.CLIENT_ONLY_PLAN, artifact_set.CHECKPOINT):
            # Opening it finds out whether it is a file, and no link to one of ours. The sandbox has ended.
            with _sandbox_output(built, f"{prefix}{name}"):
                os.rename(built / f"{prefix}{name}", artifacts / f"{prefix}{name}")
    return artifacts


def _roles(spec: TaskSpec) -> Iterator[tuple[str, Callable[[TaskSpec, str], task_pb2.Task], ArtifactUrls]]:
    if spec.training is not None:
        yield artifact_files.TRAINING, tasks.training_task, spec.training.urls
    if spec.evaluation is not None:
        yield artifact_files.EVALUATION, tasks.evaluation_task, spec.evaluation.rounds.urls


def _min_client_version(built: pathlib.Path, name: str) -> str:
    with _sandbox_output(built, name) as file:
        try:
            version = text_format.Parse(file.read().decode("utf-8"), task_pb2.Task()).min_client_version
        except (ValueError, text_format.ParseError) as error:
            raise build_failures.of_building(f"{name} is no task") from error
    if version and not (version.isascii() and version.isdigit()):
        raise build_failures.of_building(f"{name} has no usable min_client_version")
    return version


def _sandbox_output(built: pathlib.Path, name: str) -> BinaryIO:
    try:
        # The directory itself may have been replaced by a link, too.
        if built.is_symlink():
            raise errors.ModelError("The sandboxed work left a link in place of its output.")
        return sandbox.open_output(built, name, artifact_files.MAX_ARTIFACT_BYTES)
    except errors.ModelError as error:
        raise build_failures.of_building(error.message) from error


def destinations(spec: TaskSpec) -> list[str]:
    """Where artifact-only mode is to write."""
    return [url for _, _, of_role in _roles(spec) for url in (of_role.plan, of_role.client_plan, of_role.checkpoint)]
