"""What is allowed in a task config, but probably not what its author wants."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from odp_taskbuilder.config import metric_names, paths, spec

# The range that the schema of the task server documents for traffic weights.
_MAX_TRAFFIC_WEIGHT = 1000
# The name column of the server's metrics table (spec: metrics.md, section 4).
_MAX_METRIC_NAME = 64
# Calibrated noise is below 1 for the Gaussian aggregators in nearly all settings (spec: privacy.md, section 5); an adaptive clip needs ten
# times as many clients per round. For the trees that can be computed, see validation.py.
_SMALL_ROUND_FOR_ADAPTING = 10
_SELECTOR_HOURS = 24


@dataclasses.dataclass(frozen=True)
class ConfigWarning:
    """One sentence about the field at `path`."""

    path: str
    message: str


def warnings_for(task: spec.TaskSpec) -> tuple[ConfigWarning, ...]:
    """Returns the warnings in the order of the config's schema. Takes no time: nothing is accounted."""
    return (*_metrics(task), *_rounds(task), *_evaluation(task), *_privacy(task))


def _metrics(task: spec.TaskSpec) -> Iterator[ConfigWarning]:
    path = f"{paths.LEARNING}.metrics"
    for name in task.learning.rejected_metrics:
        yield ConfigWarning(path, metric_names.rejection(name))
    for name in task.learning.metrics:
        full_name = f"server/client_work/train/{name}"
        if task.mode.trains and len(full_name) > _MAX_METRIC_NAME:
            yield ConfigWarning(
                path,
                f"{full_name} is longer than the {_MAX_METRIC_NAME} characters that the task server stores: its rounds would not finish.",
            )
        if name == "accuracy":
            yield ConfigWarning(
                path, "accuracy compares labels and outputs for equality, so it is 0 for outputs that are probabilities."
            )


def _rounds(task: spec.TaskSpec) -> Iterator[ConfigWarning]:
    for path, rounds in _rounds_by_path(task):
        if rounds.report_goal < spec.SMALL_ROUND:
            yield ConfigWarning(
                f"{path}.report_goal",
                f"Metrics carry no noise, and sums over {rounds.report_goal} clients come close to releasing single clients' values.",
            )
        if rounds.report_goal > task.privacy.population:
            yield ConfigWarning(
                f"{path}.report_goal", f"A round waits for more clients than the population of {task.privacy.population} has."
            )
        yield from _selector(path, rounds)


def _selector(path: str, rounds: spec.RoundsSpec) -> Iterator[ConfigWarning]:
    if rounds.example_selector_uri:
        yield ConfigWarning(
            f"{path}.example_selector_uri",
            "An app sees this URI only if the task server fills TaskAssignment.example_selector, which federated compute server v0.7.1 does not: "
            "with it the URI has no effect.",
        )


def _rounds_by_path(task: spec.TaskSpec) -> Iterator[tuple[str, spec.RoundsSpec]]:
    if task.training is not None:
        yield paths.RUNTIME, task.training
    if task.evaluation is not None:
        yield paths.EVALUATION, task.evaluation.rounds


def _evaluation(task: spec.TaskSpec) -> Iterator[ConfigWarning]:
    evaluation = task.evaluation
    if evaluation is None:
        return
    weight = evaluation.rounds.traffic_weight
    if weight == 0:
        yield ConfigWarning(
            f"{paths.EVALUATION}.evaluation_traffic",
            f"A traffic of {evaluation.traffic:g} becomes weight 0, with which the task server may give the evaluation all of the traffic or none; "
            "0.01 becomes weight 1.",
        )
    if weight > _MAX_TRAFFIC_WEIGHT:
        yield ConfigWarning(
            f"{paths.EVALUATION}.evaluation_traffic",
            f"A traffic of {evaluation.traffic:g} becomes weight {weight}, beyond the documented {_MAX_TRAFFIC_WEIGHT}; training has 100.",
        )
    selector = evaluation.checkpoint_selector
    if selector.unit == "hour" and selector.every > _SELECTOR_HOURS:
        yield ConfigWarning(
            f"{paths.EVALUATION}.checkpoint_selector",
            f"The task server looks back {_SELECTOR_HOURS} hours, so that {selector} chooses one checkpoint a day.",
        )
    if not task.mode.trains:
        return
    if evaluation.source_training_population != task.population_name:
        yield ConfigWarning(
            f"{paths.EVALUATION}.source_training_population",
            f"The evaluation reads checkpoints of {evaluation.source_training_population}, not those of the training task made with it.",
        )
    elif evaluation.source_training_task_id != 1:
        yield ConfigWarning(
            f"{paths.EVALUATION}.source_training_task_id",
            f"`odp-task push` has the evaluation read checkpoints of the training task that it creates with it; {evaluation.source_training_task_id} "
            f"counts only with --source_training_task_id {evaluation.source_training_task_id}.",
        )


def _privacy(task: spec.TaskSpec) -> Iterator[ConfigWarning]:
    privacy = task.privacy
    if task.training is None:
        return
    if privacy.skip_aggregator:
        yield ConfigWarning(paths.PRIVACY, "The DP aggregator is skipped: there is no clip, no noise and no privacy guarantee.")
        return
    if privacy.aggregator.is_tree and privacy.max_contributions > 1:
        yield ConfigWarning(f"{paths.SEPARATION}.minimum_separation", _several_contributions(privacy))
    if not privacy.aggregator.is_tree and task.training.over_selection_rate > 0.3:
        yield ConfigWarning(
            f"{paths.RUNTIME}.over_selection_rate",
            f"Epsilon counts {privacy.report_goal} clients per round; it is higher if all {task.training.max_aggregation_size} are aggregated.",
        )
    if privacy.aggregator.is_adaptive:
        yield from _adaptive(privacy)


def _several_contributions(privacy: spec.PrivacySpec) -> str:
    sentence = (
        f"A client can take part {privacy.max_contributions} times in {privacy.rounds} rounds, which {privacy.aggregator.name} pays for "
        "with epsilon; "
    )
    if privacy.remembered_rounds >= privacy.rounds:
        return f"{sentence}{privacy.rounds} or more would make it once."
    memory = (
        f"phones forget after {spec.PARTICIPATION_MEMORY_DAYS} days, {privacy.remembered_rounds} rounds at {privacy.rounds_per_day:g} a day "
        "(--rounds_per_day)"
    )
    if privacy.minimum_separation >= privacy.remembered_rounds:
        return f"{sentence}a larger separation does not help: {memory}."
    fewest = -(-privacy.rounds // privacy.remembered_rounds)
    return f"{sentence}{privacy.remembered_rounds} or more would make it {fewest} times, not fewer: {memory}."


def _adaptive(privacy: spec.PrivacySpec) -> Iterator[ConfigWarning]:
    limit = spec.adaptive_noise_limit(privacy.report_goal)
    if privacy.noise_multiplier is None:
        if not privacy.aggregator.is_tree and privacy.report_goal < _SMALL_ROUND_FOR_ADAPTING:
            yield ConfigWarning(
                f"{paths.RUNTIME}.report_goal",
                f"With {privacy.aggregator.name} the calibrated noise must come out below {limit:g}, a tenth of the report goal, or the build stops.",
            )
        return
    factor = spec.adaptive_noise_inflation(privacy.noise_multiplier, privacy.report_goal)
    if factor >= 2:  # TFF warns from there, too.
        yield ConfigWarning(
            f"{paths.PRIVACY}.noise_multiplier",
            f"The estimate of the clip takes so much of the noise that updates get {factor:.3g} times the configured one; a larger report goal helps.",
        )
