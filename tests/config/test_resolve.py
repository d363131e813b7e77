"""Defaults, derived values and rules of a TaskSpec (spec: task_config.md, sections 2 to 5)."""

import dataclasses
import math

import pytest
from google.protobuf import text_format

from odp_taskbuilder import config, errors
from odp_taskbuilder.config import metric_names, spec
from odp_taskbuilder.proto import task_builder_pb2

MINIMAL = """
mode: TRAINING_AND_EVAL
population_name: "p"
policies { model_release_policy { num_max_training_rounds: 10 } }
federated_learning {
  learning_process { runtime_config { report_goal: 20 } }
  evaluation { report_goal: 20 source_training_task_id: 1 }
}
differential_privacy { clip_norm: 0.1 }
"""


def task_config(**values):
    """The minimal config with fields set by dotted path, given with `__` for the dots; None clears."""
    message = text_format.Parse(MINIMAL, task_builder_pb2.TaskConfig())
    for path, value in values.items():
        *blocks, name = path.split("__")
        block = message
        for part in blocks:
            block = getattr(block, part)
        if value is None:
            block.ClearField(name)
        else:
            setattr(block, name, value)
    return message


def resolve(options=None, **values):
    return config.resolve(task_config(**values), options or config.ResolveOptions())


def messages(options=None, **values):
    with pytest.raises(errors.ConfigError) as caught:
        resolve(options, **values)
    return [problem.message for problem in caught.value.problems]


RUNTIME = "federated_learning__learning_process__runtime_config__"
LEARNING = "federated_learning__learning_process__"
EVALUATION = "federated_learning__evaluation__"
RELEASE = "policies__model_release_policy__"
DATASET = "policies__dataset_policy__"
PRIVACY = "differential_privacy__"


def test_every_default_is_applied():
    resolved = resolve()
    assert dataclasses.replace(resolved, origins={}) == spec.TaskSpec(
        mode=spec.TaskMode.TRAINING_AND_EVAL,
        population_name="p",
        label_name=None,
        form=spec.PlanForm.MAP_REDUCE,
        num_rounds=10,
        learning=spec.LearningSpec(
            algorithm=spec.LearningAlgorithm.FED_AVG,
            client_optimizer=spec.OptimizerSpec(spec.OptimizerKind.SGD, 0.1),
            server_optimizer=spec.OptimizerSpec(spec.OptimizerKind.SGD, 1.0),
            metrics=(),
        ),
        dataset=spec.DatasetSpec(batch_size=3, max_batches=-1),
        eligibility=spec.EligibilitySpec(minimum_separation=0, min_example_count=0),
        training=spec.RoundsSpec(20, 0.3, 26, "", 100),
        evaluation=spec.EvaluationSpec(spec.RoundsSpec(20, 0.3, 26, "", 0), 0.0, spec.CheckpointSelector(1, "round"), "p", 1),
        privacy=spec.PrivacySpec(
            aggregator=spec.DpAggregator.FIXED_GAUSSIAN,
            skip_aggregator=False,
            skip_check=False,
            noise_multiplier=None,
            clip_norm=0.1,
            target_epsilon=10.0,
            delta=3.3333333333333335e-07,
            rounds=10,
            report_goal=20,
            minimum_separation=0,
        ),
    )


def test_each_value_says_where_it_came_from():
    loaded = config.parse_config(MINIMAL + 'use_daf: false label_name: "y"')
    origins = config.resolve(loaded, config.ResolveOptions(population_name="q", population=10_000_000)).origins
    assert {path: origins[path].value for path in origins if "." not in path} == {
        "mode": "config", "population_name": "option", "label_name": "config", "use_daf": "config",
    }  # fmt: skip
    assert origins["federated_learning.learning_process.runtime_config.report_goal"] is spec.Origin.CONFIG
    assert origins["federated_learning.learning_process.server_learning_rate"] is spec.Origin.DEFAULT
    assert origins["policies.model_release_policy.dp_delta"] is spec.Origin.OPTION
    assert origins["differential_privacy.noise_multiplier"] is spec.Origin.DERIVED
    assert origins["training.max_aggregation_size"] is spec.Origin.DERIVED


