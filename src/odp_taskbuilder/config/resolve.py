"""Turns a task config into a TaskSpec: applies every default, checks every value, and reports all that does not fit at once.

Rules, messages and derived values follow spec/task_config.md, sections 2 to 5. Two checks are elsewhere: the privacy budget
(privacy/) and what depends on the model (learning/).
"""

from __future__ import annotations

import math
import re
from typing import Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.config import artifact_urls, load, metric_names, rules, spec
from odp_taskbuilder.proto import task_builder_pb2

# The paths of the config's messages.
_SEPARATION = "policies.min_separation_policy"
_AVAILABILITY = "policies.data_availability_policy"
_RELEASE = "policies.model_release_policy"
_DATASET = "policies.dataset_policy"
_LEARNING = "federated_learning.learning_process"
_RUNTIME = "federated_learning.learning_process.runtime_config"
_EVALUATION = "federated_learning.evaluation"
_PRIVACY = "differential_privacy"

_TRAINING_TRAFFIC_WEIGHT = 100
# An adaptive aggregator spends part of the noise on its estimate of the clipped share, whose standard deviation TFF sets to
# report_goal / 20; it cannot reach a noise multiplier of twice that (spec: privacy.md, section 4).
ADAPTIVE_NOISE_LIMIT_PER_CLIENT = 0.1
# Under EVAL_ONLY the clip only fills a server state of the training process that nobody reads.
_UNREAD_CLIP = 0.1

# The name becomes part of URLs and object names, and the task server keeps 64 characters of it.
_POPULATION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# 18 digits always fit into the 64 bits that the task server has for k.
_SELECTOR = re.compile(r"every_0*([1-9][0-9]{0,17})_(round|hour)")


def resolve(
    config: Union[load.LoadedConfig, task_builder_pb2.TaskConfig],
    options: spec.ResolveOptions = spec.ResolveOptions(),  # noqa: B008: frozen
) -> spec.TaskSpec:
    """Applies defaults and options to a task config and checks every value.

    Under EVAL_ONLY no training task is made, so its report goal and clip may be missing: `training` is None, and `privacy`, which
    then only shapes the state of the training process, takes the evaluation's report goal and a clip of 0.1.

    Raises:
      ConfigError: holds every problem of the config, with line and column where it was read from text.
      UsageError: if an option is out of range.
    """
    if options.population < 1:
        raise errors.UsageError(f"The population must be at least 1, not {options.population}.")
    loaded = config if isinstance(config, load.LoadedConfig) else load.LoadedConfig(config)
    fields = rules.FieldReader(loaded)

    mode = _mode(fields)
    population_name = _population_name(fields, options)
    label_name = fields.text("label_name") or None
    eligibility = spec.EligibilitySpec(
        minimum_separation=_nonnegative(fields, f"{_SEPARATION}.minimum_separation"),
        min_example_count=_nonnegative(fields, f"{_AVAILABILITY}.min_example_count"),
    )
    target_epsilon, delta, num_rounds = _release_policy(fields, options)
    dataset = _dataset(fields)
    learning = _learning(fields)
    training = _training(fields, mode)
    evaluation = _evaluation(fields, mode, population_name)
    privacy = _privacy(fields, mode, options, target_epsilon, delta, num_rounds, eligibility, training, evaluation)
    if mode is not None:
        training, evaluation = artifact_urls.resolve_urls(fields, training, evaluation, options)
    form = spec.PlanForm.DISTRIBUTE_AGGREGATE if fields.raw("use_daf") else spec.PlanForm.MAP_REDUCE
    fields.note_origin("use_daf")
    fields.raise_problems()

    assert mode is not None  # An unset mode is a problem.
    return spec.TaskSpec(
        mode=mode,
        population_name=population_name,
        label_name=label_name,
        form=form,
        num_rounds=num_rounds,
        learning=learning,
        dataset=dataset,
        eligibility=eligibility,
        training=training if mode.trains else None,
        evaluation=evaluation if mode.evaluates else None,
        privacy=privacy,
        origins=fields.origins,
        notices=tuple(fields.notices),
    )


def _mode(fields: rules.FieldReader) -> Optional[spec.TaskMode]:
    names = ", ".join(mode.name for mode in spec.TaskMode)
    number = fields.raw("mode")
    if number in task_builder_pb2.TaskMode.Enum.values() and number != task_builder_pb2.TaskMode.UNKNOWN:
        return fields.enum("mode", spec.TaskMode, None)
    fields.bad_value(
        "mode", number, f"mode is required and must be one of {names}.", "Add the mode, for example: mode: TRAINING_ONLY"
    )
    return None


