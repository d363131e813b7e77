"""The pipeline: a saved model and a task config in, artifacts and tasks out.

result = build("saved_model", "task_config.pbtxt")
print(result.directory, result.report)
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import sys
import types
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional

from google.protobuf import text_format

from odp_taskbuilder import errors, installation
from odp_taskbuilder.artifacts import coded_tensors, directory, manifest, phone_fit, tasks
from odp_taskbuilder.artifacts.artifact_set import ArtifactSet, TaskArtifacts
from odp_taskbuilder.base.private_directory import require_temporary_space
from odp_taskbuilder.base.stages import Stage, unannounced
from odp_taskbuilder.build_cache import BuildCache, BuiltFacts
from odp_taskbuilder.build_request import BuildRequest, Path, check_request, input_digests
from odp_taskbuilder.config import LoadedConfig, resolve
from odp_taskbuilder.config.build_options import DEFAULT_OUTPUT, BuildOptions
from odp_taskbuilder.config.spec import ResolveOptions, TaskSpec
from odp_taskbuilder.model import admission
from odp_taskbuilder.ops.allowlist import Allowlist
from odp_taskbuilder.ops.report import OpsReport, ReplacedOp, check_ops, check_runtime
from odp_taskbuilder.privacy import PrivacyBudget
from odp_taskbuilder.privacy.meanwhile import BudgetsAhead, budget_meanwhile
from odp_taskbuilder.proto import plan_pb2, task_builder_pb2, task_pb2
from odp_taskbuilder.stores import inputs
from odp_taskbuilder.transport import deadline as deadlines

if TYPE_CHECKING:
    import tensorflow_federated as tff

    from odp_taskbuilder.learning.preprocessing import ExampleParser
    from odp_taskbuilder.plan import builder
    from odp_taskbuilder.retracing import RetracedLoop

# What TensorFlow generates takes a tenth of it, and the flatbuffer under conversion some more.
_TEMPORARY_BYTES = 4 << 20


@dataclasses.dataclass(frozen=True)
class BuiltTasks:
    """Everything that a build computes, before anything is written.

    Attributes:
      artifacts: plans and checkpoints of each task; checkpoints are computed when they are written.
      report: the TaskReport.
      task_group: the tasks.
      ops: file prefix of a task ("" or "eval_") -> the ops of its client graph.
      inputs: digests of the model's files and of the config.
      original_graphs: file prefix of a task -> its client graph before ops were replaced, a flatbuffer that names its nodes.
      loops: what became of the model's loops and conditionals.
    """

    spec: TaskSpec
    budget: PrivacyBudget
    artifacts: ArtifactSet
    report: task_builder_pb2.TaskReport
    task_group: task_builder_pb2.TaskGroup
    ops: dict[str, OpsReport]
    inputs: Mapping[str, str]
    original_graphs: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    loops: tuple[RetracedLoop, ...] = ()


@dataclasses.dataclass(frozen=True)
class BuildResult:
    """A build whose artifacts are in `directory`, and at `uploaded` where the config names destinations in artifact-only mode.

    Attributes:
      from_cache: they were built before, from the same inputs.
    """

    spec: TaskSpec
    budget: PrivacyBudget
    report: task_builder_pb2.TaskReport
    task_group: task_builder_pb2.TaskGroup
    directory: pathlib.Path
    manifest: manifest.Manifest
    uploaded: tuple[str, ...] = ()
    from_cache: bool = False


class BuildMemory:
    """What builds of one process can use again: models and the graphs made of them. It holds them as long as it lives.

    Attributes:
      budgets: of builds that are to come, where several are.
    """

    def __init__(self, budgets: Optional[BudgetsAhead] = None) -> None:
        self.budgets = budgets
        self._made: dict[Any, Any] = {}

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` yields, or yielded for the same key before."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def build(
    saved_model: Path,
    task_config: Path,
    output: Path = DEFAULT_OUTPUT,
    options: BuildOptions = BuildOptions(),
    *,
    overwrite: bool = False,
    stage: Stage = unannounced,
    network: deadlines.Network = deadlines.Network(),
    cache: Optional[BuildCache] = None,
) -> BuildResult:
    """Builds the tasks of a config and writes their artifacts to `output/<population>/`, completely or not at all.

    In artifact-only mode they then also go to the destinations that the config names, if it names any.

    Args:
      saved_model: what `tff.learning.models.save_functional_model` wrote: a directory, or a file:// or gs:// URL of one.
      task_config: text proto or JSON: a file, a file:// or gs:// URL, or `-` for standard input.
      overwrite: replace a destination that is not a former output.
      stage: called with the name of each stage, whose result is entered while the stage runs.
      network: how patient to be, each time, with reading the config, reading the model and uploading, where these are at URLs.
      cache: take the artifacts from here where they were built before, and keep them here.

    Raises:
      errors.OdpTaskError: see the subclasses for what can be wrong. Nothing was written then, unless an upload failed.
    """
    request = check_request(task_config, output, options, overwrite=overwrite, network=network)
    return build_requested(request, saved_model, stage=stage, network=network, cache=cache)


def build_requested(
    request: BuildRequest,
    saved_model: Path,
    *,
    stage: Stage = unannounced,
    network: deadlines.Network = deadlines.Network(),
    cache: Optional[BuildCache] = None,
    memory: Optional[BuildMemory] = None,
) -> BuildResult:
    """Builds what was checked; arguments and errors as for `build`.

    Args:
      memory: of the builds before this one, for models and graphs that are needed again.
    """
    overwrite = request.overwrite
    with inputs.local_model(saved_model, stage, network) as model:
        key = None
        if cache is not None:
            with stage("looking for a former build"):
                key = cache.key(model, request.task_config, request.spec, request.options)
                found = key and cache.take(key, request.destination, overwrite=overwrite)
            if found:
                facts, written = found
                spec = dataclasses.replace(request.spec, notices=facts.notices)
                uploaded = request.upload(stage)
                return BuildResult(
                    spec, facts.budget, facts.report, facts.task_group, request.destination, written, uploaded, from_cache=True
                )
        built = build_tasks(model, request.task_config, request.options, spec=request.spec, memory=memory, stage=stage)
        with stage("writing artifacts"):
            written = directory.save(
                built.artifacts,
                request.destination,
                form=built.spec.form.value,
                inputs=built.inputs,
                config=tasks.built_with(built.spec, built.budget),
                replaced={prefix: ops.replaced for prefix, ops in built.ops.items()},
                compression=request.options.compression,
                overwrite=overwrite,
            )
    if key is not None:
        facts = BuiltFacts(built.spec.notices, built.budget, built.report, built.task_group)
        cache.keep(key, request.destination, facts)
    uploaded = request.upload(stage)
    return BuildResult(built.spec, built.budget, built.report, built.task_group, request.destination, written, uploaded)


def build_tasks(
    saved_model: Path,
    task_config: LoadedConfig,
    options: BuildOptions = BuildOptions(),
    *,
    spec: Optional[TaskSpec] = None,
    digests: Optional[Mapping[str, str]] = None,
    allowlist: Optional[Allowlist] = None,
    memory: Optional[BuildMemory] = None,
    stage: Stage = unannounced,
) -> BuiltTasks:
    """Builds the tasks of a config without writing anything.

    Args:
      spec: what the config resolves to with `options.resolve`, where that is known.
      digests: of model and config (artifacts.manifest), where they are known.
      allowlist: the ops that phones have, which stay as they are; the built-in list unless given.
      memory: as for `build_requested`.

    Raises:
      errors.OdpTaskError: as `build`.
    """
    installation.require_tff()
    memory = memory or BuildMemory()
    spec = spec or resolve(task_config, options.resolve)
    # What is cheap goes first: a model that does not fit is told before anybody waits for the accounting.
    if not options.trust_model:
        with stage("scanning the model"):
            admission.require_fit(saved_model, task_config, spec.label_name)
    if digests is None:
        # Before it is loaded, so that the manifest tells what tasks were built from; and only now: the scan bounds what is read.
        digests = input_digests(saved_model, task_config)
    spec = phone_fit.fitting_phones(spec, saved_model, options.max_client_checkpoint_bytes, options.compression)
    require_temporary_space(_TEMPORARY_BYTES)
    with contextlib.ExitStack() as accounting:
        with stage("privacy accounting"):
            # It goes on while TensorFlow loads, unless it could end the build.
            budget_to_come = accounting.enter_context(budget_meanwhile(spec, memory.budgets))
        with stage("loading TensorFlow"):
            # Everything from here on works on graphs. What is above needs none, and fails in a fraction of the time.
            from odp_taskbuilder.learning import evaluation, limits, metrics, model_checks, preprocessing, training
            from odp_taskbuilder.model import load
            from odp_taskbuilder.plan import initial_state
            from odp_taskbuilder.retracing import retrace_model
        with stage("waiting for the privacy accounting"):
            budget = budget_to_come()
    spec, budget = coded_tensors.with_what_travels(spec, budget, saved_model, options.compression)
    files = tuple(item for item in sorted(digests.items()) if item[0] != "task_config") or (os.fspath(saved_model),)
    with stage("loading the model"):
        loaded_model = memory.once(("loaded", files), lambda: load.load_model(saved_model))
        limits.check_sizes(loaded_model, spec)
        model_checks.check_weights(loaded_model)
        with task_config.located():
            parser = preprocessing.example_parser(loaded_model.input_spec, spec.label_name)
    # What graphs are made from. Of everything else they see nothing, so it may differ from one to the next.
    graph_spec, graph_budget, graph_options = _graph_values(spec, budget, options)
    graphs = (files, graph_spec, graph_budget, graph_options, id(allowlist))
    with stage("composing the learning process"):
        loops: tuple[RetracedLoop, ...] = ()
        if not options.keep_ops:
            loaded_model, loops = memory.once(("retraced", files), lambda: retrace_model(loaded_model))

        def checked_model() -> tff.learning.models.FunctionalModel:
            model = training.with_metrics(loaded_model, spec.learning.metrics)
            model_checks.check_loss(model)
            metrics.check_fit(model, spec.learning.metrics, task_config)
            return model

        made_of = (files, options.keep_ops, spec.learning.metrics)
        model = memory.once(("model", *made_of), checked_model)
        learning = graph_spec.learning
        make_work = functools.partial(training.client_work_process, model, learning)
        work = memory.once(("client work", *made_of, learning.algorithm, learning.client_optimizer), make_work)
        compose = functools.partial(training.training_process, model, graph_spec, graph_budget, graph_options.compression, work=work)
        process = memory.once(("process", graphs), compose)
        state_type = process.initialize.type_signature.result.member

    group = task_builder_pb2.TaskGroup()
    plans: dict[str, builder.BuiltPlan] = {}
    train_artifacts = eval_artifacts = None
    if spec.mode.trains:
        with stage("building the training plan"):
            uri = spec.training.example_selector_uri
            build_plan = functools.partial(_build_plan, process.next, parser, graph_spec, uri, graph_options, allowlist)
            # Aggregators hold their noise in the state that `initialize` begins with.
            without_noise = (files, graph_spec, dataclasses.replace(graph_budget, noise_multiplier=0.0), graph_options, id(allowlist))
            built = memory.once(("plan", without_noise, spec.label_name, uri), build_plan)
            version = _check_plan(built, options, loops)
        plans[""] = built
        task = tasks.make_task(spec, evaluation=False, artifact_only=options.artifact_only, min_client_version=version)
        group.training_task.CopyFrom(task)
        write = initial_state.training_checkpoint_writer(process.initialize, loaded_model)
        train_artifacts = _task_artifacts(built.plan, write, task)
    if spec.mode.evaluates:
        with stage("building the evaluation plan"):
            uri = spec.evaluation.rounds.example_selector_uri

            def build_evaluation() -> builder.BuiltPlan:
                computation = evaluation.evaluation_computation(model, state_type, graph_options.compression)
                return _build_plan(computation, parser, graph_spec, uri, graph_options, allowlist)

            # Of training it sees the state that it hands through: its names, dtypes and shapes. TFF's types also know Python's classes, which
            # every process has of its own.
            seen = (*made_of, graph_spec.dataset, graph_spec.form, graph_options, id(allowlist), str(state_type))
            built = memory.once(("evaluation plan", seen, spec.label_name, uri), build_evaluation)
            version = _check_plan(built, options, loops)
        plans["eval_"] = built
        task = tasks.make_task(spec, evaluation=True, artifact_only=options.artifact_only, min_client_version=version)
        group.eval_task.CopyFrom(task)
        eval_artifacts = _task_artifacts(built.plan, initial_state.zero_checkpoint_writer(state_type), task)

    ops = {
        prefix: dataclasses.replace(built.ops, replaced=(*_retraced(loops), *built.ops.replaced)) for prefix, built in plans.items()
    }
    spec = spec.with_notices(tasks.notices_about_replaced_ops({prefix: of_task.replaced for prefix, of_task in ops.items()}))
    spec = spec.with_notices(
        dict.fromkeys(sentence for of_task in ops.values() for sentence in check_runtime(of_task, options.allow_runtime))
    )
    report = tasks.task_report(spec, budget)
    artifacts = ArtifactSet(train_artifacts, eval_artifacts, tasks.report_text(report, budget, spec))
    originals = {prefix: built.original_graph for prefix, built in plans.items()}
    return BuiltTasks(spec, budget, artifacts, report, group, ops, digests, originals, loops)


def _graph_values(
    spec: TaskSpec, budget: PrivacyBudget, options: BuildOptions
) -> tuple[TaskSpec, PrivacyBudget, BuildOptions]:
    """Spec, budget and options without what no graph depends on."""
    privacy = dataclasses.replace(
        spec.privacy, skip_check=False, noise_multiplier=None, target_epsilon=0, delta=0, rounds=1, minimum_separation=1, population=1
    )
    spec = dataclasses.replace(
        spec,
        population_name="",
        label_name=None,
        num_rounds=1,
        eligibility=None,
        training=None,
        evaluation=None,
        privacy=dataclasses.replace(privacy, rounds_per_day=1),
        origins=None,
        notices=(),
    )
    budget = dataclasses.replace(
        budget, epsilon=0, delta=0, target_epsilon=0, rounds=1, population=1, sampling_rate=None, contributions_per_client=1
    )
    texts: dict[str, Any] = {"meant_for": "", "accountant": "", "assumptions": ()}
    options = dataclasses.replace(
        options,
        resolve=ResolveOptions(),
        skip_flex_ops_check=False,
        trust_model=False,
        artifact_only=False,
        max_client_checkpoint_bytes=None,
        allow_runtime=None,
    )
    return spec, dataclasses.replace(budget, rounds_per_day=None, calibrated=False, **texts), options


def _build_plan(
    next_computation: tff.Computation,
    parser: ExampleParser,
    spec: TaskSpec,
    selector_uri: str,
    options: BuildOptions,
    allowlist: Optional[Allowlist],
) -> builder.BuiltPlan:
    from odp_taskbuilder.plan import builder, client

    source = client.DataSource(parser, spec.dataset, plan_pb2.ExampleSelector(collection_uri=selector_uri))
    return builder.build_plan(
        next_computation,
        source,
        spec.form,
        keep_ops=options.keep_ops,
        allowlist=allowlist,
        keep_node_names=options.keep_node_names,
    )


def _check_plan(built: builder.BuiltPlan, options: BuildOptions, loops: Sequence[RetracedLoop]) -> Optional[str]:
    """The module version that a plan's ops need; None when that is not checked. Raises errors.UnsupportedOpsError."""
    if options.skip_flex_ops_check:
        return None
    try:
        return check_ops(built.ops)
    except errors.UnsupportedOpsError as error:
        kept = [f"{loop.name} stays as it is: {loop.reason}." for loop in loops if loop.form == "kept"]
        if options.keep_ops:
            kept.append("Without --keep_ops most of them are replaced by ops that phones have.")
        error.next_step = "\n".join(filter(None, [*kept, error.next_step]))
        raise


