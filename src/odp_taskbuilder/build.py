"""The pipeline: a saved model and a task config in, artifacts and tasks out.

result = build("saved_model", "task_config.pbtxt")
print(result.directory, result.report)
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Callable, Optional, Union

from google.protobuf import text_format

from odp_taskbuilder import errors, scan
from odp_taskbuilder.artifacts import directory, manifest, tasks
from odp_taskbuilder.artifacts.artifact_set import ArtifactSet, TaskArtifacts
from odp_taskbuilder.base.keyword_only import keyword_only
from odp_taskbuilder.config import LoadedConfig, resolve
from odp_taskbuilder.config.spec import ArtifactUrls, ResolveOptions, TaskSpec
from odp_taskbuilder.model import input_spec
from odp_taskbuilder.ops.report import OpsReport, check_ops, ops_report
from odp_taskbuilder.privacy import PrivacyBudget, privacy_budget
from odp_taskbuilder.proto import plan_pb2, task_builder_pb2, task_pb2
from odp_taskbuilder.push import push
from odp_taskbuilder.scan import files
from odp_taskbuilder.stores import inputs
from odp_taskbuilder.transport import deadline as deadlines

if TYPE_CHECKING:
    import tensorflow_federated as tff

    from odp_taskbuilder.learning.preprocessing import ExampleParser

Path = Union[str, "os.PathLike[str]"]
# What TensorFlow generates takes a tenth of it, and the flatbuffer under conversion some more.
_TEMPORARY_BYTES = 4 << 20
# Names the stage that runs within the block.
Stage = Callable[[str], contextlib.AbstractContextManager]

DEFAULT_OUTPUT = "odp_artifacts"


@keyword_only
@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """What a build does beside what its config says.

    Attributes:
      resolve: options that take part in resolving the config.
      skip_flex_ops_check: build even when phones lack an op of the client graph.
      trust_model: load the model without scanning it first. Loading may execute parts of it, with the rights of this process.
      keep_node_names: leave the names of the graph's nodes in the client graphs: `odp-task ops` tells by them where an op comes from.
      artifact_only: the tasks are to carry the config's artifact URLs and nothing for a task server.
    """

    resolve: ResolveOptions = ResolveOptions()
    skip_flex_ops_check: bool = False
    trust_model: bool = False
    keep_node_names: bool = False
    artifact_only: bool = False


@dataclasses.dataclass(frozen=True)
class BuiltTasks:
    """Everything that a build computes, before anything is written.

    Attributes:
      artifacts: plans and checkpoints of each task; checkpoints are computed when they are written.
      report: the TaskReport.
      task_group: the tasks.
      ops: file prefix of a task ("" or "eval_") -> the ops of its client graph.
      inputs: digests of the model's files and of the config.
    """

    spec: TaskSpec
    budget: PrivacyBudget
    artifacts: ArtifactSet
    report: task_builder_pb2.TaskReport
    task_group: task_builder_pb2.TaskGroup
    ops: dict[str, OpsReport]
    inputs: dict[str, str]


@dataclasses.dataclass(frozen=True)
class BuildResult:
    """A build whose artifacts are in `directory`, and at `uploaded` where the config names destinations in artifact-only mode."""

    spec: TaskSpec
    budget: PrivacyBudget
    report: task_builder_pb2.TaskReport
    task_group: task_builder_pb2.TaskGroup
    directory: pathlib.Path
    manifest: manifest.Manifest
    uploaded: tuple[str, ...] = ()


@keyword_only
@dataclasses.dataclass(frozen=True)
class BuildRequest:
    """What is known of a build before its model is looked at.

    Attributes:
      destination: the directory to write to, which was found to be ours to replace.
      has_destinations: the artifacts are also to go where the config says.
      network: how patient to be there.
    """

    task_config: LoadedConfig
    spec: TaskSpec
    options: BuildOptions
    destination: pathlib.Path
    overwrite: bool
    has_destinations: bool
    network: deadlines.Network = deadlines.Network()

    def upload(self, stage: Stage) -> tuple[str, ...]:
        """Uploads what was written to the destinations that the config names, if any; returns their URLs.

        Raises:
          errors.StorageError: an upload failed; says what to run.
        """
        if not self.has_destinations:
            return ()
        try:
            with stage("uploading artifacts"):
                pushed = push.push(self.destination, push.PushOptions(overwrite=self.overwrite), self.network)
        except errors.OdpTaskError as error:
            command = f"odp-task push {shlex.quote(str(self.destination))}{' --overwrite' if self.overwrite else ''}"
            advice = f"The artifacts are complete in {self.destination}; `{command}` uploads them."
            error.next_step = advice if error.next_step is None else f"{error.next_step}\n{advice}"
            raise
        return tuple(done.url for done in pushed)


def unannounced(name: str) -> contextlib.AbstractContextManager:
    """A Stage that tells nobody."""
    return contextlib.nullcontext()


def build(
    saved_model: Path,
    task_config: Path,
    output: Path = DEFAULT_OUTPUT,
    options: BuildOptions = BuildOptions(),
    *,
    overwrite: bool = False,
    stage: Stage = unannounced,
    network: deadlines.Network = deadlines.Network(),
) -> BuildResult:
    """Builds the tasks of a config and writes their artifacts to `output/<population>/`, completely or not at all.

    In artifact-only mode they then also go to the destinations that the config names, if it names any.

    Args:
      saved_model: what `tff.learning.models.save_functional_model` wrote: a directory, or a file:// or gs:// URL of one.
      task_config: text proto or JSON: a file, a file:// or gs:// URL, or `-` for standard input.
      overwrite: replace a destination that is not a former output.
      stage: called with the name of each stage, whose result is entered while the stage runs.
      network: how patient to be, each time, with reading the config, reading the model and uploading, where these are at URLs.

    Raises:
      errors.OdpTaskError: see the subclasses for what can be wrong. Nothing was written then, unless an upload failed.
    """
    request = check_request(task_config, output, options, overwrite=overwrite, network=network)
    with inputs.local_model(saved_model, stage, network) as model:
        built = build_tasks(model, request.task_config, request.options, spec=request.spec, stage=stage)
        with stage("writing artifacts"):
            written = directory.save(
                built.artifacts, request.destination, form=built.spec.form.value, inputs=built.inputs, overwrite=overwrite
            )
    uploaded = request.upload(stage)
    return BuildResult(built.spec, built.budget, built.report, built.task_group, request.destination, written, uploaded)


def check_request(
    task_config: Path, output: Path, options: BuildOptions, *, overwrite: bool, network: deadlines.Network
) -> BuildRequest:
    """Reads and resolves the config of a build and checks its destination; arguments and errors as for `build`."""
    loaded = inputs.read_config(task_config, network)
    has_destinations = options.artifact_only and bool(tasks.destinations(loaded.config))
    if has_destinations:
        options = dataclasses.replace(options, resolve=dataclasses.replace(options.resolve, require_artifact_urls=True))
    spec = resolve(loaded, options.resolve)
    in_vain = tasks.notices_about_destinations(
        loaded.config, artifact_only=options.artifact_only, storage_path=options.resolve.storage_path
    )
    spec = dataclasses.replace(spec, notices=(*spec.notices, *in_vain))
    destination = directory.population_directory(output, spec.population_name)
    directory.check_destination(destination, overwrite=overwrite)
    return BuildRequest(
        task_config=loaded,
        spec=spec,
        options=options,
        destination=destination,
        overwrite=overwrite,
        has_destinations=has_destinations,
        network=network,
    )


def build_tasks(
    saved_model: Path,
    task_config: LoadedConfig,
    options: BuildOptions = BuildOptions(),
    *,
    spec: Optional[TaskSpec] = None,
    stage: Stage = unannounced,
) -> BuiltTasks:
    """Builds the tasks of a config without writing anything.

    Args:
      spec: what the config resolves to with `options.resolve`, where that is known.

    Raises:
      errors.OdpTaskError: as `build`.
    """
    spec = spec or resolve(task_config, options.resolve)
    with stage("privacy accounting"):
        budget = budget_of(spec)
    if not options.trust_model:
        with stage("scanning the model"):
            require_safe(saved_model)
    # Before it is loaded, so that the manifest tells what tasks were built from; and only now: the scan bounds what is read.
    digests = input_digests(saved_model, task_config)
    _check_temporary_directory()
    with stage("loading TensorFlow"):
        # Everything from here on works on graphs. What is above needs none, and fails in a fraction of the time.
        from odp_taskbuilder.learning import evaluation, limits, metrics, model_checks, preprocessing, training
        from odp_taskbuilder.model import load
        from odp_taskbuilder.plan import initial_state
    with stage("loading the model"):
        loaded_model = load.load_model(saved_model)
        limits.check_sizes(loaded_model, spec)
        model_checks.check_weights(loaded_model)
        with located_in(task_config):
            parser = preprocessing.example_parser(loaded_model.input_spec, spec.label_name)
    with stage("composing the learning process"):
        model = training.with_metrics(loaded_model, spec.learning.metrics)
        model_checks.check_loss(model)
        metrics.check_fit(model, spec.learning.metrics, task_config)
        process = training.training_process(model, spec, budget)
        state_type = process.initialize.type_signature.result.member

    group = task_builder_pb2.TaskGroup()
    ops: dict[str, OpsReport] = {}
    train_artifacts = eval_artifacts = None
    if spec.mode.trains:
        with stage("building the training plan"):
            plan, ops[""], version = _build_plan(process.next, parser, spec, spec.training.example_selector_uri, options)
        task = _task(tasks.training_task, spec, spec.training.urls, version, options)
        group.training_task.CopyFrom(task)
        write = initial_state.training_checkpoint_writer(process.initialize, loaded_model)
        train_artifacts = _task_artifacts(plan, write, task)
    if spec.mode.evaluates:
        with stage("building the evaluation plan"):
            computation = evaluation.evaluation_computation(model, state_type)
            uri = spec.evaluation.rounds.example_selector_uri
            plan, ops["eval_"], version = _build_plan(computation, parser, spec, uri, options)
        task = _task(tasks.evaluation_task, spec, spec.evaluation.rounds.urls, version, options)
        group.eval_task.CopyFrom(task)
        eval_artifacts = _task_artifacts(plan, initial_state.zero_checkpoint_writer(state_type), task)

    report = tasks.task_report(spec, budget)
    artifacts = ArtifactSet(train_artifacts, eval_artifacts, report_text(report, budget, spec))
    return BuiltTasks(spec, budget, artifacts, report, group, ops, digests)


def _check_temporary_directory() -> None:
    """TensorFlow generates source code there, and says anything but that the disk is full. Raises errors.StorageError."""
    directory_ = tempfile.gettempdir()
    free = shutil.disk_usage(directory_).free
    if free < _TEMPORARY_BYTES:
        raise errors.StorageError(
            f"The temporary directory {directory_} has {free:,} bytes left; a build takes up to {_TEMPORARY_BYTES:,}.",
            next_step="Make room there, or name another one: TMPDIR=/path odp-task build ...",
        )


@contextlib.contextmanager
def located_in(config: LoadedConfig) -> Iterator[None]:
    """Shows the problems of a ConfigError that the block raises where they stand in the text of `config`."""
    try:
        yield
    except errors.ConfigError as error:
        problems = [config.problem(problem.path, problem.message, problem.suggestion) for problem in error.problems]
        raise errors.ConfigError(problems, source=config.source) from error


def budget_of(spec: TaskSpec) -> PrivacyBudget:
    """The privacy budget of a config's tasks. Raises PrivacyBudgetError."""
    # Evaluation adds no noise and spends nothing that could be accounted: its state takes any noise.
    return privacy_budget(spec.privacy if spec.mode.trains else dataclasses.replace(spec.privacy, skip_aggregator=True))