def _population_name(fields: rules.FieldReader, options: spec.ResolveOptions) -> str:
    name = fields.text("population_name")
    if options.population_name is not None:
        name = options.population_name
        fields.origins["population_name"] = spec.Origin.OPTION
    if not name:
        fields.bad_value("population_name", name, "population_name is required and must be set to an non-empty string.")
    else:
        _check_population_pattern(fields, "population_name", name)
    return name


def _check_population_pattern(fields: rules.FieldReader, path: str, name: str) -> None:
    if not _POPULATION_NAME.fullmatch(name):
        rule = (
            "A population name has 1 to 64 letters, digits, dots, hyphens and underscores, and starts with a letter or digit."
        )
        fields.bad_value(path, name, rule, "The name becomes part of URLs and of object names on the task server.")


def _nonnegative(fields: rules.FieldReader, path: str, default: float = 0) -> float:
    """A number that must not be negative; the default has the type of the field."""
    return fields.number(path, lambda x: x >= 0, f"{path.rpartition('.')[2]} must be a nonnegative number.", default=default)


def _probability(fields: rules.FieldReader, path: str, default: float) -> float:
    return fields.number(path, lambda x: 0 <= x <= 1, f"{path.rpartition('.')[2]} must be a probability.", default=default)


def _release_policy(fields: rules.FieldReader, options: spec.ResolveOptions) -> tuple[float, float, int]:
    """Returns target epsilon, delta and the number of rounds."""
    target_epsilon = fields.number(
        f"{_RELEASE}.dp_target_epsilon",
        lambda x: 0 <= x <= 10,
        "dp_target_epsilon must be a float number between 0 and 10.000000",
        default=10.0,
    )
    max_delta = 1 / options.population
    delta = fields.number(
        f"{_RELEASE}.dp_delta",
        lambda x: 0 <= x <= max_delta,
        f"dp_delta must be a float number between 0 and {max_delta:.6E}",
        default=max_delta,
        suggestion=f"Delta must not exceed 1 / population: set it to {_below(max_delta)}, or leave the field out.",
    )
    if options.population != spec.ASSUMED_POPULATION and not fields.raw(f"{_RELEASE}.dp_delta"):
        fields.origins[f"{_RELEASE}.dp_delta"] = spec.Origin.DERIVED
    path = f"{_RELEASE}.num_max_training_rounds"
    num_rounds = _nonnegative(fields, path)
    if fields.raw(path) == 0:
        rule = "num_max_training_rounds is required and must be strictly greater than zero: a task with 0 rounds never starts."
        fields.bad_value(path, 0, rule)
    return target_epsilon, delta, num_rounds


def _below(bound: float) -> str:
    """`bound` with two digits, rounded down: 3.3e-07 for 1 / 3,000,000."""
    exponent = math.floor(math.log10(bound))
    digits = math.floor(bound / 10.0 ** (exponent - 1) + 1e-9)
    return f"{digits / 10:.1f}e{exponent:03d}"


def _dataset(fields: rules.FieldReader) -> spec.DatasetSpec:
    return spec.DatasetSpec(
        batch_size=_nonnegative(fields, f"{_DATASET}.batch_size", default=3),
        max_batches=fields.number(
            f"{_DATASET}.max_training_batches_per_client",
            lambda x: x >= -1,
            "max_training_batches_per_client must be a positive number, or -1 for all batches.",
            default=-1,
        ),
    )


def _learning(fields: rules.FieldReader) -> spec.LearningSpec:
    metrics, rejected = _metrics(fields)
    return spec.LearningSpec(
        algorithm=fields.enum(f"{_LEARNING}.type", spec.LearningAlgorithm, spec.LearningAlgorithm.FED_AVG),
        client_optimizer=spec.OptimizerSpec(
            fields.enum(f"{_LEARNING}.client_optimizer", spec.OptimizerKind, spec.OptimizerKind.SGD),
            _probability(fields, f"{_LEARNING}.client_learning_rate", default=0.1),
        ),
        server_optimizer=spec.OptimizerSpec(
            fields.enum(f"{_LEARNING}.server_optimizer", spec.OptimizerKind, spec.OptimizerKind.SGD),
            _probability(fields, f"{_LEARNING}.server_learning_rate", default=1.0),
        ),
        metrics=metrics,
        rejected_metrics=rejected,
    )


