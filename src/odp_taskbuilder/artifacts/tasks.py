"""Filling in the Task messages and the TaskReport (spec: task_config.md, sections 1.2, 4 and 6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Optional

import numpy as np
from google.protobuf import text_format

from odp_taskbuilder.config import paths
from odp_taskbuilder.config.artifact_urls import STORAGE_PATH
from odp_taskbuilder.config.show import ResolvedValue, resolved_values
from odp_taskbuilder.config.spec import (
    ASSUMED_POPULATION,
    ASSUMED_ROUNDS_PER_DAY,
    ArtifactUrls,
    Origin,
    RoundsSpec,
    TaskSpec,
)
from odp_taskbuilder.ops.report import ReplacedOp
from odp_taskbuilder.privacy import PrivacyBudget
from odp_taskbuilder.proto import task_builder_pb2, task_pb2

# Versions of the device's module are compared as integers.
_NO_MIN_CLIENT_VERSION = "0"
_MAX_CLIENT_VERSION = "999999999"


def make_task(spec: TaskSpec, *, evaluation: bool, artifact_only: bool, min_client_version: Optional[str]) -> task_pb2.Task:
    """The training or the evaluation task of a config.

    Args:
      artifact_only: it carries the config's artifact URLs and nothing for a task server.
      min_client_version: the version of the device's module that the client plan needs; None where that was not checked.
    """
    if artifact_only:
        urls = spec.evaluation.rounds.urls if evaluation else spec.training.urls
        return artifact_only_task(urls, min_client_version or "")
    fill = evaluation_task if evaluation else training_task
    return fill(spec, min_client_version or _NO_MIN_CLIENT_VERSION)


def training_task(spec: TaskSpec, min_client_version: str = _NO_MIN_CLIENT_VERSION) -> task_pb2.Task:
    """The training task as it is sent to a task management server."""
    task = _task(spec, spec.training, min_client_version)
    # Both policies are there even when the config has neither.
    policies = task.info.training_info.eligibility_task_info.eligibility_policies
    policies.add().min_sep_policy.minimum_separation = spec.eligibility.minimum_separation
    policies.add().data_availability_policy.min_example_count = spec.eligibility.min_example_count
    return task


def evaluation_task(spec: TaskSpec, min_client_version: str = _NO_MIN_CLIENT_VERSION) -> task_pb2.Task:
    """The evaluation task. No eligibility policy applies to it."""
    evaluation = spec.evaluation
    task = _task(spec, evaluation.rounds, min_client_version)
    info = task.info.evaluation_info
    if evaluation.checkpoint_selector.unit == "round":
        info.check_point_selector.iteration_selector.size = evaluation.checkpoint_selector.every
    else:
        info.check_point_selector.duration_selector.hours = evaluation.checkpoint_selector.every
    info.training_population_name = evaluation.source_training_population
    info.training_task_id = evaluation.source_training_task_id
    return task


def artifact_only_task(urls: ArtifactUrls, min_client_version: str = "") -> task_pb2.Task:
    """What artifact-only mode answers for one task: where its artifacts go, and the version its client plan needs."""
    return task_pb2.Task(
        client_only_plan_url=[urls.client_plan],
        server_phase_url=[urls.plan],
        init_checkpoint_url=[urls.checkpoint],
        min_client_version=min_client_version,
    )


def _task(spec: TaskSpec, rounds: RoundsSpec, min_client_version: str) -> task_pb2.Task:
    return task_pb2.Task(
        population_name=spec.population_name,
        total_iteration=spec.num_rounds,
        min_aggregation_size=rounds.report_goal,
        max_aggregation_size=rounds.max_aggregation_size,
        min_client_version=min_client_version,
        max_client_version=_MAX_CLIENT_VERSION,
        info=task_pb2.TaskInfo(traffic_weight=rounds.traffic_weight),
    )


def destinations(config: task_builder_pb2.TaskConfig) -> list[str]:
    """Where the config's artifact_building says that artifacts are to go."""
    sections = (config.federated_learning.learning_process, config.federated_learning.evaluation)
    return [url for section in sections for _, url in section.artifact_building.ListFields()]


