"""What a build service runs in the sandbox: the build itself, on copies of everything, without a network."""

from __future__ import annotations

import base64
import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

from odp_taskbuilder import errors, sandboxed_build
from odp_taskbuilder.artifacts import directory, tasks
from odp_taskbuilder.build import build_tasks
from odp_taskbuilder.config import LoadedConfig, resolve
from odp_taskbuilder.config.build_options import BuildOptions
from odp_taskbuilder.config.spec import ResolveOptions
from odp_taskbuilder.privacy import privacy_budget
from odp_taskbuilder.proto import task_builder_pb2
from odp_taskbuilder.sandbox import failures


def build(saved_model: str, task_config: str, options: dict[str, bool]) -> dict[str, Any]:
    """Builds into the directory `artifacts` of the working directory.

    Args:
      saved_model: a directory.
      task_config: the serialized TaskConfig, in base64.
      options: skip_flex_ops_check, skip_dp_check, skip_dp_aggregator, artifact_only.

    Returns:
      `report`: the serialized TaskReport in base64, as far as the build got; and, if it failed, `error` (sandbox/failures.py)
      and the `stage` that it failed in.
    """
    loaded = LoadedConfig(task_builder_pb2.TaskConfig.FromString(base64.b64decode(task_config)))
    resolve_options = ResolveOptions(
        skip_dp_check=options["skip_dp_check"],
        skip_dp_aggregator=options["skip_dp_aggregator"],
        require_artifact_urls=options["artifact_only"],
    )
    stages = ["resolving the config"]

    @contextlib.contextmanager
    def stage(name: str) -> Iterator[None]:
        stages.append(name)
        yield

    try:
        build_options = BuildOptions(
            resolve=resolve_options,
            skip_flex_ops_check=options["skip_flex_ops_check"],
            artifact_only=options["artifact_only"],
        )
        built = build_tasks(saved_model, loaded, build_options, stage=stage)
        directory.save(
            built.artifacts,
            pathlib.Path(sandboxed_build.DIRECTORY),
            form=built.spec.form.value,
            inputs=built.inputs,
            config=tasks.built_with(built.spec, built.budget),
            replaced={prefix: ops.replaced for prefix, ops in built.ops.items()},
        )
    except (errors.ConfigError, errors.PrivacyBudgetError) as error:
        return {"error": failures.to_document(error), "stage": stages[-1], "report": ""}
    except errors.OdpTaskError as error:
        report = _report_so_far(loaded, resolve_options)
        return {"error": failures.to_document(error), "stage": stages[-1], "report": _encoded(report)}
    return {"report": _encoded(built.report)}


def _report_so_far(loaded: LoadedConfig, options: ResolveOptions) -> task_builder_pb2.TaskReport:
    """What a failed build can say of itself: nothing unless its config and its privacy budget are in order."""
    try:
        spec = resolve(loaded, options)
        return tasks.task_report(spec, privacy_budget(spec.privacy))
    except errors.OdpTaskError:
        return task_builder_pb2.TaskReport()


def _encoded(report: task_builder_pb2.TaskReport) -> str:
    return base64.b64encode(report.SerializeToString()).decode("ascii")
