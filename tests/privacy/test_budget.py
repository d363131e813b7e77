"""privacy_budget: what a task spends, when it is refused, and what it says about itself."""

import dataclasses
import math

import privacy_oracles as oracles
import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.config.spec import DpAggregator, PrivacySpec
from odp_taskbuilder.privacy import mechanism_of, privacy_budget

# The published Keras sample.
SAMPLE = PrivacySpec(
    aggregator=DpAggregator.FIXED_GAUSSIAN,
    skip_aggregator=False,
    skip_check=False,
    noise_multiplier=None,
    clip_norm=0.1,
    target_epsilon=10.0,
    delta=oracles.DELTA,
    rounds=1000,
    report_goal=2,
    minimum_separation=0,
)


def spec(**changes):
    return dataclasses.replace(SAMPLE, **changes)


def text_of(budget):
    return "\n".join(budget.assumptions)


def test_the_published_sample_gets_the_noise_that_the_existing_task_builder_finds():
    budget = privacy_budget(SAMPLE)
    assert budget.noise_multiplier == pytest.approx(0.22200350565514426, rel=1e-4)
    assert 9.99 < budget.epsilon <= 10
    assert budget.calibrated and budget.aggregator is DpAggregator.FIXED_GAUSSIAN
    assert (budget.sampling_rate, budget.rounds, budget.clip_norm) == (2 / 3_000_000, 1000, 0.1)


def test_a_configured_noise_within_the_target_is_kept():
    budget = privacy_budget(spec(noise_multiplier=1.0, report_goal=2000))
    assert budget.noise_multiplier == 1.0 and not budget.calibrated
    assert budget.epsilon == 0.13243  # 0.13242623236419093, in five digits
    assert "The target is met: epsilon is at most 0.13243 for an assumed population of 3,000,000 devices, the limit 10; with the configured noise." in budget.assumptions


def test_too_little_noise_is_refused_with_what_was_found_the_limit_and_the_noise_that_suffices():
    with pytest.raises(errors.PrivacyBudgetError) as refused:
        privacy_budget(spec(noise_multiplier=0.6, report_goal=2000, target_epsilon=1.0))
    assert refused.value.exit_code == 5
    reference = "[Invalid task config]: differential_privacy setup is not private enough to pass DP accounting check."
    assert refused.value.message.startswith(reference)
    assert "noise_multiplier 0.6 spends epsilon 1.9" in refused.value.message
    assert "the limit is dp_target_epsilon 1, at delta 3.333333e-07" in refused.value.message
    advised = float(refused.value.next_step.split()[2])
    assert privacy_budget(spec(noise_multiplier=advised, report_goal=2000, target_epsilon=1.0)).epsilon <= 1.0
    with pytest.raises(errors.PrivacyBudgetError):
        privacy_budget(spec(noise_multiplier=advised * 0.998, report_goal=2000, target_epsilon=1.0))


def test_an_epsilon_equal_to_the_target_passes():
    epsilon = privacy_budget(spec(noise_multiplier=1.0, report_goal=2000)).epsilon
    assert privacy_budget(spec(noise_multiplier=1.0, report_goal=2000, target_epsilon=epsilon)).epsilon == epsilon


def test_an_epsilon_within_the_target_is_not_stated_as_one_beyond():
    exact = mechanism_of(spec(report_goal=2000)).epsilon(1.0)
    budget = privacy_budget(spec(noise_multiplier=1.0, report_goal=2000, target_epsilon=exact))
    assert budget.epsilon == exact


def test_a_calibrated_noise_has_six_digits_at_most_and_fewer_where_rounding_swallows_them():
    for changes, most in [
        ({"rounds": 100, "report_goal": 2000, "target_epsilon": 6.0}, 6),
        ({"rounds": 1000, "report_goal": 2000, "delta": 1e-9, "target_epsilon": 1.0}, 4),
        ({"aggregator": DpAggregator.TREE_AGGREGATION, "minimum_separation": 500}, 6),
    ]:
        value = privacy_budget(spec(**changes)).noise_multiplier
        assert value == float(f"{value:.{most}g}")


def test_a_skipped_check_lets_any_epsilon_pass_and_says_so():
    budget = privacy_budget(spec(noise_multiplier=0.5, report_goal=2000, target_epsilon=1.0, skip_check=True))
    assert budget.epsilon == 4.0427  # 4.042644210171192
    assert "The target is exceeded: epsilon is 4.0427 for an assumed population of 3,000,000 devices," in text_of(budget)
    assert "only skip_dp_check lets such a task pass" in text_of(budget)


def test_a_skipped_aggregator_means_infinite_epsilon_and_says_so():
    budget = privacy_budget(spec(skip_aggregator=True, noise_multiplier=1.0, rounds=0))
    assert (budget.aggregator, budget.noise_multiplier, budget.epsilon) == (None, 0.0, math.inf)
    assert not budget.calibrated
    assert "No differential privacy was applied" in text_of(budget)


