"""The pipeline of build.py with the model in a sandbox: `odp-task build --sandbox`.

This process reads the config, spends the privacy budget, scans the model and writes the result; TensorFlow, and with it the model,
runs in a child without network or files of the user's (sandbox/). Of what the child leaves, only the plans, the checkpoints and the
version that each client plan needs are used; tasks, report and manifest are made here.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

from google.protobuf import text_format

from odp_taskbuilder import errors, sandbox
from odp_taskbuilder.artifacts import artifact_set, coded_tensors, directory, manifest, phone_fit, plan_reader, tasks
from odp_taskbuilder.base import server_limits
from odp_taskbuilder.base.stages import Stage, unannounced
from odp_taskbuilder.build import BuildResult, build_tasks
from odp_taskbuilder.build_request import BuildRequest, Path, check_request, input_digests
from odp_taskbuilder.config import LoadedConfig
from odp_taskbuilder.config.build_options import DEFAULT_OUTPUT, BuildOptions
from odp_taskbuilder.config.compression import Compression
from odp_taskbuilder.config.spec import ResolveOptions, TaskSpec
from odp_taskbuilder.model import admission
from odp_taskbuilder.ops.report import ReplacedOp, check_runtime, ops_report
from odp_taskbuilder.privacy import budget_of
from odp_taskbuilder.proto import task_builder_pb2, task_pb2
from odp_taskbuilder.push import artifact_files
from odp_taskbuilder.stores import inputs
from odp_taskbuilder.transport import deadline as deadlines

# Where the child leaves its artifacts, below its scratch directory.
DIRECTORY = "artifacts"

_MAX_MANIFEST_BYTES = 1 << 20

_BUILD_FUNCTION = "odp_taskbuilder.sandboxed_build:build_in_scratch"


def build_sandboxed(
    saved_model: Path,
    task_config: Path,
    output: Path = DEFAULT_OUTPUT,
    options: BuildOptions = BuildOptions(),
    *,
    overwrite: bool = False,
    stage: Stage = unannounced,
    network: deadlines.Network = deadlines.Network(),
) -> BuildResult:
    """Builds as `build.build` does, with the same arguments, result and errors, but loads the model in a sandbox only.

    With `options.trust_model` the sandbox is all that stands between the model and this machine.

    Raises:
      errors.ModelError: also when the child crashed, reached one of its limits, or left something else than artifacts.
    """
    request = check_request(task_config, output, options, overwrite=overwrite, network=network)
    spec = request.spec
    with contextlib.ExitStack() as stack:
        model = stack.enter_context(inputs.local_model(saved_model, stage, network))
        scratch = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="odp-task-sandbox-")))
        if not options.trust_model:
            with stage("scanning the model"):
                admission.require_fit(model, request.task_config, spec.label_name)
        with stage("privacy accounting"):
            budget = budget_of(spec)
        # Only now: the scan has bounded how much there is to read.
        digests = input_digests(model, request.task_config)
        spec = phone_fit.fitting_phones(spec, model, options.max_client_checkpoint_bytes, options.compression)
        spec, budget = coded_tensors.with_what_travels(spec, budget, model, options.compression)
        report = tasks.task_report(spec, budget)
        with stage("building in the sandbox"):
            _run(model, request, scratch)
        with stage("writing artifacts"), directory.staged_directory(request.destination, overwrite=overwrite) as staging:
            group = take_artifacts(scratch, spec, options.artifact_only, staging)
            replaced = _replaced_ops(scratch)
            spec = spec.with_notices(tasks.notices_about_replaced_ops(replaced))
            spec = spec.with_notices(_runtime_notices(staging, options))
            (staging / artifact_set.REPORT).write_text(tasks.report_text(report, budget, spec), encoding="utf-8")
            written = manifest.make_manifest(
                staging,
                form=spec.form.value,
                inputs=digests,
                config=tasks.built_with(spec, budget),
                replaced=replaced,
                compression=options.compression,
            )
            (staging / artifact_set.MANIFEST).write_text(written.to_json(), encoding="utf-8")
    return BuildResult(spec, budget, report, group, request.destination, written, request.upload(stage))


def _replaced_ops(scratch: pathlib.Path) -> dict[str, tuple[ReplacedOp, ...]]:
    """What the sandbox says that it replaced, by file prefix of a task: no more than words in a report. Raises errors.ModelError."""
    with _open(scratch / DIRECTORY, artifact_set.MANIFEST, _MAX_MANIFEST_BYTES) as file:
        try:
            replaced = manifest.parse_manifest(file.read()).replaced_ops
        except ValueError as error:
            raise errors.ModelError("The sandboxed work left no usable manifest.") from error
    prefixes = ("", artifact_set.EVALUATION_PREFIX)
    return {prefix: tuple(replaced.get(prefix + artifact_set.CLIENT_ONLY_PLAN, ())) for prefix in prefixes}


def _runtime_notices(staging: pathlib.Path, options: BuildOptions) -> Iterable[str]:
    """What build.py says of the TensorFlow Lite that the plans need."""
    notices = {}
    for prefix in ("", artifact_set.EVALUATION_PREFIX):
        path = staging / (prefix + artifact_set.CLIENT_ONLY_PLAN)
        if path.exists():
            with plan_reader.open_plan(path) as plan:
                notices.update(dict.fromkeys(check_runtime(ops_report(plan.tflite_graph), options.allow_runtime)))
    return notices


def _run(model: pathlib.Path, request: BuildRequest, scratch: pathlib.Path) -> None:
    # The child has the config without its text: where its problems stand is known here.
    with request.task_config.located():
        sandbox.run(_BUILD_FUNCTION, _arguments(model, request), scratch=scratch, readable=[model])


def _arguments(model: pathlib.Path, request: BuildRequest) -> dict[str, Any]:
    return {
        "saved_model": str(model.resolve()),
        "task_config": base64.b64encode(request.task_config.config.SerializeToString()).decode("ascii"),
        # What was to be scanned was scanned before.
        "options": dataclasses.asdict(dataclasses.replace(request.options, trust_model=True)),
    }


def build_in_scratch(saved_model: str, task_config: str, options: Mapping[str, Any]) -> None:
    """What runs in the sandbox: builds into DIRECTORY of the working directory.

    Args:
      saved_model: an absolute path.
      task_config: the serialized TaskConfig, in base64.
      options: the fields of BuildOptions.
    """
    loaded = LoadedConfig(task_builder_pb2.TaskConfig.FromString(base64.b64decode(task_config)))
    nested = {"resolve": ResolveOptions(**options["resolve"]), "compression": Compression(**options["compression"])}
    build_options = BuildOptions(**{**options, **nested})
    built = build_tasks(saved_model, loaded, build_options, digests={})
    artifacts = pathlib.Path(DIRECTORY)
    artifacts.mkdir()
    built.artifacts.write_files(artifacts)
    # A manifest that lists no files: it tells what was replaced.
    replaced = {prefix + artifact_set.CLIENT_ONLY_PLAN: ops.replaced for prefix, ops in built.ops.items()}
    written = manifest.Manifest(built.spec.form.value, {}, {}, {}, replaced_ops=replaced)
    (artifacts / artifact_set.MANIFEST).write_text(written.to_json(), encoding="utf-8")


def take_artifacts(
    scratch: pathlib.Path, spec: TaskSpec, artifact_only: bool, target: pathlib.Path
) -> task_builder_pb2.TaskGroup:
    """Copies plans and checkpoints out of the scratch directory of a sandbox that has ended, and writes the tasks that go with them.

    Returns:
      The tasks. They are made from `spec`; of what the sandbox says, only the version that a client plan needs is used.

    Raises:
      errors.ModelError: something else than files of artifacts was left.
    """
    built = scratch / DIRECTORY
    group = task_builder_pb2.TaskGroup()
    if spec.training is not None:
        task = _take_task(built, "", spec, artifact_only, target)
        group.training_task.CopyFrom(task)
    if spec.evaluation is not None:
        task = _take_task(built, artifact_set.EVALUATION_PREFIX, spec, artifact_only, target)
        group.eval_task.CopyFrom(task)
    return group


def _take_task(built: pathlib.Path, prefix: str, spec: TaskSpec, artifact_only: bool, target: pathlib.Path) -> task_pb2.Task:
    version = _min_client_version(built, f"{prefix}{artifact_set.TASK}")
    task = tasks.make_task(spec, evaluation=bool(prefix), artifact_only=artifact_only, min_client_version=version)
    (target / f"{prefix}{artifact_set.TASK}").write_text(text_format.MessageToString(task), encoding="utf-8")
    for name in (artifact_set.PLAN, artifact_set.CLIENT_ONLY_PLAN, artifact_set.CHECKPOINT):
        # Copied, not moved: the copy has no permissions, links or holes of the child's making.
        with _open(built, f"{prefix}{name}") as source, open(target / f"{prefix}{name}", "xb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
    return task


def _min_client_version(built: pathlib.Path, name: str) -> str:
    with _open(built, name, artifact_files.MAX_TASK_BYTES) as file:
        try:
            version = text_format.Parse(file.read().decode("utf-8"), task_pb2.Task()).min_client_version
        except (ValueError, text_format.ParseError) as error:
            raise errors.ModelError(f"{name} is no task") from error
    if version and not (version.isascii() and version.isdigit()):
        raise errors.ModelError(f"{name} has no usable min_client_version")
    return version


def _open(built: pathlib.Path, name: str, max_bytes: int = server_limits.MAX_ARTIFACT_BYTES) -> BinaryIO:
    # The directory itself may have been replaced by a link, too.
    if built.is_symlink():
        raise errors.ModelError("The sandboxed work left a link in place of its output.")
    return sandbox.open_output(built, name, max_bytes)
