"""The rounds of the training and the evaluation task (spec: task_config.md, sections 3 and 4)."""

from __future__ import annotations

import math
import re
from typing import Optional

from odp_taskbuilder.config import artifact_urls, paths, rules, spec

_TRAINING_TRAFFIC_WEIGHT = 100
# 18 digits always fit into the 64 bits that the task server has for k.
_SELECTOR = re.compile(r"every_0*([1-9][0-9]{0,17})_(round|hour)")
_DEFAULT_SELECTOR = spec.CheckpointSelector(1, "round")


def traffic_weight(traffic: float) -> int:
    """The weight of an evaluation task that is to get the share `traffic`, 0 to 1, beside a training task of weight 100.

    >>> [traffic_weight(t) for t in (0.0, 0.2, 0.99, 1.0)]  # Exact arithmetic would give 9900 for 0.99.
    [0, 25, 9899, 10000]
    """
    if traffic == 1.0:
        return 10000
    return math.floor((traffic * 100) / (1 - traffic))


def training_task(
    fields: rules.FieldReader, options: spec.ResolveOptions, mode: Optional[spec.TaskMode]
) -> Optional[spec.RoundsSpec]:
    """The training task; None under EVAL_ONLY."""
    if mode is not None and not mode.trains:
        fields.nonnegative(f"{paths.RUNTIME}.report_goal")
        fields.nonnegative(f"{paths.RUNTIME}.over_selection_rate")
        return None
    return _rounds(
        fields,
        paths.RUNTIME,
        "training",
        _TRAINING_TRAFFIC_WEIGHT,
        artifact_urls.read_urls(fields, options, paths.TRAINING_URLS),
    )


def evaluation_task(
    fields: rules.FieldReader, options: spec.ResolveOptions, mode: Optional[spec.TaskMode], population_name: str
) -> Optional[spec.EvaluationSpec]:
    """The evaluation task; None under TRAINING_ONLY, where the existing task builder does not look at the message either."""
    if mode is None or not mode.evaluates:
        fields.check_finite([f"{paths.EVALUATION}.evaluation_traffic", f"{paths.EVALUATION}.over_selection_rate"])
        return None
    traffic = fields.probability(f"{paths.EVALUATION}.evaluation_traffic", default=0.0)
    urls = artifact_urls.read_urls(fields, options, paths.EVALUATION_URLS)
    return spec.EvaluationSpec(
        rounds=_rounds(fields, paths.EVALUATION, "evaluation", traffic_weight(traffic), urls),
        traffic=traffic,
        checkpoint_selector=_checkpoint_selector(fields),
        source_training_population=_source_population(fields, population_name),
        source_training_task_id=fields.number(
            f"{paths.EVALUATION}.source_training_task_id",
            lambda x: x > 0,
            "source_training_task_id is required and must be a positive number.",
            default=1,
            suggestion="Set it to 1 for a population without earlier tasks.",
        ),
    )


def check_destinations(
    fields: rules.FieldReader, training: Optional[spec.RoundsSpec], evaluation: Optional[spec.EvaluationSpec]
) -> None:
    """Refuses a destination that two artifacts share: the second would overwrite the first."""
    urls_by_path = {}
    if training is not None:
        urls_by_path[paths.TRAINING_URLS] = training.urls
    if evaluation is not None:
        urls_by_path[paths.EVALUATION_URLS] = evaluation.rounds.urls
    artifact_urls.check_distinct(fields, urls_by_path)


def _rounds(fields: rules.FieldReader, path: str, task: str, weight: int, urls: spec.ArtifactUrls) -> spec.RoundsSpec:
    report_goal = fields.number(
        f"{path}.report_goal",
        lambda x: x > 0,
        "report_goal is required and must be set to an integer strictly greater than zero.",
        default=1,
        suggestion="The mode decides which tasks are made: TRAINING_ONLY needs no evaluation."
        if path == paths.EVALUATION
        else None,
    )
    over_selection_rate = fields.nonnegative(f"{path}.over_selection_rate", default=0.3)
    # In double arithmetic, as the existing task builder has it.
    max_aggregation_size = report_goal * (1 + over_selection_rate)
    if max_aggregation_size >= 2.0**63:
        fields.bad_value(
            f"{path}.over_selection_rate", over_selection_rate, "report_goal * (1 + over_selection_rate) must fit into 64 bits."
        )
        max_aggregation_size = report_goal
    fields.origins[f"{task}.max_aggregation_size"] = spec.Origin.DERIVED
    fields.origins[f"{task}.traffic_weight"] = spec.Origin.DERIVED
    return spec.RoundsSpec(
        report_goal=report_goal,
        over_selection_rate=over_selection_rate,
        max_aggregation_size=math.floor(max_aggregation_size),
        example_selector_uri=fields.text(f"{path}.example_selector_uri"),
        traffic_weight=weight,
        urls=urls,
    )


def _source_population(fields: rules.FieldReader, population_name: str) -> str:
    path = f"{paths.EVALUATION}.source_training_population"
    name = fields.text(path)
    if name:
        fields.check_population_name(path, name)
    return name or population_name


def _checkpoint_selector(fields: rules.FieldReader) -> spec.CheckpointSelector:
    path = f"{paths.EVALUATION}.checkpoint_selector"
    text = fields.text(path)
    match = _SELECTOR.fullmatch(text)
    if match is not None:
        return spec.CheckpointSelector(int(match[1]), match[2])
    if text:
        rule = "checkpoint_selector must be in the format of every_k_round or every_k_hour, where k is a positive integer."
        fields.bad_value(path, text, rule)
    return _DEFAULT_SELECTOR
