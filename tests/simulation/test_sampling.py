"""Cohorts repeat with their seed, honour the policies, and are drawn with the probability that accounting assumes."""

import numpy as np
import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.config.spec import CheckpointSelector
from odp_taskbuilder.simulation.evaluation_schedule import CheckpointChoice, choose_checkpoint, evaluation_rounds_due
from odp_taskbuilder.simulation.sampling import CohortSampler, Sampling, draw_evaluation_cohort

CLIENTS = [f"c{number:03d}" for number in range(200)]


def cohorts(rounds, sampling=Sampling.FIXED, size=10, separation=0, seed=0, clients=CLIENTS):
    sampler = CohortSampler(clients, sampling=sampling, clients_per_round=size, minimum_separation=separation, seed=seed)
    return [sampler.next_cohort() for _ in range(rounds)]


@pytest.mark.parametrize("sampling", Sampling)
def test_cohorts_are_a_function_of_the_seed(sampling):
    assert cohorts(5, sampling) == cohorts(5, sampling)
    assert cohorts(5, sampling) != cohorts(5, sampling, seed=1)
    first, second, *_ = cohorts(5, sampling)
    assert first != second


def test_fixed_cohorts_have_their_size_and_no_client_twice():
    for cohort in cohorts(50, size=37):
        assert len(cohort) == len(set(cohort)) == 37
        assert cohort == sorted(cohort)


def test_every_client_is_drawn_with_the_same_probability():
    # 2000 rounds of 10 in 200 give each client 100 rounds on average, with a standard deviation of sqrt(2000 * 0.05 * 0.95)
    # = 9.7.
    for sampling in Sampling:
        drawn = [client for cohort in cohorts(2000, sampling) for client in cohort]
        counts = np.unique(drawn, return_counts=True)[1]
        assert len(counts) == 200
        assert abs(counts - 100).max() < 5 * 9.7


def test_poisson_cohorts_vary_in_size_as_a_binomial_distribution_does():
    sizes = [len(cohort) for cohort in cohorts(2000, Sampling.POISSON)]
    # Mean 10, variance 200 * 0.05 * 0.95 = 9.5.
    assert abs(np.mean(sizes) - 10) < 4 * np.sqrt(9.5 / 2000)
    assert abs(np.var(sizes) - 9.5) < 1.5


@pytest.mark.parametrize("sampling", Sampling)
@pytest.mark.parametrize("separation", [1, 3, 15])
def test_a_client_comes_back_after_the_minimum_separation_and_not_before(sampling, separation):
    last = {}
    gaps = []
    for number, cohort in enumerate(cohorts(300, sampling, separation=separation), start=1):
        gaps += [number - last[client] for client in cohort if client in last]
        last.update(dict.fromkeys(cohort, number))
    assert min(gaps) == separation


def test_too_few_clients_are_named_with_the_round():
    with pytest.raises(
        errors.UsageError,
        match="Round 4 needs 10 clients; 5 of 35 may take part, as one that took part may come back after 9 rounds",
    ):
        cohorts(4, separation=9, clients=CLIENTS[:35])


def test_evaluation_cohorts_have_their_size_and_repeat():
    drawn = [draw_evaluation_cohort(CLIENTS, 20, seed=0, number=number) for number in range(1, 10)]
    assert all(len(set(cohort)) == 20 for cohort in drawn)
    assert drawn == [draw_evaluation_cohort(CLIENTS, 20, seed=0, number=number) for number in range(1, 10)]
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize(
    "selector, last_round, hours, newest, candidates",
    [
        # Buckets of the last 24 hours, each by its first round.
        (CheckpointSelector(1, "round"), 5, 1.0, 5, {1, 2, 3, 4, 5}),
        (CheckpointSelector(5, "round"), 12, 1.0, 11, {1, 6, 11}),
        (CheckpointSelector(5, "round"), 5, 1.0, 1, {1}),
        (CheckpointSelector(10, "round"), 40, 1.0, 31, {16, 21, 31}),
        (CheckpointSelector(4, "round"), 9, 24.0, 9, {8, 9}),
        (CheckpointSelector(6, "hour"), 20, 0.5, 12, {1, 12}),
        (CheckpointSelector(6, "hour"), 3, 10.0, 3, {1, 2, 3}),
    ],
)
def test_the_selector_admits_the_first_round_of_each_bucket(selector, last_round, hours, newest, candidates):
    def choose(choice, number):
        return choose_checkpoint(selector, choice, last_round, hours, seed=0, number=number)

    assert choose(CheckpointChoice.NEWEST, 1) == newest
    drawn = [choose(CheckpointChoice.RANDOM, number) for number in range(1, 200)]
    assert set(drawn) == candidates
    assert drawn == [choose(CheckpointChoice.RANDOM, number) for number in range(1, 200)]


def test_evaluation_rounds_follow_the_traffic():
    # Weights 11 and 100, report goals 200 and 2000 (spec: task_config.md, section 6): 220 evaluation clients for each
    # training round.
    assert [evaluation_rounds_due(2000 * rounds, 0.11, 200) for rounds in range(1, 12)] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12]
    assert evaluation_rounds_due(10_000, 0.0, 200) == 0