@pytest.mark.parametrize(
    ("report_goal", "rate", "expected"),
    [(2, 0, 2), (2, 0.5, 3), (3, 0, 3), (1, 1.0, 2), (7, 0.1, 7), (10, 0.1, 11), (30, 0.1, 33), (10, 0.3, 13), (200, 0, 260), (2000, 0.3, 2600)],
)  # fmt: skip
def test_max_aggregation_size_is_the_floor_in_double_arithmetic(report_goal, rate, expected):
    values = {f"{RUNTIME}report_goal": report_goal, f"{RUNTIME}over_selection_rate": rate}
    assert resolve(**values).training.max_aggregation_size == expected


@pytest.mark.parametrize(
    ("traffic", "weight"),
    [(0, 0), (0.0001, 0), (0.005, 0), (0.1, 11), (0.2, 25), (0.25, 33), (0.5, 100), (0.9, 900), (0.91, 1011), (0.99, 9899), (0.999, 99899), (0.9999, 999900), (1.0, 10000)],
)  # fmt: skip
def test_traffic_weight_of_evaluation_follows_the_existing_task_builder(traffic, weight):
    assert resolve(**{f"{EVALUATION}evaluation_traffic": traffic}).evaluation.rounds.traffic_weight == weight


@pytest.mark.parametrize(
    ("text", "selector"),
    [("", (1, "round")), ("every_1_round", (1, "round")), ("every_24_hour", (24, "hour")), ("every_007_round", (7, "round"))],
)
def test_checkpoint_selectors(text, selector):
    resolved = resolve(**{f"{EVALUATION}checkpoint_selector": text}).evaluation.checkpoint_selector
    assert (resolved.every, resolved.unit) == selector


@pytest.mark.parametrize(
    "text",
    ["every_0_round", "every_²_round", "every_٣_round", "every_1_rounds", "Every_1_round", "every_1_round ", "every_-1_round", "every_1_2_round",
     "every__round", "every_1_day", f"every_{2**63}_hour", "every_" + "9" * 5000 + "_hour", "every_1_round\n"],
)  # fmt: skip
def test_checkpoint_selectors_of_another_form_are_refused(text):
    (message,) = messages(**{f"{EVALUATION}checkpoint_selector": text})
    assert message.endswith(
        "checkpoint_selector must be in the format of every_k_round or every_k_hour, where k is a positive integer."
    )


REPORT_GOAL = "report_goal is required and must be set to an integer strictly greater than zero."


@pytest.mark.parametrize(
    ("path", "value", "key", "entity", "debug"),
    [
        ("population_name", "", "population_name", "task_config", "population_name is required and must be set to an non-empty string."),
        ("policies__min_separation_policy__minimum_separation", -1, "minimum_separation", "min_separation_policy", "minimum_separation must be a nonnegative number."),
        ("policies__data_availability_policy__min_example_count", -1, "min_example_count", "data_availability_policy", "min_example_count must be a nonnegative number."),
        (f"{RELEASE}dp_target_epsilon", 12.0, "dp_target_epsilon", "model_release_policy", "dp_target_epsilon must be a float number between 0 and 10.000000"),
        (f"{RELEASE}dp_delta", 3.3333334e-07, "dp_delta", "model_release_policy", "dp_delta must be a float number between 0 and 3.333333E-07"),
        (f"{RELEASE}num_max_training_rounds", -1, "num_max_training_rounds", "model_release_policy", "num_max_training_rounds must be a nonnegative number."),
        (f"{DATASET}batch_size", -1, "batch_size", "dataset_policy", "batch_size must be a nonnegative number."),
        (f"{LEARNING}client_learning_rate", 1.5, "client_learning_rate", "learning_process", "client_learning_rate must be a probability."),
        (f"{LEARNING}server_learning_rate", -0.5, "server_learning_rate", "learning_process", "server_learning_rate must be a probability."),
        (f"{RUNTIME}report_goal", 0, "report_goal", "runtime_config", REPORT_GOAL),
        (f"{RUNTIME}over_selection_rate", -1.0, "over_selection_rate", "runtime_config", "over_selection_rate must be a nonnegative number."),
        (f"{EVALUATION}report_goal", 0, "report_goal", "evaluation", REPORT_GOAL),
        (f"{EVALUATION}over_selection_rate", -1.0, "over_selection_rate", "evaluation", "over_selection_rate must be a nonnegative number."),
        (f"{EVALUATION}checkpoint_selector", "x", "checkpoint_selector", "evaluation", "checkpoint_selector must be in the format of every_k_round or every_k_hour, where k is a positive integer."),
        (f"{EVALUATION}evaluation_traffic", 1.5, "evaluation_traffic", "evaluation", "evaluation_traffic must be a probability."),
        (f"{EVALUATION}source_training_task_id", -1, "source_training_task_id", "evaluation", "source_training_task_id is required and must be a positive number."),
        (f"{PRIVACY}noise_multiplier", -1.0, "noise_multiplier", "differential_privacy", "noise_multiplier must be a nonnegative number."),
        (f"{PRIVACY}clip_norm", 0.0, "clip_norm", "differential_privacy", "clip_norm is required and must be a positive float when using FIXED_GAUSSIAN or TREE_AGGREGATION DP Aggregator."),
    ],
)  # fmt: skip
def test_the_rules_of_the_existing_task_builder_keep_their_words(path, value, key, entity, debug):
    assert messages(**{path: value}) == [
        f"[Invalid task config]: key `{key}` has a bad value: `{value}` in `{entity}`. {debug}"
    ]


