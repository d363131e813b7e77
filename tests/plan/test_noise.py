"""The noise that the server adds is the noise that is accounted for.

The only client has nothing to learn from: it sends zeros, and the 50,000 elements of the model's weight are zero at first. What stands there
after a round is noise. Bounds are of statistics whose distribution is known; chance violates each with probability 1e-6.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import scipy.stats
import tiny_models
from matrix_cells import for_each_form
from plan_execution import Deployment, Task, read_checkpoint

from odp_taskbuilder.config.spec import DpAggregator
from odp_taskbuilder.plan import initial_state

SIZE = 50_000
CHANCE = 1e-6

NOTHING_TO_LEARN = dataclasses.replace(
    tiny_models.uniform(SIZE), clients=({"x": np.zeros((2, 1), np.float32), "y": np.array([[0], [1]])},)
)
FIXED_GAUSSIAN, TREE_AGGREGATION = (
    Task(NOTHING_TO_LEARN, aggregator=aggregator, clip=0.25, noise_multiplier=0.8, report_goal=40)
    for aggregator in (DpAggregator.FIXED_GAUSSIAN, DpAggregator.TREE_AGGREGATION)
)
# On the sum of the updates the noise has standard deviation noise_multiplier * clip; the sum is divided by the report goal.
STDDEV = 0.8 * 0.25 / 40


def weight(checkpoint) -> np.ndarray:
    return read_checkpoint(checkpoint)["server/global_model_weights/trainable/0"].astype(np.float64)


def assert_gaussian(samples: np.ndarray, stddev: float) -> None:
    """The samples are independent ones of a normal distribution with mean 0."""
    lower, upper = scipy.stats.chi2.ppf([CHANCE / 2, 1 - CHANCE / 2], samples.size)
    assert lower < np.sum(np.square(samples / stddev)) < upper
    assert scipy.stats.kstest(samples / stddev, "norm").pvalue > CHANCE


def assert_independent(first: np.ndarray, second: np.ndarray) -> None:
    assert scipy.stats.pearsonr(first, second).pvalue > CHANCE


def apply_three_times(deployment: Deployment, checkpoint) -> list[np.ndarray]:
    """The weight after each of three first rounds that begin with the same checkpoint and get the same update."""
    _, updates = deployment.client_updates(checkpoint, 0)
    return [weight(deployment.apply(checkpoint, updates, number)[0]) for number in range(3)]


@for_each_form
def test_fixed_gaussian_noise_is_fresh_and_has_the_configured_deviation(built, form):
    task = built(FIXED_GAUSSIAN)
    first, second, third = apply_three_times(task.deployment(form), task.initial_checkpoint)
    assert_gaussian(np.concatenate([first, second, third]), STDDEV)
    assert_independent(first, second)
    assert_independent(first, third)
    assert_independent(second, third)
    # Neither do rows of one draw repeat.
    assert_independent(first[: SIZE // 2], first[SIZE // 2 :])


@for_each_form
def test_tree_noise_has_the_deviation_of_the_mechanism(built, form):
    """The noise of three rounds adds up to that of the tree nodes that cover them, each estimated from all that is below it.

    With noise of variance 1 in every node the estimate of a node of height h has variance 1 / (2 - 2 ** -h) (Honaker 2015): rounds 1, 2, 3 are
    covered by a leaf, by a node of height 1, and by that node and a leaf.
    """
    rounds = built(TREE_AGGREGATION).artifact_rounds(form)
    for artifact_round, variance in zip(rounds, (1, 1 / 1.5, 1 / 1.5 + 1)):
        assert_gaussian(weight(artifact_round.checkpoint), math.sqrt(variance) * STDDEV)


def test_two_initial_checkpoints_have_different_tree_noise(built, tmp_path):
    task = built(TREE_AGGREGATION)
    write = initial_state.training_checkpoint_writer(task.process.initialize, task.loaded_model)
    write(tmp_path / "second")
    prefix = "server/aggregator/inner_agg/query_state/numerator_state/tree_state"
    first, second = (read_checkpoint(path) for path in (task.initial_checkpoint, tmp_path / "second"))
    assert not np.array_equal(first[f"{prefix}/value_generator_state/seeds"], second[f"{prefix}/value_generator_state/seeds"])
    noise = [checkpoint[f"{prefix}/level_buffer/0"].ravel().astype(np.float64) for checkpoint in (first, second)]
    assert_gaussian(np.concatenate(noise), 0.8 * 0.25)
    assert_independent(*noise)
