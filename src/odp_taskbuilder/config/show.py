"""The resolved view of a config: every value that counts, and where it came from."""

from __future__ import annotations

import dataclasses
import enum
from typing import Optional, Union

from odp_taskbuilder.config import spec

_LEARNING = "federated_learning.learning_process"
_RUNTIME = "federated_learning.learning_process.runtime_config"
_EVALUATION = "federated_learning.evaluation"

Shown = Union[str, int, float, bool, None]


@dataclasses.dataclass(frozen=True)
class ResolvedValue:
    """A value that a task is built with.

    Attributes:
      path: the field of the config; for values that have none, such as `training.max_aggregation_size`, the field of the TaskSpec.
      value: None for a noise multiplier that is calibrated, and for a label name that the config does not have.
    """

    path: str
    value: Shown
    origin: spec.Origin


def resolved_values(task: spec.TaskSpec) -> tuple[ResolvedValue, ...]:
    """Every value of a TaskSpec in the order of the config's schema, and behind them those that were computed."""
    values = {
        "mode": task.mode,
        "population_name": task.population_name,
        "label_name": task.label_name,
        "use_daf": task.form is spec.PlanForm.DISTRIBUTE_AGGREGATE,
        "policies.min_separation_policy.minimum_separation": task.eligibility.minimum_separation,
        "policies.data_availability_policy.min_example_count": task.eligibility.min_example_count,
        "policies.model_release_policy.dp_target_epsilon": task.privacy.target_epsilon,
        "policies.model_release_policy.dp_delta": task.privacy.delta,
        "policies.model_release_policy.num_max_training_rounds": task.num_rounds,
        "policies.dataset_policy.batch_size": task.dataset.batch_size,
        "policies.dataset_policy.max_training_batches_per_client": task.dataset.max_batches,
        f"{_LEARNING}.type": task.learning.algorithm,
        f"{_LEARNING}.client_optimizer": task.learning.client_optimizer.kind,
        f"{_LEARNING}.client_learning_rate": task.learning.client_optimizer.learning_rate,
        f"{_LEARNING}.server_optimizer": task.learning.server_optimizer.kind,
        f"{_LEARNING}.server_learning_rate": task.learning.server_optimizer.learning_rate,
        f"{_LEARNING}.metrics": ", ".join((*task.learning.metrics, "loss")),
        **_rounds(_RUNTIME, _LEARNING, task.training),
        **_evaluation(task.evaluation),
        "differential_privacy.type": task.privacy.aggregator,
        "differential_privacy.noise_multiplier": task.privacy.noise_multiplier,
        f"differential_privacy.{'init_' if task.privacy.aggregator.is_adaptive else ''}clip_norm": task.privacy.clip_norm,
        **_computed("training", task.training),
        **_computed("evaluation", task.evaluation and task.evaluation.rounds),
    }
    return tuple(
        ResolvedValue(path, value.value if isinstance(value, enum.Enum) else value, task.origins[path])
        for path, value in values.items()
    )


def _rounds(path: str, urls_path: str, rounds: Optional[spec.RoundsSpec]) -> dict[str, object]:
    if rounds is None:
        return {}
    return {
        f"{path}.report_goal": rounds.report_goal,
        f"{path}.over_selection_rate": rounds.over_selection_rate,
        f"{path}.example_selector_uri": rounds.example_selector_uri,
        f"{urls_path}.artifact_building.plan_url": rounds.urls.plan,
        f"{urls_path}.artifact_building.client_plan_url": rounds.urls.client_plan,
        f"{urls_path}.artifact_building.checkpoint_url": rounds.urls.checkpoint,
    }


def _evaluation(evaluation: Optional[spec.EvaluationSpec]) -> dict[str, object]:
    if evaluation is None:
        return {}
    return {
        f"{_EVALUATION}.source_training_population": evaluation.source_training_population,
        f"{_EVALUATION}.source_training_task_id": evaluation.source_training_task_id,
        f"{_EVALUATION}.checkpoint_selector": str(evaluation.checkpoint_selector),
        f"{_EVALUATION}.evaluation_traffic": evaluation.traffic,
        **_rounds(_EVALUATION, _EVALUATION, evaluation.rounds),
    }


def _computed(task: str, rounds: Optional[spec.RoundsSpec]) -> dict[str, object]:
    if rounds is None:
        return {}
    return {f"{task}.max_aggregation_size": rounds.max_aggregation_size, f"{task}.traffic_weight": rounds.traffic_weight}