def test_adaptive_aggregators_have_a_rule_of_their_own():
    assert messages(**{f"{PRIVACY}type": "ADAPTIVE_GAUSSIAN", f"{PRIVACY}init_clip_norm": -0.5}) == [
        "[Invalid task config]: key `init_clip_norm` has a bad value: `-0.5` in `differential_privacy`. init_clip_norm must be a positive float "
        "or be left empty when using ADAPTIVE_GAUSSIAN or ADAPTIVE_TREE DP Aggregator."
    ]  # fmt: skip


DOUBLES = [
    f"{RELEASE}dp_target_epsilon", f"{RELEASE}dp_delta", f"{LEARNING}client_learning_rate", f"{LEARNING}server_learning_rate",
    f"{RUNTIME}over_selection_rate", f"{EVALUATION}over_selection_rate", f"{EVALUATION}evaluation_traffic", f"{PRIVACY}noise_multiplier",
    f"{PRIVACY}clip_norm", f"{PRIVACY}init_clip_norm",
]  # fmt: skip


@pytest.mark.parametrize("aggregator", ["FIXED_GAUSSIAN", "ADAPTIVE_GAUSSIAN"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("path", DOUBLES)
def test_every_double_is_finite_even_where_it_is_not_read(path, value, aggregator):
    assert len(messages(**{f"{PRIVACY}type": aggregator, path: value})) == 1
    not_read = {"mode": "TRAINING_ONLY", f"{PRIVACY}type": aggregator, path: value}
    assert len(messages(**not_read)) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"mode": 9},
        {"mode": 0},
        {f"{LEARNING}type": 9},
        {f"{LEARNING}client_optimizer": 3},
        {f"{LEARNING}server_optimizer": -1},
        {f"{PRIVACY}type": 9},
        {f"{DATASET}max_training_batches_per_client": -5},
        {f"{RELEASE}num_max_training_rounds": 0},
        {f"{RUNTIME}report_goal": 3_000_001},
        {f"{RUNTIME}over_selection_rate": 1e300},
        {f"{EVALUATION}report_goal": 2**63 - 1},
        {f"{EVALUATION}source_training_population": "a/b"},
    ],
    ids=str,
)
def test_gaps_of_the_existing_task_builder_are_closed(values):
    assert len(messages(**values)) == 1


@pytest.mark.parametrize("name", ["a" * 65, "a/b", "a b", "a?b", "a#b", ".hidden", "ä", "a\n", "\u202eabc"])
def test_population_names_that_break_urls_are_refused(name):
    assert len(messages(population_name=name)) == 1
    assert len(messages(config.ResolveOptions(population_name=name))) == 1


def test_a_population_name_from_an_option_is_no_fault_of_a_line():
    loaded = config.parse_config('mode: TRAINING_ONLY\npopulation_name: "good"\n')
    with pytest.raises(errors.ConfigError) as raised:
        config.resolve(loaded, config.ResolveOptions(population_name="a/b/c"))
    (problem,) = [problem for problem in raised.value.problems if "a/b/c" in problem.message]
    assert problem.message.startswith("--population_name has a bad value: `a/b/c`.")
    assert (problem.line, problem.path) == (None, "")


def test_the_mode_is_required_and_named():
    (message,) = messages(mode=0)
    assert message.endswith("mode is required and must be one of TRAINING_ONLY, TRAINING_AND_EVAL, EVAL_ONLY.")