def _metrics(fields: rules.FieldReader) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns accepted and rejected names, in config order (spec: metrics.md, section 2)."""
    accepted: list[str] = []
    rejected: list[str] = []
    fields.note_origin(f"{_LEARNING}.metrics")
    for index, metric in enumerate(fields.raw(f"{_LEARNING}.metrics")):
        path = f"{_LEARNING}.metrics[{index}].name"
        if metric.name == metric_names.UNBUILDABLE_METRIC:
            message = "The metric 'mean' cannot be built: Keras' Mean takes values, not labels and predictions."
            fields.add_problem(
                path, message, "Remove it. The loss is always reported; mean_absolute_error needs no threshold either."
            )
        elif metric.name in accepted:
            fields.add_problem(path, f"The metric '{metric.name}' is listed twice.", "Remove one of them.")
        elif metric.name in metric_names.ALLOWED_METRICS:
            accepted.append(metric.name)
        else:
            rejected.append(metric.name)
            fields.notices.append(metric_names.rejection(metric.name))
    return tuple(accepted), tuple(rejected)


def _training(fields: rules.FieldReader, mode: Optional[spec.TaskMode]) -> Optional[spec.RoundsSpec]:
    """The rounds of the training task; None under EVAL_ONLY when the config has no report goal for them."""
    if mode is not None and not mode.trains and fields.raw(f"{_RUNTIME}.report_goal") == 0:
        _nonnegative(fields, f"{_RUNTIME}.over_selection_rate")
        return None
    return _rounds(fields, _RUNTIME, "training", _TRAINING_TRAFFIC_WEIGHT)


def _rounds(fields: rules.FieldReader, path: str, task: str, traffic_weight: int) -> spec.RoundsSpec:
    report_goal = fields.number(
        f"{path}.report_goal",
        lambda x: x > 0,
        "report_goal is required and must be set to an integer strictly greater than zero.",
        default=1,
        suggestion=_REPORT_GOAL_ADVICE if task == "evaluation" else None,
    )
    over_selection_rate = _nonnegative(fields, f"{path}.over_selection_rate", default=0.3)
    max_aggregation_size = report_goal * (1 + over_selection_rate)
    if max_aggregation_size >= rules.INT64_MAX:
        rule = "report_goal * (1 + over_selection_rate) must fit into 64 bits."
        fields.bad_value(f"{path}.over_selection_rate", over_selection_rate, rule)
        max_aggregation_size = report_goal
    fields.origins[f"{task}.max_aggregation_size"] = spec.Origin.DERIVED
    fields.origins[f"{task}.traffic_weight"] = spec.Origin.DERIVED
    return spec.RoundsSpec(
        report_goal=report_goal,
        over_selection_rate=over_selection_rate,
        max_aggregation_size=math.floor(max_aggregation_size),
        example_selector_uri=fields.text(f"{path}.example_selector_uri"),
        traffic_weight=traffic_weight,
    )


_REPORT_GOAL_ADVICE = "The mode decides which tasks are built: with mode: TRAINING_ONLY no evaluation is needed."


def _evaluation(
    fields: rules.FieldReader, mode: Optional[spec.TaskMode], population_name: str
) -> Optional[spec.EvaluationSpec]:
    if mode is None or not mode.evaluates:
        fields.check_finite(f"{_EVALUATION}.{name}" for name in ("evaluation_traffic", "over_selection_rate"))
        return None
    selector = _checkpoint_selector(fields)
    traffic = _probability(fields, f"{_EVALUATION}.evaluation_traffic", default=0.0)
    rounds = _rounds(fields, _EVALUATION, "evaluation", traffic_weight(traffic))
    task_id = fields.number(
        f"{_EVALUATION}.source_training_task_id",
        lambda x: x > 0,
        "source_training_task_id is required and must be a positive number.",
        default=1,
        suggestion="Set it to 1 for a population without earlier tasks.",
    )
    source_population = fields.text(f"{_EVALUATION}.source_training_population")
    if source_population:
        _check_population_pattern(fields, f"{_EVALUATION}.source_training_population", source_population)
    return spec.EvaluationSpec(
        rounds=rounds,
        traffic=traffic,
        checkpoint_selector=selector,
        source_training_population=source_population or population_name,
        source_training_task_id=task_id,
    )


def traffic_weight(traffic: float) -> int:
    """The weight of an evaluation task that is to get the share `traffic`, 0 to 1, beside a training task of weight 100.

    >>> [traffic_weight(t) for t in (0.0, 0.2, 0.99, 1.0)]  # In double arithmetic; exact arithmetic would give 9900 for 0.99.
    [0, 25, 9899, 10000]
    """
    if traffic == 1.0:
        return 10000
    return math.floor((traffic * 100) / (1 - traffic))


def _checkpoint_selector(fields: rules.FieldReader) -> spec.CheckpointSelector:
    path = f"{_EVALUATION}.checkpoint_selector"
    text = fields.text(path)
    if not text:
        return spec.CheckpointSelector(1, "round")
    match = _SELECTOR.fullmatch(text)
    if match is None:
        rule = "checkpoint_selector must be in the format of every_k_round or every_k_hour, where k is a positive integer."
        fields.bad_value(path, text, rule)
        return spec.CheckpointSelector(1, "round")
    return spec.CheckpointSelector(int(match[1]), match[2])


def _privacy(
    fields: rules.FieldReader,
    mode: Optional[spec.TaskMode],
    options: spec.ResolveOptions,
    target_epsilon: float,
    delta: float,
    num_rounds: int,
    eligibility: spec.EligibilitySpec,
    training: Optional[spec.RoundsSpec],
    evaluation: Optional[spec.EvaluationSpec],
) -> spec.PrivacySpec:
    aggregator = fields.enum(f"{_PRIVACY}.type", spec.DpAggregator, spec.DpAggregator.FIXED_GAUSSIAN)
    noise_path = f"{_PRIVACY}.noise_multiplier"
    noise_multiplier = _nonnegative(fields, noise_path) or None
    if noise_multiplier is None:
        fields.origins[noise_path] = spec.Origin.DERIVED
    rounds_path = _EVALUATION if training is None else _RUNTIME
    rounds = training or (evaluation.rounds if evaluation else None)
    privacy = spec.PrivacySpec(
        aggregator=aggregator,
        skip_aggregator=options.skip_dp_aggregator,
        skip_check=options.skip_dp_check,
        noise_multiplier=noise_multiplier,
        clip_norm=_clip_norm(fields, aggregator, needed=mode is None or mode.trains),
        target_epsilon=target_epsilon,
        delta=delta,
        rounds=num_rounds,
        report_goal=rounds.report_goal if rounds else 1,
        minimum_separation=eligibility.minimum_separation,
        population=options.population,
    )
    if not privacy.skip_aggregator and fields.raw(f"{rounds_path}.report_goal") > 0:
        _check_aggregator_limits(fields, privacy, rounds_path)
    return privacy


def _clip_norm(fields: rules.FieldReader, aggregator: spec.DpAggregator, *, needed: bool) -> float:
    """The clip that applies. Fixed aggregators need one; adaptive ones start from 0.1 when none is given."""
    clip_path, init_path = f"{_PRIVACY}.clip_norm", f"{_PRIVACY}.init_clip_norm"
    if aggregator.is_adaptive:
        fields.check_finite([clip_path])
        return fields.number(
            init_path,
            lambda x: x >= 0,
            "init_clip_norm must be a positive float or be left empty when using ADAPTIVE_GAUSSIAN or ADAPTIVE_TREE DP Aggregator.",
            default=0.1,
        )
    fields.check_finite([init_path])
    return fields.number(
        clip_path,
        lambda x: x > 0 or (x == 0 and not needed),
        "clip_norm is required and must be a positive float when using FIXED_GAUSSIAN or TREE_AGGREGATION DP Aggregator.",
        default=_UNREAD_CLIP,
    )


def _check_aggregator_limits(fields: rules.FieldReader, privacy: spec.PrivacySpec, rounds_path: str) -> None:
    if not privacy.aggregator.is_tree and privacy.report_goal > privacy.population:
        rule = f"A round cannot draw more clients than the population has: report_goal must not exceed {privacy.population}."
        fields.bad_value(f"{rounds_path}.report_goal", privacy.report_goal, rule)
    limit = ADAPTIVE_NOISE_LIMIT_PER_CLIENT * privacy.report_goal
    if privacy.aggregator.is_adaptive and privacy.noise_multiplier is not None and privacy.noise_multiplier >= limit:
        rule = (
            f"With {privacy.aggregator.name} noise_multiplier must be below {limit:g}, a tenth of the report goal of {privacy.report_goal}: "
            "part of the noise goes into the estimate of the clip."
        )
        advice = f"Raise {rounds_path}.report_goal, lower the noise, or choose an aggregator with a fixed clip."
        fields.bad_value(f"{_PRIVACY}.noise_multiplier", privacy.noise_multiplier, rule, advice)
