"""The smallest noise that meets a target epsilon, for any accountant whose epsilon falls as the noise grows."""

from __future__ import annotations

import math
from typing import Callable, NamedTuple

from odp_taskbuilder.privacy.rounding import next_below, rounded_up

# The search ends at an epsilon within this share of the tolerance of (1 - tolerance) * target: below the target, so that rounding on
# the way to another accountant, or to a report's 32-bit numbers, does not lift it above.
_WINDOW = 0.8
# A noise multiplier has no more significant digits than this: what lies beyond costs nothing, and differs between processors.
MAX_NOISE_DIGITS = 6
# Beyond this no model learns anything: the search gives up.
LARGEST_NOISE = 1e7
# At less than this the target is met by sampling alone (report_goal * rounds / population <= delta), whatever the noise.
_SMALLEST_NOISE = 1 / 64


class Calibration(NamedTuple):
    """A noise multiplier and the epsilon it was found to spend."""

    noise_multiplier: float
    epsilon: float


class UnreachableTargetError(ValueError):
    """No noise multiplier up to 1e7 meets the target."""


class _Trial(NamedTuple):
    """One evaluation, in the coordinates in which epsilon over noise is close to a straight line."""

    log_noise: float
    excess: float  # log(epsilon / goal): positive where the noise is too small
    is_answer: bool
    found: Calibration


def smallest_noise(
    epsilon: Callable[[float], float],
    target_epsilon: float,
    start: float = 1.0,
    tolerance: float = 1e-4,
    digits: int = MAX_NOISE_DIGITS,
) -> Calibration:
    """Searches the smallest noise multiplier whose epsilon is at most the target, among those of so many significant digits.

    Takes 5 to 10 evaluations from afar, 1 to 4 from a start that is nearly right.

    Args:
      epsilon: epsilon for a noise multiplier, not increasing; may be infinite.
      target_epsilon: the budget, > 0.
      start: the noise multiplier at which the search begins.
      tolerance: half of what the epsilon may stay below the target, as a share of it.
      digits: significant digits of every noise multiplier that is tried.

    Returns:
      A noise multiplier that was evaluated, and its epsilon: below the target, by less than twice the tolerance where epsilon is continuous
      and the digits resolve as much.

    Raises:
      UnreachableTargetError: no noise multiplier up to 1e7 meets the target.

    >>> round(smallest_noise(lambda noise: 3 / noise, 2.0).noise_multiplier, 3)
    1.5
    """
    goal = target_epsilon * (1 - tolerance)

    def attempt(noise: float) -> _Trial:
        noise = rounded_up(noise, digits)
        spent = epsilon(noise)
        excess = math.log(spent / goal) if spent > 0 else -math.inf
        return _Trial(math.log(noise), excess, abs(excess) <= _WINDOW * tolerance, Calibration(noise, spent))

    # Walk from the start, in growing steps, until the answer lies between `too_little` and `enough`.
    trial = attempt(start)
    too_little = enough = None
    step = min(abs(trial.excess), math.log(2))
    while not trial.is_answer:
        if trial.excess > 0:
            too_little = trial
            if trial.found.noise_multiplier > LARGEST_NOISE:
                raise UnreachableTargetError(f"no noise multiplier up to {LARGEST_NOISE:g} reaches epsilon {target_epsilon!r}")
        else:
            enough = trial
            if trial.found.noise_multiplier < _SMALLEST_NOISE:
                return trial.found
        if too_little and enough:
            return _close_in(attempt, too_little, enough, digits)
        trial = attempt(math.exp(trial.log_noise + math.copysign(step, trial.excess)))
        step *= 2
    return trial.found


def _close_in(attempt: Callable[[float], _Trial], too_little: _Trial, enough: _Trial, digits: int) -> Calibration:
    """Regula falsi between two trials, in the Illinois variant: an end that stays twice in a row counts half."""
    low_weight = high_weight = 1.0
    while (below := next_below(enough.found.noise_multiplier, digits)) > too_little.found.noise_multiplier:
        low, high = too_little.excess * low_weight, enough.excess * high_weight
        middle = (too_little.log_noise + enough.log_noise) / 2
        if math.isfinite(low) and math.isfinite(high):
            middle = (too_little.log_noise * high - enough.log_noise * low) / (high - low)
        # Of the multipliers between the two there is at least one, and this is one of them, whatever exp rounds to.
        above = math.nextafter(too_little.found.noise_multiplier, math.inf)
        trial = attempt(min(max(math.exp(middle), above), below))
        if trial.is_answer:
            return trial.found
        if trial.excess > 0:
            high_weight = high_weight / 2 if low_weight == 1.0 else 1.0
            too_little, low_weight = trial, 1.0
        else:
            low_weight = low_weight / 2 if high_weight == 1.0 else 1.0
            enough, high_weight = trial, 1.0
    return enough.found