def notices_about_destinations(
    config: task_builder_pb2.TaskConfig, *, artifact_only: bool, storage_path: Optional[str]
) -> tuple[str, ...]:
    """What a config or an option says in vain about destinations, one sentence each."""
    urls = destinations(config)
    notices = []
    if urls and not artifact_only:
        notices.append("artifact_building has no effect without --build_artifact_only.")
    if storage_path and not (artifact_only and any(STORAGE_PATH in url for url in urls)):
        notices.append(f"--storage_path has no effect: no destination that is used has {STORAGE_PATH} in it.")
    return tuple(notices)


def task_report(spec: TaskSpec, budget: PrivacyBudget) -> task_builder_pb2.TaskReport:
    """What was applied. Without a DP aggregator the report names none, neither noise nor clip, and epsilon is infinite; without
    training there is no epsilon."""
    report = task_builder_pb2.TaskReport()
    applied = report.applied_algorithms
    applied.learning_algo = task_builder_pb2.LearningAlgo.Enum.Value(spec.learning.algorithm.value)
    applied.client_optimizer = task_builder_pb2.Optimizer.Enum.Value(spec.learning.client_optimizer.kind.value)
    applied.server_optimizer = task_builder_pb2.Optimizer.Enum.Value(spec.learning.server_optimizer.kind.value)
    if not spec.privacy.skip_aggregator:
        applied.dp_aggregator = task_builder_pb2.DpAggregator.Enum.Value(spec.privacy.aggregator.value)
    report.metric_results.accepted_metrics = ", ".join(spec.learning.metrics)
    report.metric_results.rejected_metrics = ", ".join(spec.learning.rejected_metrics)
    if spec.mode.trains:
        dp = report.dp_hyperparameters
        # The report's fields have 32 bits: what is claimed is rounded to the weaker claim.
        dp.dp_delta = _float32_not_below(budget.delta)
        dp.dp_epsilon = _float32_not_below(budget.epsilon)
        if not spec.privacy.skip_aggregator:
            dp.noise_multiplier = -_float32_not_below(-budget.noise_multiplier)
            dp.dp_clip_norm = budget.clip_norm
        dp.num_training_rounds = budget.rounds
    return report


def notices_about_replaced_ops(replaced: Mapping[str, Sequence[ReplacedOp]]) -> list[str]:
    """What a report says of the ops that were replaced in the client graphs of the tasks, by file prefix."""
    return [
        f"The {'evaluation' if prefix else 'training'} client plan computes {op.op} (x{op.count}) with ops that phones have: {op.by}."
        for prefix, ops in replaced.items()
        for op in ops
    ]


def report_text(report: task_builder_pb2.TaskReport, budget: PrivacyBudget, spec: TaskSpec) -> str:
    """The TaskReport in text format, with what its numbers rest on in comments above it."""
    sentences = budget.assumptions if spec.mode.trains else ("Evaluation spends no privacy budget that is accounted here.",)
    comments = "".join(f"# {sentence}\n" for sentence in (*sentences, *spec.notices))
    return comments + text_format.MessageToString(report)


def built_with(spec: TaskSpec, budget: PrivacyBudget) -> tuple[ResolvedValue, ...]:
    """Every value that tasks are built with, for a manifest: as `validate --show` prints them, with the noise that was calibrated, and
    what the command line says of privacy."""
    privacy = spec.privacy
    noise = f"{paths.PRIVACY}.noise_multiplier"
    values = [
        dataclasses.replace(value, value=budget.noise_multiplier) if value.path == noise and value.value is None else value
        for value in resolved_values(spec)
    ]
    assumed = {
        "privacy.population": (privacy.population, ASSUMED_POPULATION),
        "privacy.rounds_per_day": (privacy.rounds_per_day, ASSUMED_ROUNDS_PER_DAY),
        "privacy.skip_dp_aggregator": (privacy.skip_aggregator, False),
        "privacy.skip_dp_check": (privacy.skip_check, False),
    }
    values += [
        ResolvedValue(path, value, Origin.DEFAULT if value == default else Origin.OPTION)
        for path, (value, default) in assumed.items()
    ]
    return tuple(values)


def _float32_not_below(value: float) -> float:
    """The nearest 32-bit float that is not below `value`.

    >>> _float32_not_below(5.99974451) >= 5.99974451
    True
    """
    nearest = np.float32(value)
    return float(nearest if nearest >= value else np.nextafter(nearest, np.float32(np.inf)))
