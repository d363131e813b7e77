"""Accounting of the tree aggregators, for clients that take part once and for those that come back."""

import math

import dp_accounting
import hypothesis
import hypothesis.strategies as st
import privacy_oracles as oracles
import pytest
from dp_accounting import rdp

from odp_taskbuilder.config.spec import DpAggregator, PrivacySpec
from odp_taskbuilder.privacy import mechanism_of
from odp_taskbuilder.privacy.tree import TreeAggregation


def spec(rounds, minimum_separation, rounds_per_day):
    return PrivacySpec(
        aggregator=DpAggregator.TREE_AGGREGATION,
        skip_aggregator=False,
        skip_check=True,
        noise_multiplier=50.0,
        clip_norm=1.0,
        target_epsilon=10.0,
        delta=oracles.DELTA,
        rounds=rounds,
        report_goal=100,
        minimum_separation=minimum_separation,
        rounds_per_day=rounds_per_day,
    )


@pytest.mark.parametrize("rounds, delta", oracles.TREE_EPSILONS)
def test_the_reference_table_is_reproduced(rounds, delta):
    task = TreeAggregation(rounds, 1, delta)
    epsilons = [task.epsilon(noise) for noise in oracles.GAUSSIAN_NOISES]
    assert epsilons == pytest.approx(oracles.TREE_EPSILONS[rounds, delta], rel=1e-12)


@pytest.mark.parametrize("rounds, delta", oracles.TREE_NOISES_FOR_EPSILON)
def test_calibration_agrees_with_the_reference_and_stays_within_the_target(rounds, delta):
    task = TreeAggregation(rounds, 1, delta)
    for target, expected in zip(oracles.TARGETS, oracles.TREE_NOISES_FOR_EPSILON[rounds, delta]):
        found = task.smallest_noise(target)
        assert found.noise_multiplier == pytest.approx(expected, rel=1e-4)
        assert found.epsilon == task.epsilon(found.noise_multiplier) <= target


def test_epsilon_depends_on_the_rounds_through_the_depth_of_the_tree():
    by_rounds = {
        rounds: TreeAggregation(rounds, 1, oracles.DELTA).epsilon(1.0)
        for rounds in (1, 2, 3, 4, 7, 8, 15, 16, 1000, 1023, 1024)
    }
    depths = {rounds: math.floor(math.log2(rounds)) + 1 for rounds in by_rounds}
    assert {depths[rounds]: round(epsilon, 4) for rounds, epsilon in by_rounds.items()} == {
        1: 5.4407,
        2: 8.0734,
        3: 10.2216,
        4: 12.1181,
        5: 13.8543,
        10: 21.2261,
        11: 22.5386,
    }
    assert len(set(by_rounds.values())) == len(set(depths.values()))


@pytest.mark.parametrize("contributions, expected", [(1, 1.96), (2, 4.18), (5, 11.9), (10, 28.2), (100, 1005)])
def test_each_further_contribution_of_a_client_is_paid_for(contributions, expected):
    assert TreeAggregation(1000, contributions, oracles.DELTA).epsilon(8.0) == pytest.approx(expected, rel=5e-3)


def test_k_contributions_need_k_times_the_noise():
    once = TreeAggregation(1000, 1, oracles.DELTA).smallest_noise(6.0)
    often = TreeAggregation(1000, 25, oracles.DELTA).smallest_noise(6.0)
    # Both are rounded up to six digits, a step of 1e-5 at most.
    assert often.noise_multiplier == pytest.approx(25 * once.noise_multiplier, rel=1e-5)


@pytest.mark.parametrize(
    "rounds, minimum_separation, expected",
    [
        (1000, 0, 1000),
        (1000, 1, 1000),
        (1000, 2, 500),
        (1000, 3, 334),
        (1000, 999, 2),
        (1000, 1000, 1),
        (1000, 5000, 1),
        (1, 0, 1),
    ],
)
def test_contributions_follow_from_the_minimum_separation(rounds, minimum_separation, expected):
    # The rounds themselves: a client takes part in round 0, minimum_separation, 2 * minimum_separation, ...
    assert len(range(0, rounds, max(minimum_separation, 1))) == expected
    # At a pace at which a phone remembers all rounds.
    assert spec(rounds, minimum_separation, rounds_per_day=rounds).max_contributions == expected


@pytest.mark.parametrize(
    "rounds_per_day, contributions",
    [(24, 6), (1000, 1), (1000 / 7, 1), (100, 2), (1, 143), (0.01, 1000)],  # 168, 7000, 1000, 700, 7 and no rounds in 7 days
)
def test_phones_forget_after_seven_days(rounds_per_day, contributions):
    task = spec(1000, 1000, rounds_per_day)
    assert task.max_contributions == contributions
    event = dp_accounting.SingleEpochTreeAggregationDpEvent(50.0 / contributions, [1000])
    accountant = rdp.RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    accountant.compose(event)
    assert mechanism_of(task).epsilon(50.0) == pytest.approx(accountant.get_epsilon(task.delta), rel=1e-12)


@hypothesis.given(st.integers(1, 3000), st.integers(0, 3000), st.floats(0.01, 1000))
def test_the_contributions_are_never_fewer_than_a_phone_can_make(rounds, separation, rounds_per_day):
    # A phone that takes part whenever the server and its memory allow, rounds coming at an even pace.
    taken, last = 0, None
    for round_ in range(rounds):
        forgotten = last is not None and (round_ - last) / rounds_per_day >= 7
        if last is None or forgotten or round_ - last >= separation:
            taken, last = taken + 1, round_
    assert spec(rounds, separation, rounds_per_day).max_contributions >= taken
