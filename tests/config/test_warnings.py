"""What is allowed, but warned about."""

import pytest

from odp_taskbuilder import config

CLEAN = """
mode: TRAINING_AND_EVAL
population_name: "p"
policies {
  min_separation_policy { minimum_separation: 10 }
  model_release_policy { num_max_training_rounds: 10 }
}
federated_learning {
  learning_process { type: FED_AVG metrics { name: "recall" } runtime_config { report_goal: 2000 } }
  evaluation { report_goal: 200 source_training_task_id: 1 evaluation_traffic: 0.1 }
}
differential_privacy { type: FIXED_GAUSSIAN clip_norm: 0.1 noise_multiplier: 1 }
"""


def warnings(old="", new="", options=None):
    assert old in CLEAN
    return config.warnings_for(config.resolve(config.parse_config(CLEAN.replace(old, new)), options or config.ResolveOptions()))


def test_a_config_without_faults_has_no_warnings():
    assert warnings() == ()


@pytest.mark.parametrize(
    ("old", "new", "path", "part"),
    [
        ("evaluation_traffic: 0.1", "", "federated_learning.evaluation.evaluation_traffic", "A traffic of 0 becomes weight 0"),
        ("evaluation_traffic: 0.1", "evaluation_traffic: 0.005", "federated_learning.evaluation.evaluation_traffic", "A traffic of 0.005 becomes weight 0"),
        ("evaluation_traffic: 0.1", "evaluation_traffic: 0.91", "federated_learning.evaluation.evaluation_traffic", "becomes weight 1011, beyond the documented 1000"),
        ('"recall"', '"recal"', "federated_learning.learning_process.metrics", "The metric 'recal' is not on the allow list and is left out. Did you mean 'recall'?"),
        ('"recall"', '"accuracy"', "federated_learning.learning_process.metrics", "accuracy compares labels and outputs for equality"),
        ('"recall"', '"sparse_categorical_crossentropy_from_logits"', "federated_learning.learning_process.metrics", "longer than the 64 characters"),
        ("report_goal: 2000", "report_goal: 99", "federated_learning.learning_process.runtime_config.report_goal", "sums over 99 clients come close"),
        ("report_goal: 200 ", "report_goal: 2 ", "federated_learning.evaluation.report_goal", "sums over 2 clients come close"),
        ("report_goal: 200 ", "report_goal: 3000001 ", "federated_learning.evaluation.report_goal", "more clients than the population of 3000000"),
        ("task_id: 1", "task_id: 7", "federated_learning.evaluation.source_training_task_id", "7 counts only with --source_training_task_id 7"),
        ("task_id: 1", 'task_id: 1 source_training_population: "q"', "federated_learning.evaluation.source_training_population", "reads checkpoints of q,"),
        ("task_id: 1", 'task_id: 1 checkpoint_selector: "every_25_hour"', "federated_learning.evaluation.checkpoint_selector", "looks back 24 hours"),
        ("report_goal: 2000", 'report_goal: 2000 example_selector_uri: "app://a"', "federated_learning.learning_process.runtime_config.example_selector_uri", "with it the URI has no effect"),
        ("task_id: 1", 'task_id: 1 example_selector_uri: "app://a"', "federated_learning.evaluation.example_selector_uri", "with it the URI has no effect"),
        ("report_goal: 2000", "report_goal: 2000 over_selection_rate: 0.5", "federated_learning.learning_process.runtime_config.over_selection_rate", "it is higher if all 3000 are aggregated"),
        ("FIXED_GAUSSIAN", "ADAPTIVE_GAUSSIAN noise_multiplier: 180", "differential_privacy.noise_multiplier", "updates get 2.29 times the configured one"),
    ],
)  # fmt: skip
def test_each_warning_names_its_field(old, new, path, part):
    text = new.replace("noise_multiplier: 180", "")
    if text != new:
        changed = (
            CLEAN.replace("FIXED_GAUSSIAN", "ADAPTIVE_GAUSSIAN")
            .replace("noise_multiplier: 1 ", "noise_multiplier: 180 ")
            .replace("clip_norm: 0.1", "")
        )
        (warning,) = config.warnings_for(config.resolve(config.parse_config(changed)))
    else:
        (warning,) = warnings(old, new)
    assert warning.path == path
    assert part in warning.message


