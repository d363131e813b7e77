"""Turns a task config into a TaskSpec: applies every default, checks every value, and reports all that does not fit at once.

Rules, messages and derived values follow spec/task_config.md, sections 2 to 5. Two checks are elsewhere: the privacy budget
(privacy/) and what depends on the model (learning/).
"""

from __future__ import annotations

from typing import Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.config import load, metric_names, paths, privacy_fields, rules, spec, tasks
from odp_taskbuilder.proto import task_builder_pb2

_NO_OPTIONS = spec.ResolveOptions()


def resolve(
    config: Union[load.LoadedConfig, task_builder_pb2.TaskConfig], options: spec.ResolveOptions = _NO_OPTIONS
) -> spec.TaskSpec:
    """Applies defaults and options to a task config and checks every value.

    Under EVAL_ONLY no training task is made: `training` is None, and the config needs neither a report goal for training nor a clip.
    `privacy`, which then only shapes the state of a training process that is not run, takes the evaluation's report goal and a clip of
    0.1 in their places.

    Raises:
      ConfigError: holds every problem of the config, those of its text included, with line and column where it was read from text.
      UsageError: if an option is out of range.
    """
    if not 1 <= options.population < 2**63:
        raise errors.UsageError(f"The population must be between 1 and {2**63 - 1}, not {options.population}.")
    if not 0 < options.rounds_per_day <= spec.MAX_ROUNDS_PER_DAY:
        raise errors.UsageError(
            f"Rounds per day must be above 0 and at most {spec.MAX_ROUNDS_PER_DAY:g}, not {options.rounds_per_day:g}."
        )
    fields = rules.FieldReader(config if isinstance(config, load.LoadedConfig) else load.LoadedConfig(config))

    mode = _mode(fields)
    population_name = _population_name(fields, options)
    label_name = fields.text("label_name") or None
    eligibility = spec.EligibilitySpec(
        minimum_separation=fields.nonnegative(f"{paths.SEPARATION}.minimum_separation"),
        min_example_count=fields.nonnegative(f"{paths.AVAILABILITY}.min_example_count"),
    )
    num_rounds = _num_rounds(fields)
    dataset = spec.DatasetSpec(
        batch_size=fields.nonnegative(f"{paths.DATASET}.batch_size", default=3),
        max_batches=fields.number(
            f"{paths.DATASET}.max_training_batches_per_client",
            lambda x: x >= -1,
            "max_training_batches_per_client must be a positive number, or -1 for all batches.",
            default=-1,
        ),
    )
    learning = _learning(fields)
    training = tasks.training_task(fields, options, mode)
    evaluation = tasks.evaluation_task(fields, options, mode, population_name)
    tasks.check_destinations(fields, training, evaluation)
    privacy = privacy_fields.privacy_spec(
        fields,
        options,
        mode,
        num_rounds=num_rounds,
        minimum_separation=eligibility.minimum_separation,
        training=training,
    )
    form = spec.PlanForm.DISTRIBUTE_AGGREGATE if fields.raw("use_daf") else spec.PlanForm.MAP_REDUCE
    fields.note_origin("use_daf")
    _tell_what_is_ignored(fields, mode, learning, privacy)

    fields.raise_problems()
    assert mode is not None  # A missing mode is a problem.
    return spec.TaskSpec(
        mode=mode,
        population_name=population_name,
        label_name=label_name,
        form=form,
        num_rounds=num_rounds,
        learning=learning,
        dataset=dataset,
        eligibility=eligibility,
        training=training,
        evaluation=evaluation,
        privacy=privacy,
        origins=fields.origins,
        notices=tuple(fields.notices),
    )


def _tell_what_is_ignored(
    fields: rules.FieldReader, mode: Optional[spec.TaskMode], learning: spec.LearningSpec, privacy: spec.PrivacySpec
) -> None:
    """Notices about what a config gives in vain."""
    ignored = {}
    if mode is spec.TaskMode.TRAINING_ONLY:
        ignored[paths.EVALUATION] = "mode TRAINING_ONLY"
    if learning.algorithm is spec.LearningAlgorithm.FED_SGD:
        ignored[f"{paths.LEARNING}.client_optimizer"] = ignored[f"{paths.LEARNING}.client_learning_rate"] = "FED_SGD"
    unused_clip = "clip_norm" if privacy.aggregator.is_adaptive else "init_clip_norm"
    ignored[f"{paths.PRIVACY}.{unused_clip}"] = privacy.aggregator.name
    for path, reason in ignored.items():
        if fields.is_given(path):
            fields.notices.append(f"{path} has no effect with {reason}.")


