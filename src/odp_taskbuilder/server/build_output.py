"""Where the artifacts of a service's builds come from, and where artifact-only mode is to write them."""

from __future__ import annotations

import pathlib

from odp_taskbuilder import errors, sandboxed_build
from odp_taskbuilder.config.spec import TaskSpec
from odp_taskbuilder.push import artifact_files
from odp_taskbuilder.server import build_failures, work_directory


def take(job: pathlib.Path, spec: TaskSpec, artifacts_only: bool) -> pathlib.Path:
    """Takes what a build left in its sandbox, which may be anything, to where it can be pushed from.

    Raises:
      build_failures.BuildFailed: it cannot be pushed.
    """
    artifacts = job / work_directory.ARTIFACTS
    artifacts.mkdir()
    try:
        sandboxed_build.take_artifacts(job / "scratch", spec, artifacts_only, artifacts)
        artifact_files.read(artifacts)
    except (errors.ModelError, errors.ArtifactError) as error:
        # The client knows the files, and not the directory.
        raise build_failures.of_building(error.message.replace(f"{artifacts}/", "")) from error
    return artifacts


def destinations(spec: TaskSpec) -> list[str]:
    """Where artifact-only mode is to write."""
    all_rounds = [spec.training, spec.evaluation.rounds if spec.evaluation is not None else None]
    urls = [rounds.urls for rounds in all_rounds if rounds is not None]
    return [url for of_task in urls for url in (of_task.plan, of_task.client_plan, of_task.checkpoint)]