@pytest.mark.parametrize("separation", [0, 9])
def test_trees_need_a_separation_of_all_rounds(separation):
    tree = CLEAN.replace("FIXED_GAUSSIAN", "TREE_AGGREGATION")
    assert config.warnings_for(config.resolve(config.parse_config(tree))) == ()
    text = tree.replace("minimum_separation: 10", f"minimum_separation: {separation}")
    (warning,) = config.warnings_for(config.resolve(config.parse_config(text)))
    assert warning.path == "policies.min_separation_policy.minimum_separation"
    assert f"take part {10 if separation == 0 else 2} times in 10 rounds" in warning.message
    assert "10 or more would make it once" in warning.message


@pytest.mark.parametrize(
    ("separation", "part"),
    [
        (
            1000,
            "6 times in 1000 rounds, which TREE_AGGREGATION pays for with epsilon; a larger separation does not help: phones forget",
        ),
        (
            100,
            "10 times in 1000 rounds, which TREE_AGGREGATION pays for with epsilon; 168 or more would make it 6 times, not fewer",
        ),
    ],
)
def test_trees_that_outlast_the_memory_of_phones_are_warned_of(separation, part):
    text = CLEAN.replace("FIXED_GAUSSIAN", "TREE_AGGREGATION").replace("rounds: 10 ", "rounds: 1000 ")
    text = text.replace("minimum_separation: 10", f"minimum_separation: {separation}")
    (warning,) = config.warnings_for(config.resolve(config.parse_config(text)))
    assert part in warning.message and "168 rounds at 24 a day (--rounds_per_day)" in warning.message
    fast = config.ResolveOptions(rounds_per_day=1000)
    assert len(config.warnings_for(config.resolve(config.parse_config(text), fast))) == (separation < 1000)


def test_small_rounds_may_leave_no_noise_to_an_adaptive_clip():
    text = CLEAN.replace("FIXED_GAUSSIAN clip_norm: 0.1 noise_multiplier: 1", "ADAPTIVE_GAUSSIAN").replace("2000", "9")
    small, adaptive = config.warnings_for(config.resolve(config.parse_config(text)))
    assert "come close to releasing" in small.message
    assert "With ADAPTIVE_GAUSSIAN the calibrated noise must come out below 0.9," in adaptive.message


def test_skipping_the_aggregator_is_said_in_words():
    (warning,) = warnings(options=config.ResolveOptions(skip_dp_aggregator=True))
    assert warning.message == "The DP aggregator is skipped: there is no clip, no noise and no privacy guarantee."


@pytest.mark.parametrize(
    ("old", "new", "notice"),
    [
        ("TRAINING_AND_EVAL", "TRAINING_ONLY", "federated_learning.evaluation has no effect with mode TRAINING_ONLY."),
        ("FED_AVG", "FED_SGD client_learning_rate: 0.5", "federated_learning.learning_process.client_learning_rate has no effect with FED_SGD."),
        ("FIXED_GAUSSIAN", "ADAPTIVE_GAUSSIAN", "differential_privacy.clip_norm has no effect with ADAPTIVE_GAUSSIAN."),
        ("clip_norm: 0.1", "clip_norm: 0.1 init_clip_norm: 1", "differential_privacy.init_clip_norm has no effect with FIXED_GAUSSIAN."),
        ("noise_multiplier: 1 ", "noise_multiplier: 0 ", "differential_privacy.noise_multiplier 0 counts as unset: the noise is calibrated to the target epsilon."),
    ],
)  # fmt: skip
def test_values_that_are_given_in_vain_are_noticed(old, new, notice):
    assert config.resolve(config.parse_config(CLEAN.replace(old, new))).notices == (notice,)