def _retraced(loops: Sequence[RetracedLoop]) -> list[ReplacedOp]:
    """What is told of loops and conditionals that are no more as the model has them: as of any other op that was replaced."""
    scans, unrolled, branches = ([loop for loop in loops if loop.form == form] for form in ("scan", "unrolled", "conditional"))
    found = []
    if scans or unrolled:
        ways = []
        if scans:
            named = ", ".join(f"{loop.name} of {loop.steps} steps" for loop in scans)
            ways.append(f"a loop whose gradient computes each step again ({named})")
        if unrolled:
            ways.append(f"its steps, one after the other ({', '.join(f'{loop.name} of {loop.steps}' for loop in unrolled)})")
        found.append(ReplacedOp("While", len(scans) + len(unrolled), "; ".join(ways)))
    if branches:
        names = ", ".join(loop.name for loop in branches)
        found.append(ReplacedOp("If", len(branches), f"a conditional whose gradient computes the branch taken again ({names})"))
    return found


def _task_artifacts(
    plan: plan_pb2.Plan, write_checkpoint: Callable[[pathlib.Path], None], task: task_pb2.Task
) -> TaskArtifacts:
    from odp_taskbuilder.plan import builder

    return TaskArtifacts(
        plan=plan.SerializeToString(deterministic=True),
        client_only_plan=builder.client_only_plan(plan).SerializeToString(deterministic=True),
        write_checkpoint=write_checkpoint,
        task=text_format.MessageToString(task),
    )


class _CallableModule(types.ModuleType):
    """`odp_taskbuilder.build(...)`: importing this module puts it in place of the package's function of the same name."""

    __call__ = staticmethod(build)


sys.modules[__name__].__class__ = _CallableModule