def require_safe(saved_model: Path) -> None:
    """Scans a model. Of one that is no FunctionalModel it says just that: there is no use in a list of what it should not hold.

    Raises:
      errors.ModelError: as scan.require_safe.
    """
    try:
        scan.require_safe(saved_model)
    except errors.UntrustedModelError:
        input_spec.read_model_spec(saved_model)
        raise


def input_digests(saved_model: Path, task_config: LoadedConfig) -> dict[str, str]:
    """Digests of the model's files and of the config, for the manifest.

    Raises:
      errors.ModelError: there is no model, or a file of it cannot be read.
    """
    try:
        digests = manifest.digest_directory(files.require_saved_model(saved_model), "saved_model")
    except OSError as error:
        raise errors.ModelError(
            f"The model in {os.fspath(saved_model)} cannot be read: {error.filename}: {error.strerror}.",
            next_step="Remove what does not belong to the model, or make it readable.",
        ) from error
    digests["task_config"] = manifest.digest_bytes(task_config.config.SerializeToString(deterministic=True))
    return digests


def report_text(report: task_builder_pb2.TaskReport, budget: PrivacyBudget, spec: TaskSpec) -> str:
    """The TaskReport in text format, with what its numbers rest on in comments above it."""
    sentences = budget.assumptions if spec.mode.trains else ("Evaluation spends no privacy budget that is accounted here.",)
    comments = "".join(f"# {sentence}\n" for sentence in (*sentences, *spec.notices))
    return comments + text_format.MessageToString(report)


