"""The statistics of proxy tasks, against published numbers and by hand."""

import math

import pytest

from odp_taskbuilder.proxy import statistics


def with_inversions(number, inversions):
    """A permutation of `number` numbers with so many discordant pairs."""
    left, result = list(range(number)), []
    while left:
        position = min(inversions, len(left) - 1)
        result.append(left.pop(position))
        inversions -= position
    return result


@pytest.mark.parametrize(
    ("number", "inversions", "tau", "p_value"),
    [
        (8, 3, 0.7857142857142856, 0.005505952380952381),
        (10, 24, -0.06666666666666667, 0.8618005952380953),
        (10, 36, -0.6, 0.016666115520282188),
        (10, 30, -0.3333333333333333, 0.21637345679012346),
        (10, 1, 0.9555555555555554, 5.5114638447971785e-06),
    ],
)
def test_tau_and_its_exact_p_value_are_the_published_ones(number, inversions, tau, p_value):
    found = statistics.kendall(range(number), with_inversions(number, inversions))
    assert found.tau == pytest.approx(tau, abs=1e-12) and found.p_value == pytest.approx(p_value, abs=1e-12)
    assert found.pairs == number


def test_ties_are_counted_as_tau_b_does():
    # 4 concordant and 1 discordant pairs of 6, one of them tied in the second list, by hand: (4 - 1) / sqrt(6 * 5) with four values.
    found = statistics.kendall([1, 2, 3, 4, 5], [1, 2, 2, 4, 5])
    assert found.tau == pytest.approx(9 / math.sqrt(10 * 9), abs=1e-12)


def test_zero_is_a_score_and_what_is_missing_is_none():
    assert statistics.kendall([0.0, 1, 2, 3, 4], [0.0, 1, 2, 3, 4]).tau == pytest.approx(1)
    full = list(range(10))
    assert statistics.kendall(full, [None, math.nan, math.inf, *full[3:]]).pairs == 7
    assert not statistics.kendall(full, [None] * 4 + full[4:]).is_valid, "60 % are too few"
    assert statistics.kendall(full[:4], full[:4]).tau == statistics.INVALID_CORRELATION, "four pairs are too few"
    assert statistics.kendall(full, [1.0] * 10).p_value == statistics.INVALID_CORRELATION, "equal scores rank nothing"


def test_the_coefficient_of_variation_is_relative_to_the_mean_whatever_its_sign():
    assert statistics.coefficient_of_variation([1.0, 3.0]) == 0.5
    assert statistics.coefficient_of_variation([-1.0, -3.0]) == 0.5
    assert statistics.coefficient_of_variation([0.0, 0.0]) == 0.0
    assert statistics.coefficient_of_variation([-1.0, 1.0]) == math.inf


def test_smoothness_adds_up_where_a_curve_falls():
    assert statistics.smoothness([1, 2, 3], [0.2, 0.5, 0.6]) == 0.0
    # On [1/4, 1/2] of its length it falls by all of its range: slope -4, at the points 0.28, 0.35, 0.42 and 0.49 of ten below 0.7.
    assert statistics.smoothness([0, 1, 2, 4], [0.0, 1.0, 0.0, 0.5]) == pytest.approx(16.0)
    assert statistics.smoothness([5], [0.1]) == 0.0 and statistics.smoothness([1, 2], [0.3, 0.3]) == 0.0


def test_those_go_first_that_the_spread_misses_least():
    points = {"lowest": [0.0], "twin": [0.5], "other twin": [0.5], "near": [0.55], "highest": [1.0]}
    assert statistics.least_missed(points, 2) == ["twin", "near"]
    assert statistics.least_missed(points, 0) == []


def test_a_candidate_that_only_its_latency_tells_apart_stays():
    points = {"a": [0.0, 1.0], "b": [0.5, 1.0], "slow": [0.5, 9.0], "c": [1.0, 1.0]}
    assert statistics.least_missed(points, 1) == ["b"]