def test_a_smaller_population_costs_privacy():
    by_population = {
        population: privacy_budget(
            spec(noise_multiplier=1.0, report_goal=2000, population=population, target_epsilon=10.0, skip_check=True)
        )
        for population in (3_000_000, 300_000, 30_000)
    }
    epsilons = [budget.epsilon for budget in by_population.values()]
    assert epsilons == pytest.approx([0.1324, 1.49, 17.8], rel=5e-3)
    assert "The population is assumed to be 3,000,000 devices" in text_of(by_population[3_000_000])
    assert "The population is stated to be 30,000 devices" in text_of(by_population[30_000])


def test_gaussian_budgets_state_what_they_assume():
    text = text_of(privacy_budget(spec(noise_multiplier=1.0, report_goal=2000)))
    for promise in (
        "independently with probability 0.000667 (Poisson sampling)",
        "over-selected clients, if they are aggregated, are not counted",
        "Training and evaluation metrics carry no noise",
    ):
        assert promise in text
    assert "come close to releasing single clients' values" not in text
    assert "with 2 clients per round they come close to releasing single clients' values" in text_of(
        privacy_budget(spec(noise_multiplier=1.0))
    )


@pytest.mark.parametrize("aggregator", [DpAggregator.TREE_AGGREGATION, DpAggregator.ADAPTIVE_TREE])
def test_a_tree_whose_clients_take_part_once_has_the_reference_epsilon(aggregator):
    budget = privacy_budget(spec(aggregator=aggregator, minimum_separation=1000, report_goal=2000, rounds_per_day=150))
    assert budget.noise_multiplier == pytest.approx(1.8602835037747605, rel=1e-4)
    assert (budget.contributions_per_client, budget.sampling_rate) == (1, None)
    assert "Each client takes part at most once: minimum_separation 1,000" in text_of(budget)
    assert "hold the seeds of the tree noise" in text_of(budget)


def test_a_tree_whose_clients_come_back_is_accounted_for_as_such():
    budget = privacy_budget(
        spec(aggregator=DpAggregator.TREE_AGGREGATION, noise_multiplier=8.0, minimum_separation=500, rounds_per_day=150)
    )
    assert budget.contributions_per_client == 2
    assert budget.epsilon == pytest.approx(4.18, rel=2e-3)
    assert "A client can take part 2 times in 1,000 rounds with minimum_separation 500" in text_of(budget)
    assert "minimum_separation 1,000 or more would make it once" in text_of(budget)
    with pytest.raises(errors.PrivacyBudgetError, match="spends epsilon"):
        privacy_budget(spec(aggregator=DpAggregator.TREE_AGGREGATION, noise_multiplier=8.0, minimum_separation=0))


def test_a_tree_that_outlasts_the_memory_of_phones_is_accounted_for_as_such_and_names_its_pace():
    tree = spec(aggregator=DpAggregator.TREE_AGGREGATION, noise_multiplier=8.0, minimum_separation=1000, skip_check=True)
    budget = privacy_budget(tree)
    assert (budget.contributions_per_client, budget.rounds_per_day) == (6, 24.0)
    assert budget.epsilon == privacy_budget(dataclasses.replace(tree, minimum_separation=168)).epsilon
    assert "phones remember a separation of 168 rounds at most" in text_of(budget)
    assert "assumed to come at a pace of 24 a day or more, so that it remembers 168 of them" in text_of(budget)
    stated = privacy_budget(dataclasses.replace(tree, rounds_per_day=1000))
    assert stated.contributions_per_client == 1
    assert "stated to come at a pace of 1000 a day or more" in text_of(stated)


@pytest.mark.parametrize(
    ("rounds_per_day", "separation", "remedy"),
    [
        (
            24.0,
            1,
            "state minimum_separation 168 or more (phones forget after 7 days, 168 rounds at 24 a day), or fewer rounds.",
        ),
        (
            24.0,
            10_000_000,
            "phones forget after 7 days, 168 rounds at 24 a day; state fewer rounds, or, if rounds come faster, their pace",
        ),
    ],
)
def test_a_tree_target_that_forgetful_phones_put_out_of_reach_says_what_helps(rounds_per_day, separation, remedy):
    tree = spec(
        aggregator=DpAggregator.TREE_AGGREGATION,
        rounds=2_000_000_000,
        minimum_separation=separation,
        rounds_per_day=rounds_per_day,
    )
    with pytest.raises(errors.ConfigError) as refused:
        privacy_budget(tree)
    assert remedy in refused.value.problems[0].suggestion


def test_a_tree_target_out_of_reach_is_refused_with_the_separation_that_helps():
    with pytest.raises(errors.ConfigError) as refused:
        privacy_budget(spec(aggregator=DpAggregator.TREE_AGGREGATION, rounds=10_000_000, rounds_per_day=1e7))
    (problem,) = refused.value.problems
    assert problem.path == "policies.model_release_policy.dp_target_epsilon"
    assert "no noise multiplier up to 1e+07 reaches epsilon 10.0" in problem.message
    assert (
        problem.suggestion
        == "One client can take part 10000000 times: state minimum_separation 10000000 (the number of rounds) or more."
    )


