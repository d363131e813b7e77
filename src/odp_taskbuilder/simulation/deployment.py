"""What a build directory deploys: the tasks with their plans, as a server reads them."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Optional

from google.protobuf import message, text_format

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import artifact_set, manifest
from odp_taskbuilder.artifacts.client_graph import describe_client_graph
from odp_taskbuilder.config.compression import Compression
from odp_taskbuilder.config.show import ResolvedValue
from odp_taskbuilder.config.spec import CheckpointSelector, DpAggregator, EligibilitySpec, PrivacySpec
from odp_taskbuilder.data.synthetic import Feature
from odp_taskbuilder.metrics.run_facts import ClientPlan
from odp_taskbuilder.ops.report import OpKind, OpsReport, ops_of
from odp_taskbuilder.ops.runtimes import runtime_text
from odp_taskbuilder.ops.tflite import read_tflite
from odp_taskbuilder.proto import task_builder_pb2, task_pb2
from odp_taskbuilder.runtime import plan_files

# The ids that a task server gives to the first tasks of a population.
TRAINING_TASK_ID, EVALUATION_TASK_ID = 1, 2


@dataclasses.dataclass(frozen=True)
class DeployedTask:
    """One task.

    Attributes:
      plan, client_only_plan: the files' bytes.
      report_goal: client reports without which no round completes.
      max_reports: how many are aggregated at most.
      features: what the client plan parses from each example.
      described: what of the client plan is told to people.
    """

    task_id: int
    plan: bytes
    client_only_plan: bytes
    report_goal: int
    max_reports: int
    features: tuple[Feature, ...]
    described: Optional[ClientPlan] = None

    @property
    def digest(self) -> str:
        """SHA-256 of both plans."""
        return hashlib.sha256(hashlib.sha256(self.plan).digest() + hashlib.sha256(self.client_only_plan).digest()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Deployment:
    """The tasks of one population.

    Attributes:
      initial_checkpoint: the server checkpoint of iteration 0.
      total_rounds: training rounds after which the server ends the tasks.
      evaluation: None if there is no evaluation task.
      evaluation_share: devices handed the evaluation task for each one that is handed the training task.
      checkpoint_selector: which training checkpoints the evaluation task reads.
      privacy: what accounting starts from, with `rounds` the task's total; None without a DP aggregator.
      inputs: digests of what the tasks were built from (artifacts.manifest); None where no manifest tells.
      compression: with which they were built; none where no manifest tells.
      config: the values that they were built with; empty where no manifest tells.
    """

    population: str
    training: DeployedTask
    initial_checkpoint: pathlib.Path
    total_rounds: int
    eligibility: EligibilitySpec
    privacy: Optional[PrivacySpec]
    evaluation: Optional[DeployedTask] = None
    evaluation_share: float = 0.0
    checkpoint_selector: Optional[CheckpointSelector] = None
    inputs: Optional[Mapping[str, str]] = None
    compression: Compression = Compression()
    config: Sequence[ResolvedValue] = ()


def load_deployment(path: pathlib.Path, assumed_population: int, rounds_per_day: float) -> Deployment:
    """Reads a directory that `odp-task build` wrote.

    Args:
      path: the directory, or the one above it if that holds only one.
      assumed_population, rounds_per_day: number of devices and pace of rounds that privacy accounting assumes.

    Raises:
      StorageError: a file is missing or cannot be read.
      ArtifactError: a file is not what its name or the manifest says.
      UsageError: there is no training task.
    """
    directory = _artifacts_directory(path)
    if (
        not (directory / artifact_set.PLAN).exists()
        and (directory / (artifact_set.EVALUATION_PREFIX + artifact_set.PLAN)).exists()
    ):
        raise errors.UsageError(
            f"{directory} holds an evaluation task only: its checkpoints come from training rounds.",
            next_step="Build with mode: TRAINING_AND_EVAL.",
        )
    # What the artifacts were made from; a directory without a manifest does not tell.
    made = manifest.require_as_built(directory).manifest
    task = _read_task(directory / artifact_set.TASK)
    compression = made.compression if made else Compression()
    training = _deployed(directory, "", task, TRAINING_TASK_ID)
    evaluation, share, selector = None, 0.0, None
    evaluation_task_file = directory / (artifact_set.EVALUATION_PREFIX + artifact_set.TASK)
    if evaluation_task_file.exists():
        evaluation_task = _read_task(evaluation_task_file)
        evaluation = _deployed(directory, artifact_set.EVALUATION_PREFIX, evaluation_task, EVALUATION_TASK_ID)
        share = evaluation_task.info.traffic_weight / max(1, task.info.traffic_weight)
        selector = _selector(evaluation_task.info.evaluation_info.check_point_selector)
    eligibility = _eligibility(task)
    return Deployment(
        population=task.population_name or directory.resolve().name,
        training=training,
        initial_checkpoint=directory / artifact_set.CHECKPOINT,
        total_rounds=task.total_iteration,
        eligibility=eligibility,
        privacy=_privacy(
            _read_text(directory / artifact_set.REPORT, task_builder_pb2.TaskReport()),
            task,
            eligibility,
            assumed_population,
            rounds_per_day,
        ),
        evaluation=evaluation,
        evaluation_share=share,
        checkpoint_selector=selector,
        inputs=made.inputs if made else None,
        compression=compression,
        config=made.config if made else (),
    )


def _artifacts_directory(path: pathlib.Path) -> pathlib.Path:
    if not path.is_dir():
        raise errors.StorageError(
            f"There is no directory {path}.", next_step="Expected what `odp-task build` wrote: odp_artifacts/<population>."
        )
    if (path / artifact_set.TASK).exists() or (path / (artifact_set.EVALUATION_PREFIX + artifact_set.TASK)).exists():
        return path
    inner = sorted(child.parent for child in path.glob(f"*/{artifact_set.MANIFEST}"))
    if len(inner) == 1:
        return inner[0]
    found = f"; it holds those of {', '.join(child.name for child in inner)}" if inner else ""
    raise errors.StorageError(
        f"{path} holds no artifacts of one population{found}.", next_step="Name the directory odp_artifacts/<population>."
    )


def _deployed(directory: pathlib.Path, prefix: str, task: task_pb2.Task, task_id: int) -> DeployedTask:
    client_plan_file = directory / (prefix + artifact_set.CLIENT_ONLY_PLAN)
    client_only_plan = _read_bytes(client_plan_file)
    tflite_graph = plan_files.parse_client_only_plan(client_only_plan, client_plan_file).tflite_graph
    plan_file = directory / (prefix + artifact_set.PLAN)
    plan = _read_bytes(plan_file)
    plan_files.parse_plan(plan, plan_file)
    parsed = read_tflite(tflite_graph, str(client_plan_file))
    graph = describe_client_graph(parsed, tflite_graph, str(client_plan_file))
    return DeployedTask(
        task_id=task_id,
        plan=plan,
        client_only_plan=client_only_plan,
        report_goal=task.min_aggregation_size,
        max_reports=task.max_aggregation_size,
        features=tuple(Feature(feature.name, feature.dtype, feature.shape) for feature in graph.features),
        described=_described(len(client_only_plan), ops_of(parsed)),
    )


def _described(size: int, ops: OpsReport) -> ClientPlan:
    return ClientPlan(
        size=size,
        builtin_ops=sum(use.count for use in ops.ops if use.kind is OpKind.BUILTIN),
        other_ops={use.op: use.count for use in ops.ops if use.kind is not OpKind.BUILTIN},
        min_module_version=ops.min_module_version,
        min_runtime=runtime_text(ops.min_runtime) if ops.min_runtime else None,
    )


def _read_task(path: pathlib.Path) -> task_pb2.Task:
    task = _read_text(path, task_pb2.Task())
    if task.min_aggregation_size < 1:
        raise errors.ArtifactError(
            f"{path} has no min_aggregation_size: the task cannot run.",
            next_step="Build without --build_artifact_only to get whole tasks.",
        )
    return task


def _read_text(path: pathlib.Path, result: message.Message) -> message.Message:
    try:
        return text_format.Parse(_read_bytes(path).decode("utf-8"), result)
    except (UnicodeDecodeError, text_format.ParseError) as error:
        raise errors.ArtifactError(f"{path} is no {result.DESCRIPTOR.name} in text format: {error}") from error


def _read_bytes(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise errors.StorageError(f"Cannot read {path}: {error.strerror}") from error


def _eligibility(task: task_pb2.Task) -> EligibilitySpec:
    separation = examples = 0
    for policy in task.info.training_info.eligibility_task_info.eligibility_policies:
        separation = max(separation, policy.min_sep_policy.minimum_separation)
        examples = max(examples, policy.data_availability_policy.min_example_count)
    return EligibilitySpec(minimum_separation=separation, min_example_count=examples)


def _selector(selector: task_pb2.CheckPointSelector) -> CheckpointSelector:
    if selector.HasField("duration_selector"):
        return CheckpointSelector(max(1, selector.duration_selector.hours), "hour")
    return CheckpointSelector(max(1, selector.iteration_selector.size), "round")


def _privacy(
    report: task_builder_pb2.TaskReport,
    task: task_pb2.Task,
    eligibility: EligibilitySpec,
    assumed_population: int,
    rounds_per_day: float,
) -> Optional[PrivacySpec]:
    applied, dp = report.applied_algorithms, report.dp_hyperparameters
    if not applied.dp_aggregator or not dp.noise_multiplier:
        return None
    return PrivacySpec(
        aggregator=DpAggregator(task_builder_pb2.DpAggregator.Enum.Name(applied.dp_aggregator)),
        skip_aggregator=False,
        # What was built is accounted for here, not judged again: the target plays no part.
        skip_check=True,
        noise_multiplier=dp.noise_multiplier,
        clip_norm=dp.dp_clip_norm,
        target_epsilon=1.0,
        delta=_delta(dp.dp_delta, assumed_population),
        rounds=task.total_iteration,
        report_goal=task.min_aggregation_size,
        minimum_separation=eligibility.minimum_separation,
        population=assumed_population,
        rounds_per_day=rounds_per_day,
    )


def _delta(reported: float, population: int) -> float:
    """The report's numbers are 32-bit: 1 / population, the largest delta that accounting takes, may have been rounded up."""
    largest = 1 / population
    return largest if largest < reported < largest * (1 + 1e-6) else reported
