"""Privacy of noisy sums over sampled clients: the FIXED_GAUSSIAN and ADAPTIVE_GAUSSIAN aggregators.

Every round draws each client with probability q = report_goal / population (Poisson sampling) and adds Gaussian noise to the sum of the
clipped updates. Neighbouring populations differ by one client added or removed.

dp_accounting does the accounting, by privacy loss distributions on an even grid of losses. They are put on the grid by connect-the-dots
(Doroshenko et al., https://arxiv.org/abs/2207.04380), which is pessimistic: every grid gives an upper bound of epsilon, a coarser one
a looser bound in a fraction of the time. The work that is left to do here is to choose the grid.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from typing import TYPE_CHECKING, Callable

from odp_taskbuilder.privacy.calibration import MAX_NOISE_DIGITS, Calibration, smallest_noise

# dp_accounting is imported where it works: it takes half of the second that a build from the cache may, and such a build needs none of it.
if TYPE_CHECKING:
    from dp_accounting import DpEvent

# The grid of the existing task builder, dp_accounting's default.
REFERENCE_GRID = 1e-4
_GRIDS = (1e-2, 1e-3, REFERENCE_GRID)
# What still finer grids may take off an epsilon, as a share of it, when refining stops.
_GRID_TOLERANCE = 1e-4
# An epsilon is stated with no more significant digits than this, and with no fewer than that.
_MOST_DIGITS, _FEWEST_DIGITS = 6, 2
# Losses that one round is spread over, at most. The library takes four seconds for as many.
_MAX_GRID_POINTS = 2**19
# Epsilons above this protect nobody and are not worth a sharp bound.
_LARGE_EPSILON = 1000.0
# Of the Renyi divergences; a tenth of the library's, which takes a tenth of the time.
_ORDERS = (1.1, 1.25, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 512)
# The library composes in double precision, which moves delta by up to twice rounds * 2.2e-16 (compared with extended precision in 600
# random settings, up to 100,000 rounds and delta below 0.01). Twice as much is taken off delta, so that epsilon stays an upper bound.
_ROUNDING = 4 * sys.float_info.epsilon


def smallest_delta(rounds: int) -> float:
    """The smallest delta that accounting in double precision resolves over so many rounds: twice the allowance for rounding errors.

    >>> smallest_delta(1000)
    1.7763568394002505e-12
    """
    return 2 * rounds * _ROUNDING


@dataclasses.dataclass(frozen=True)
class SampledGaussian:
    """Rounds of Gaussian noise on sums over Poisson-sampled clients.

    Attributes:
      sampling_rate: q, the probability that a client takes part in a round, 0 < q <= 1.
      rounds: T, at least 1.
      delta: smallest_delta(rounds) <= delta < 1.

    >>> task = SampledGaussian(sampling_rate=2000 / 3e6, rounds=1000, delta=1 / 3e6)
    >>> round(task.epsilon(1.0), 4)
    0.1324
    >>> round(task.smallest_noise(6.0).noise_multiplier, 3)
    0.442
    """

    sampling_rate: float
    rounds: int
    delta: float

    accountant = "dp_accounting's privacy loss distributions (pessimistic connect-the-dots), add or remove one client"

    @property
    def digits(self) -> int:
        """The significant digits of a stated epsilon: in steps ten times what rounding errors move it by, at most 6.

        >>> [SampledGaussian(0.001, rounds, 1 / 3e6).digits for rounds in (10, 1000, 100_000)]
        [6, 5, 3]
        """
        return max(_FEWEST_DIGITS, min(_MOST_DIGITS, self.resolved_digits - 1))

    @property
    def resolved_digits(self) -> int:
        """The significant digits of an epsilon that two machines agree on, but for the last.

        Their deltas differ by up to rounds * 2.2e-16 (measured, with and without fused multiply-add in the C library), a quarter of the
        allowance. As a share, epsilon moves by 1 / log(1 / delta) of what delta moves by, or up to ten times that where it is small.
        """
        share = self.rounds * _ROUNDING / (self.delta * max(1.0, -math.log(self.delta)))
        return max(_FEWEST_DIGITS, math.floor(-math.log10(share)))

    def epsilon(self, noise_multiplier: float) -> float:
        """An upper bound of the epsilon that all rounds together spend.

        Within 0.01 % of what the finest grid gives, but above 1000 the looser `renyi_epsilon`. Takes 0.1 s at noise 1 and above, 0.5 s at
        noise 0.2, and a few seconds where little noise meets a small epsilon.

        Args:
          noise_multiplier: standard deviation of the noise in units of the clip, > 0.
        """
        return _refined(self.epsilon_on, noise_multiplier)

    def quick_epsilon(self, noise_multiplier: float) -> float:
        """Another bound, for a tenth of the time where it is above 1: there up to 4 % above `epsilon`, as measured."""
        coarse = self.epsilon_on(_GRIDS[0], noise_multiplier)
        return coarse if coarse >= 100 * _GRIDS[0] else self.epsilon(noise_multiplier)

    def epsilon_on(self, grid: float, noise_multiplier: float) -> float:
        """The bound on a grid of this distance between losses, or on the finest that spreads a round over no more than 2**19 of them."""
        if self.rounds * self.sampling_rate <= self.delta:
            return 0.0  # That the client is drawn at all is so unlikely that delta forgives whatever happens then.
        renyi = self.renyi_epsilon(noise_multiplier)
        if renyi > _LARGE_EPSILON:
            return renyi
        # Where the losses of a round end: the largest one without sampling, but for a probability of 1e-15 or so.
        reach = (0.5 / noise_multiplier + 10) / noise_multiplier
        grid = max(grid, reach / _MAX_GRID_POINTS)
        return self._loss_distribution_epsilon(grid, noise_multiplier, self.delta - self.rounds * _ROUNDING)

    def renyi_epsilon(self, noise_multiplier: float) -> float:
        """Another bound, by Renyi divergences: looser, but as quick at any noise and any number of rounds. Rounding takes it below the true
        epsilon where that is close to 0."""
        try:
            from dp_accounting.rdp import RdpAccountant

            return float(RdpAccountant(_ORDERS).compose(self._event(noise_multiplier)).get_epsilon(self.delta))
        except ValueError:
            # A divergence that all but vanishes can come out below zero, which the library refuses. Without sampling it is larger.
            from dp_accounting import GaussianDpEvent, SelfComposedDpEvent

            unsampled = SelfComposedDpEvent(GaussianDpEvent(noise_multiplier), self.rounds)
            return float(RdpAccountant(_ORDERS).compose(unsampled).get_epsilon(self.delta))

    def reference_epsilon(self, noise_multiplier: float) -> float:
        """The epsilon that the existing task builder reports: on its grid, without an allowance for rounding errors.

        These can bring it below the true value: by 1e-7 of it at delta 1/3,000,000, by 3e-5 at delta 1e-9 and 1000 rounds. It has
        `resolved_digits` significant digits.
        """
        return self._loss_distribution_epsilon(REFERENCE_GRID, noise_multiplier, self.delta)

    def smallest_noise(self, target_epsilon: float) -> Calibration:
        """The smallest noise multiplier whose epsilon is at most the target, and that epsilon. It has at most 6 significant digits, and
        where rounding errors move epsilon more than that, fewer.

        The search runs on the coarsest grid. A finer one certifies its result, and where that takes more than 0.01 % off epsilon,
        the search goes on there. The noise is safe whichever grid it came from.

        Raises:
          UnreachableTargetError: no noise multiplier up to 1e7 meets the target.
        """
        # Search, certificate and result ask for the same values.
        bound = functools.lru_cache(maxsize=None)(self.epsilon_on)
        # So much below the target that `epsilon` stays within it, too, on whichever grid it stops.
        goal = target_epsilon * (1 - _GRID_TOLERANCE)
        digits = min(MAX_NOISE_DIGITS, self.resolved_digits)
        found = smallest_noise(functools.partial(bound, _GRIDS[0]), goal, digits=digits)
        for grid in _GRIDS[1:]:
            if _is_settled(found.epsilon, bound(grid, found.noise_multiplier)):
                break
            found = smallest_noise(functools.partial(bound, grid), goal, start=found.noise_multiplier, digits=digits)
        return Calibration(found.noise_multiplier, _refined(bound, found.noise_multiplier))

    def _event(self, noise_multiplier: float) -> DpEvent:
        from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent

        return SelfComposedDpEvent(PoissonSampledDpEvent(self.sampling_rate, GaussianDpEvent(noise_multiplier)), self.rounds)

    def _loss_distribution_epsilon(self, grid: float, noise_multiplier: float, delta: float) -> float:
        from dp_accounting.pld import PLDAccountant

        accountant = PLDAccountant(value_discretization_interval=grid)
        return float(accountant.compose(self._event(noise_multiplier)).get_epsilon(delta))


def _refined(bound: Callable[[float, float], float], noise_multiplier: float) -> float:
    """The bound on the coarsest grid that comes close enough to what finer ones would give."""
    epsilon = bound(_GRIDS[0], noise_multiplier)
    for grid in _GRIDS[1:]:
        coarser, epsilon = epsilon, bound(grid, noise_multiplier)
        if _is_settled(coarser, epsilon):
            break
    return epsilon


def _is_settled(coarser: float, finer: float) -> bool:
    """Whether still finer grids would lower the epsilon by less than _GRID_TOLERANCE of it, given those on two grids that differ tenfold.

    The excess of connect-the-dots shrinks with the grid at least in proportion, so at most a ninth of the last step is left.
    """
    return coarser - finer <= 9 * _GRID_TOLERANCE * finer
