"""The resolved view of a config: every value that counts, and where it came from."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, Optional, Union

from odp_taskbuilder.config import paths, spec

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
        f"{paths.SEPARATION}.minimum_separation": task.eligibility.minimum_separation,
        f"{paths.AVAILABILITY}.min_example_count": task.eligibility.min_example_count,
        f"{paths.RELEASE}.dp_target_epsilon": task.privacy.target_epsilon,
        f"{paths.RELEASE}.dp_delta": task.privacy.delta,
        f"{paths.RELEASE}.num_max_training_rounds": task.num_rounds,
        f"{paths.DATASET}.batch_size": task.dataset.batch_size,
        f"{paths.DATASET}.max_training_batches_per_client": task.dataset.max_batches,
        f"{paths.LEARNING}.type": task.learning.algorithm,
        f"{paths.LEARNING}.client_optimizer": task.learning.client_optimizer.kind,
        f"{paths.LEARNING}.client_learning_rate": task.learning.client_optimizer.learning_rate,
        f"{paths.LEARNING}.server_optimizer": task.learning.server_optimizer.kind,
        f"{paths.LEARNING}.server_learning_rate": task.learning.server_optimizer.learning_rate,
        f"{paths.LEARNING}.metrics": ", ".join((*task.learning.metrics, "loss")),
        **_rounds(paths.RUNTIME, paths.LEARNING, task.training),
        **_evaluation(task.evaluation),
        f"{paths.PRIVACY}.type": task.privacy.aggregator,
        f"{paths.PRIVACY}.noise_multiplier": task.privacy.noise_multiplier,
        f"{paths.PRIVACY}.{'init_' if task.privacy.aggregator.is_adaptive else ''}clip_norm": task.privacy.clip_norm,
        **_computed("training", task.training),
        **_computed("evaluation", task.evaluation.rounds if task.evaluation else None),
    }
    return tuple(
        ResolvedValue(path, value.value if isinstance(value, enum.Enum) else value, task.origins[path])
        for path, value in values.items()
    )


def _rounds(path: str, urls_path: str, rounds: Optional[spec.RoundsSpec]) -> dict[str, Any]:
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


def _evaluation(evaluation: Optional[spec.EvaluationSpec]) -> dict[str, Any]:
    if evaluation is None:
        return {}
    return {
        f"{paths.EVALUATION}.source_training_population": evaluation.source_training_population,
        f"{paths.EVALUATION}.source_training_task_id": evaluation.source_training_task_id,
        f"{paths.EVALUATION}.checkpoint_selector": str(evaluation.checkpoint_selector),
        f"{paths.EVALUATION}.evaluation_traffic": evaluation.traffic,
        **_rounds(paths.EVALUATION, paths.EVALUATION, evaluation.rounds),
    }


def _computed(task: str, rounds: Optional[spec.RoundsSpec]) -> dict[str, Any]:
    if rounds is None:
        return {}
    return {f"{task}.max_aggregation_size": rounds.max_aggregation_size, f"{task}.traffic_weight": rounds.traffic_weight}