def _mode(fields: rules.FieldReader) -> Optional[spec.TaskMode]:
    """The mode, or None after a problem: rules that depend on it are then applied to what the config holds."""
    mode = fields.enum("mode", spec.TaskMode, default=None)
    if fields.raw("mode") == task_builder_pb2.TaskMode.UNKNOWN:
        names = ", ".join(mode.name for mode in spec.TaskMode)
        fields.bad_value("mode", "UNKNOWN", f"mode is required and must be one of {names}.")
    return mode


def _population_name(fields: rules.FieldReader, options: spec.ResolveOptions) -> str:
    if options.population_name is not None:
        fields.origins["population_name"] = spec.Origin.OPTION
        fields.check_population_option(options.population_name)
        return options.population_name
    name = fields.text("population_name")
    if name:
        fields.check_population_name("population_name", name)
    else:
        fields.bad_value("population_name", name, "population_name is required and must be set to an non-empty string.")
    return name


def _num_rounds(fields: rules.FieldReader) -> int:
    path = f"{paths.RELEASE}.num_max_training_rounds"
    if fields.raw(path) == 0:
        rule = "num_max_training_rounds is required and must be greater than zero: a task with 0 rounds never starts."
        fields.bad_value(path, 0, rule)
        return 1
    return fields.nonnegative(path)


def _learning(fields: rules.FieldReader) -> spec.LearningSpec:
    metrics, rejected = _metrics(fields)
    return spec.LearningSpec(
        algorithm=fields.enum(f"{paths.LEARNING}.type", spec.LearningAlgorithm, default=spec.LearningAlgorithm.FED_AVG),
        client_optimizer=spec.OptimizerSpec(
            fields.enum(f"{paths.LEARNING}.client_optimizer", spec.OptimizerKind, default=spec.OptimizerKind.SGD),
            fields.probability(f"{paths.LEARNING}.client_learning_rate", default=0.1),
        ),
        server_optimizer=spec.OptimizerSpec(
            fields.enum(f"{paths.LEARNING}.server_optimizer", spec.OptimizerKind, default=spec.OptimizerKind.SGD),
            fields.probability(f"{paths.LEARNING}.server_learning_rate", default=1.0),
        ),
        metrics=metrics,
        rejected_metrics=rejected,
    )


def _metrics(fields: rules.FieldReader) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns accepted and rejected names, in config order (spec: metrics.md, section 2)."""
    accepted: list[str] = []
    rejected: list[str] = []
    fields.note_origin(f"{paths.LEARNING}.metrics")
    metrics = fields.raw(f"{paths.LEARNING}.metrics")
    if len(metrics) > metric_names.MAX_METRICS:
        message = f"{len(metrics)} metrics are listed; a task has at most {metric_names.MAX_METRICS}."
        fields.add_problem(f"{paths.LEARNING}.metrics[{metric_names.MAX_METRICS}]", message)
        return (), ()
    for index, metric in enumerate(metrics):
        path = f"{paths.LEARNING}.metrics[{index}].name"
        if metric.name == metric_names.UNBUILDABLE_METRIC:
            message = "The metric 'mean' cannot be built: Keras' Mean takes values, not labels and predictions."
            fields.add_problem(path, message, "Remove it; the mean of the loss is always reported.")
        elif metric.name in accepted:
            fields.add_problem(path, f"The metric '{metric.name}' is listed twice.", "Remove one of the two.")
        elif metric.name in metric_names.ALLOWED_METRICS:
            accepted.append(metric.name)
        else:
            rejected.append(metric.name)
            fields.notices.append(metric_names.rejection(metric.name))
    return tuple(accepted), tuple(rejected)