def _build_plan(
    next_computation: tff.Computation, parser: ExampleParser, spec: TaskSpec, selector_uri: str, options: BuildOptions
) -> tuple[plan_pb2.Plan, OpsReport, Optional[str]]:
    """Returns the plan, its ops, and the module version they need (None when that was not checked)."""
    from odp_taskbuilder.plan import builder, client

    source = client.DataSource(parser, spec.dataset, plan_pb2.ExampleSelector(collection_uri=selector_uri))
    plan = builder.build_plan(next_computation, source, spec.form, keep_node_names=options.keep_node_names)
    report = ops_report(plan.client_tflite_graph_bytes)
    return plan, report, None if options.skip_flex_ops_check else check_ops(report)


def _task(
    fill: Callable[[TaskSpec, str], task_pb2.Task],
    spec: TaskSpec,
    urls: ArtifactUrls,
    version: Optional[str],
    options: BuildOptions,
) -> task_pb2.Task:
    if options.artifact_only:
        return tasks.artifact_only_task(urls, version or "")
    return fill(spec, version or "0")


def _task_artifacts(plan: plan_pb2.Plan, write_checkpoint: Callable[[pathlib.Path], None], task: task_pb2.Task) -> TaskArtifacts:
    from odp_taskbuilder.plan import builder

    return TaskArtifacts(
        plan=plan.SerializeToString(deterministic=True),
        client_only_plan=builder.client_only_plan(plan).SerializeToString(deterministic=True),
        write_checkpoint=write_checkpoint,
        task=text_format.MessageToString(task),
    )
