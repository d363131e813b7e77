"""The search for the smallest noise, over accountants that are plain functions of it."""

import doctest
import importlib
import math

import pytest

from odp_taskbuilder.privacy.calibration import UnreachableTargetError, smallest_noise
from odp_taskbuilder.privacy.rounding import next_below

SMOOTH = {
    "proportional": (lambda noise: 3 / noise, 3.0),
    "steep": (lambda noise: noise**-40.0, 1.0),
    "flat": (lambda noise: noise**-0.2, 1.0),
    "exponential": (lambda noise: math.exp(5 - noise), 5.0),
    "infinite for little noise": (lambda noise: math.inf if noise < 2 else 10 / noise**2, math.sqrt(10)),
    "nothing for much noise": (lambda noise: max(0.0, 2 - noise), 1.0),
    "needs very much noise": (lambda noise: 50_000 / noise, 50_000.0),
    "needs hardly any": (lambda noise: 0.05 / noise, 0.05),
}


@pytest.mark.parametrize("start", [0.03, 1.0, 900.0])
@pytest.mark.parametrize("name", SMOOTH)
def test_the_answer_meets_the_target_with_hardly_more_noise_than_needed(name, start):
    epsilon, exact = SMOOTH[name]
    evaluated = {}

    def counted(noise):
        evaluated[noise] = epsilon(noise)
        return evaluated[noise]

    found = smallest_noise(counted, 1.0, start)
    assert evaluated[found.noise_multiplier] == found.epsilon
    # No looser than the tolerance, or than what the next multiplier of six digits leaves.
    assert found.epsilon <= 1 and (found.epsilon >= 1 - 2e-4 or epsilon(next_below(found.noise_multiplier, 6)) > 1 - 1e-4)
    assert exact <= found.noise_multiplier <= exact * 1.001
    assert len(evaluated) <= 40


@pytest.mark.parametrize("digits", [2, 3, 6])
@pytest.mark.parametrize("name", SMOOTH)
def test_every_multiplier_that_is_tried_has_the_digits_asked_for(name, digits):
    epsilon, exact = SMOOTH[name]
    tried = []

    def counted(noise):
        tried.append(noise)
        return epsilon(noise)

    found = smallest_noise(counted, 1.0, 0.3, digits=digits)
    assert all(float(f"{noise:.{digits}g}") == noise for noise in tried) and len(tried) <= 40
    # One step above the exact value at most, or two where the tolerance lies between.
    assert exact <= found.noise_multiplier <= exact * 1.001 * (1 + 10.0 ** (1 - digits))


def test_a_last_bit_of_epsilon_does_not_move_the_answer():
    def answer(name, wobble):
        epsilon, _ = SMOOTH[name]
        return smallest_noise(lambda noise: epsilon(noise) * (1 + wobble * math.sin(1e9 * noise)), 1.0, 0.3)

    for name in SMOOTH:
        assert {answer(name, wobble).noise_multiplier for wobble in (-4e-16, 0.0, 4e-16)} == {answer(name, 0.0).noise_multiplier}


def test_a_start_that_is_nearly_right_takes_few_evaluations():
    calls = []

    def epsilon(noise):
        calls.append(noise)
        return noise**-3.0

    smallest_noise(epsilon, 1.0, start=1.01)
    assert len(calls) <= 4


def test_where_epsilon_jumps_over_the_target_the_safe_side_is_returned():
    found = smallest_noise(lambda noise: 5.0 if noise < 1.75 else 0.5, 1.0)
    assert found.epsilon == 0.5
    assert 1.75 <= found.noise_multiplier < 1.7501


def test_a_target_that_no_noise_reaches_is_refused():
    with pytest.raises(UnreachableTargetError, match="no noise multiplier up to 1e\\+07 reaches epsilon 1.0"):
        smallest_noise(lambda noise: 1.5 + 1 / noise, 1.0)


def test_a_target_that_needs_no_noise_ends_the_search_at_little():
    assert smallest_noise(lambda noise: 0.0, 1.0).noise_multiplier < 0.02


@pytest.mark.parametrize("module", ["calibration", "gaussian", "rounding", "tree"])
def test_the_examples_in_docstrings_are_true(module):
    result = doctest.testmod(importlib.import_module(f"odp_taskbuilder.privacy.{module}"))
    assert result.attempted > 0 and result.failed == 0