def test_training_only_does_not_look_at_the_evaluation():
    resolved = resolve(mode="TRAINING_ONLY", **{f"{EVALUATION}report_goal": -1, f"{EVALUATION}checkpoint_selector": "x"})
    assert resolved.evaluation is None


def test_eval_only_needs_neither_report_goal_nor_clip_of_training():
    resolved = resolve(mode="EVAL_ONLY", **{f"{RUNTIME}report_goal": None, f"{PRIVACY}clip_norm": None})
    assert resolved.training is None
    assert (resolved.privacy.report_goal, resolved.privacy.clip_norm, resolved.privacy.noise_multiplier) == (20, 0.1, None)


def test_eval_only_takes_what_the_config_says_about_training():
    values = {f"{PRIVACY}type": "ADAPTIVE_TREE", f"{PRIVACY}noise_multiplier": 5.0, f"{RUNTIME}report_goal": 200}
    resolved = resolve(mode="EVAL_ONLY", **values)
    assert (resolved.training, resolved.privacy.report_goal, resolved.privacy.noise_multiplier) == (None, 200, 5.0)
    assert len(messages(mode="EVAL_ONLY", **{f"{RUNTIME}report_goal": -1})) == 1


def test_a_stated_population_takes_the_place_of_three_million():
    options = config.ResolveOptions(population=1000)
    assert resolve(options).privacy.delta == 1 / 3_000_000  # Fewer devices are no reason for a weaker guarantee.
    assert resolve(config.ResolveOptions(population=10_000_000)).privacy.delta == 1e-7
    assert resolve(options, **{f"{RELEASE}dp_delta": 1e-6}).privacy.delta == 1e-6
    (message,) = messages(options, **{f"{RELEASE}dp_delta": 2e-3})
    assert message.endswith("dp_delta must be a float number between 0 and 1.000000E-03")
    assert len(messages(options, **{f"{RUNTIME}report_goal": 1001})) == 1
    assert resolve(**{f"{RELEASE}dp_delta": 3.3333333333333335e-07}).privacy.delta == 1 / 3_000_000


@pytest.mark.parametrize("population", [0, -5])
def test_a_population_is_positive(population):
    with pytest.raises(errors.UsageError):
        resolve(config.ResolveOptions(population=population))


@pytest.mark.parametrize("aggregator", ["ADAPTIVE_GAUSSIAN", "ADAPTIVE_TREE"])
def test_adaptive_clipping_leaves_room_for_its_own_noise(aggregator):
    values = {f"{PRIVACY}type": aggregator, f"{PRIVACY}noise_multiplier": 2.0}
    (message,) = messages(**values)
    assert "With " + aggregator + " noise_multiplier must be below 2, a tenth of the report goal of 20" in message
    assert resolve(**{**values, f"{PRIVACY}noise_multiplier": 1.999}).privacy.noise_multiplier == 1.999
    assert resolve(config.ResolveOptions(skip_dp_aggregator=True), **values).privacy.skip_aggregator


def test_zero_means_unset_with_either_sign():
    values = {
        f"{PRIVACY}noise_multiplier": -0.0,
        f"{LEARNING}client_learning_rate": -0.0,
        f"{RUNTIME}over_selection_rate": -0.0,
    }
    resolved = resolve(**values)
    assert resolved.privacy.noise_multiplier is None
    assert (resolved.learning.client_optimizer.learning_rate, resolved.training.over_selection_rate) == (0.1, 0.3)