@pytest.mark.parametrize(
    "changes, report_goal",
    [
        ({"noise_multiplier": 0.3}, 4),
        ({"noise_multiplier": 0.2}, 3),  # 0.1 * 2 is not enough: the limit itself is excluded.
        ({}, 3),  # calibrated to 0.222
        (
            {"aggregator": DpAggregator.ADAPTIVE_TREE, "minimum_separation": 1000, "rounds_per_day": 200},
            19,
        ),  # calibrated to 1.86
    ],
)
def test_an_adaptive_clip_needs_enough_clients_and_the_advice_names_how_many(changes, report_goal):
    impossible = spec(**{"aggregator": DpAggregator.ADAPTIVE_GAUSSIAN, "target_epsilon": 10.0, "skip_check": True, **changes})
    with pytest.raises(errors.ConfigError) as refused:
        privacy_budget(impossible)
    (problem,) = refused.value.problems
    assert problem.path == "differential_privacy.noise_multiplier"
    assert "needs noise_multiplier < 0.1 * report_goal, which is 0.2 with report_goal 2" in problem.message
    assert problem.suggestion.startswith(f"State report_goal {report_goal} or more, or use ")
    budget = privacy_budget(dataclasses.replace(impossible, report_goal=report_goal))
    assert budget.noise_multiplier < 0.1 * report_goal


def test_an_adaptive_clip_takes_its_share_of_the_noise():
    budget = privacy_budget(spec(aggregator=DpAggregator.ADAPTIVE_GAUSSIAN, noise_multiplier=3.0, report_goal=50))
    # (3^-2 - 5^-2)^-0.5 = 3.75
    assert "the noise on the updates is 3.75, 1.25 times the noise multiplier" in text_of(budget)


@pytest.mark.parametrize(
    "field, value, path",
    [
        ("noise_multiplier", math.nan, "differential_privacy.noise_multiplier"),
        ("noise_multiplier", math.inf, "differential_privacy.noise_multiplier"),
        ("noise_multiplier", -1.0, "differential_privacy.noise_multiplier"),
        ("noise_multiplier", 0.0, "differential_privacy.noise_multiplier"),
        ("target_epsilon", math.nan, "policies.model_release_policy.dp_target_epsilon"),
        ("target_epsilon", 0.0, "policies.model_release_policy.dp_target_epsilon"),
        ("target_epsilon", math.inf, "policies.model_release_policy.dp_target_epsilon"),
        ("delta", math.nan, "policies.model_release_policy.dp_delta"),
        ("delta", 0.0, "policies.model_release_policy.dp_delta"),
        ("delta", 1e-18, "policies.model_release_policy.dp_delta"),
        ("delta", 1e-6, "policies.model_release_policy.dp_delta"),
        ("rounds", 0, "policies.model_release_policy.num_max_training_rounds"),
        ("rounds", -3, "policies.model_release_policy.num_max_training_rounds"),
        ("rounds", 10**30, "policies.model_release_policy.num_max_training_rounds"),
        ("report_goal", 0, "federated_learning.learning_process.runtime_config.report_goal"),
        ("report_goal", 3_000_001, "federated_learning.learning_process.runtime_config.report_goal"),
        ("minimum_separation", -1, "policies.min_separation_policy.minimum_separation"),
        ("population", 0, "population"),
    ],
)
def test_values_that_cannot_be_accounted_for_are_refused_by_name(field, value, path):
    with pytest.raises(errors.ConfigError) as refused:
        privacy_budget(spec(**{field: value}))
    (problem,) = refused.value.problems
    assert problem.path == path
    assert problem.message.startswith(f"{field} must be ")
    assert problem.message.endswith(f"found {value!r}.")


def test_all_unusable_values_are_named_at_once():
    with pytest.raises(errors.ConfigError) as refused:
        privacy_budget(spec(rounds=0, delta=math.nan, noise_multiplier=-1.0))
    assert [problem.message.split()[0] for problem in refused.value.problems] == ["noise_multiplier", "rounds", "delta"]


def test_a_delta_that_rounding_errors_of_so_many_rounds_swallow_is_refused():
    assert privacy_budget(spec(delta=1e-10, rounds=1000, noise_multiplier=1.0)).epsilon < 1
    with pytest.raises(errors.ConfigError) as refused:
        privacy_budget(spec(delta=1e-10, rounds=100_000, noise_multiplier=1.0))
    (problem,) = refused.value.problems
    assert "delta must be at least 1.8e-10: over 100,000 rounds" in problem.message


def test_the_bound_of_delta_follows_the_stated_population():
    with pytest.raises(
        errors.ConfigError, match="If the real population is 1,000,000 devices or fewer, state it with --population"
    ):
        privacy_budget(spec(delta=1e-6, noise_multiplier=1.0))
    assert privacy_budget(spec(delta=1e-6, noise_multiplier=1.0, population=1_000_000)).delta == 1e-6