class TestMetrics:
    def metrics(self, *names):
        message = task_config()
        for name in names:
            message.federated_learning.learning_process.metrics.add(name=name)
        return message

    def test_the_list_has_twenty_names_and_all_but_mean_are_accepted_in_order(self):
        buildable = tuple(name for name in metric_names.ALLOWED_METRICS if name != "mean")
        assert (len(metric_names.ALLOWED_METRICS), len(buildable)) == (20, 19)
        assert config.resolve(self.metrics(*buildable)).learning.metrics == buildable

    @pytest.mark.parametrize(
        ("name", "meant"),
        [("auc", "auc-roc"), ("auc_roc", "auc-roc"), ("AUC-ROC", "auc-roc"), ("auc_pr", "auc-pr"), ("binary_acuracy", "binary_accuracy"), ("mse", "mean_squared_error"), ("RMSE", "root_mean_squared_error")],
    )  # fmt: skip
    def test_a_name_off_the_list_is_left_out_with_a_suggestion(self, name, meant):
        resolved = config.resolve(self.metrics("recall", name, "precision"))
        assert (resolved.learning.metrics, resolved.learning.rejected_metrics) == (("recall", "precision"), (name,))
        assert resolved.notices == (f"The metric '{name}' is not on the allow list and is left out. Did you mean '{meant}'?",)

    def test_loss_needs_no_entry(self):
        assert config.resolve(self.metrics("loss")).notices == ("The metric 'loss' is always reported and needs no entry.",)

    def test_more_metrics_than_there_can_be_are_refused_without_looking_at_each(self):
        with pytest.raises(errors.ConfigError, match="20000 metrics are listed; a task has at most 100"):
            config.resolve(self.metrics(*(f"accuracy_{i}" for i in range(20_000))))

    @pytest.mark.parametrize("names", [("recall", "recall"), ("mean",)])
    def test_what_cannot_be_built_is_refused_before_building(self, names):
        with pytest.raises(errors.ConfigError) as caught:
            config.resolve(self.metrics(*names))
        assert [problem.path for problem in caught.value.problems] == [
            f"federated_learning.learning_process.metrics[{len(names) - 1}].name"
        ]


class TestArtifactUrls:
    TRAINING = f"{LEARNING}artifact_building__"

    def urls(self, plan, client_plan="gs://b/c", checkpoint="/tmp/checkpoint"):
        prefix = f"{LEARNING}artifact_building__"
        return {f"{prefix}plan_url": plan, f"{prefix}client_plan_url": client_plan, f"{prefix}checkpoint_url": checkpoint}

    @pytest.mark.parametrize(
        "url", ["gs://bucket/object", "gs://bucket/a/b", "file:///tmp/plan.pb", "/tmp/plan.pb", "out/plan.pb"]
    )
    def test_destinations(self, url):
        resolved = resolve(config.ResolveOptions(require_artifact_urls=True), mode="TRAINING_ONLY", **self.urls(url))
        assert resolved.training.urls == spec.ArtifactUrls(url, "gs://b/c", "/tmp/checkpoint")

    @pytest.mark.parametrize(
        "url",
        [
            "gs://bucket",
            "gs:///object",
            "gs://bucket/",
            "s3://bucket/object",
            "http://host/x",
            "file://host/x",
            "/tmp/",
            "gs://b/c",
        ],
    )
    def test_other_destinations_are_refused(self, url):
        assert len(messages(mode="TRAINING_ONLY", **self.urls(url))) == 1

    def test_each_artifact_needs_one_when_only_artifacts_are_built(self):
        assert resolve(mode="TRAINING_ONLY").training.urls == spec.ArtifactUrls()
        assert len(messages(config.ResolveOptions(require_artifact_urls=True), mode="TRAINING_ONLY")) == 3
        assert len(messages(config.ResolveOptions(require_artifact_urls=True))) == 6

    def test_the_published_artifact_only_config_resolves_with_a_storage_path(self, golden):
        loaded = config.load_config(golden / "keras_dense" / "keras_task_config_build_artifact_only.pbtxt")
        resolved = config.resolve(loaded, config.ResolveOptions(require_artifact_urls=True, storage_path="gs://bucket/run"))
        assert resolved.training.urls == spec.ArtifactUrls(
            "gs://bucket/run/plan.pb", "gs://bucket/run/client_only_plan.pb", "gs://bucket/run/initial_state.server.ckp"
        )
        assert resolved.evaluation.rounds.urls.plan == "gs://bucket/run/eval_plan.pb"
        path = "federated_learning.evaluation.artifact_building.plan_url"
        assert resolved.origins[path] is spec.Origin.OPTION


def test_the_published_sample_config(golden):
    resolved = config.resolve(config.load_config(golden / "keras_dense" / "keras_task_config.pbtxt"))
    assert resolved.form is spec.PlanForm.DISTRIBUTE_AGGREGATE
    assert (resolved.training.report_goal, resolved.training.max_aggregation_size) == (2, 2)
    assert resolved.evaluation.rounds.traffic_weight == 25
    assert (resolved.num_rounds, resolved.privacy.noise_multiplier) == (1000, None)
