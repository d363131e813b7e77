"""Privacy of noisy sums over sampled clients: the FIXED_GAUSSIAN and ADAPTIVE_GAUSSIAN aggregators.

Every round draws each client with probability q = report_goal / population (Poisson sampling) and adds Gaussian noise to the sum of the
clipped updates. Neighbouring populations differ by one client added or removed. Accounted for by privacy loss distributions.
"""

from __future__ import annotations

import dataclasses
import sys

from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType
from dp_accounting.rdp import RdpAccountant

from odp_taskbuilder.privacy.calibration import Calibration, smallest_noise
from odp_taskbuilder.privacy.loss_distribution import LossDistribution

# The grid of the existing task builder (dp_accounting's default), and of every epsilon that is reported for a given noise.
REFERENCE_GRID = 1e-4
_GRIDS = (1e-2, 1e-3, REFERENCE_GRID)
# What a finer grid may take off a result, as a share of it, when the search for a good enough grid stops.
_GRID_TOLERANCE = 2e-4
# Where the composed distribution would be longer, the grid is made coarser.
_MAX_GRID_POINTS = 2**20
# On coarser grids than this, which means epsilons in the thousands, sampling is left out of the account instead.
_COARSEST_GRID = 1.0


@dataclasses.dataclass(frozen=True)
class SampledGaussian:
    """Rounds of Gaussian noise on sums over Poisson-sampled clients.

    Attributes:
      sampling_rate: q, the probability that a client takes part in a round, 0 < q <= 1.
      rounds: T, at least 1.
      delta: 0 < delta < 1.

    >>> task = SampledGaussian(sampling_rate=2000 / 3e6, rounds=1000, delta=1 / 3e6)
    >>> round(task.epsilon(1.0), 6)
    0.132426
    >>> round(task.smallest_noise(6.0).noise_multiplier, 4)
    0.4416
    """

    sampling_rate: float
    rounds: int
    delta: float

    accountant = "privacy loss distributions (pessimistic connect-the-dots), add or remove one client"

    def epsilon(self, noise_multiplier: float, grid: float = REFERENCE_GRID) -> float:
        """An upper bound of the epsilon that all rounds together spend, up to rounding errors of about 1e-8 of it.

        Costs 0.01 s at noise 2, 0.2 s at noise 0.5, 0.4 s at noise 0.2 and 2 s at 0.1 or less; a tenth of it on a grid ten times coarser.

        Args:
          noise_multiplier: standard deviation of the noise in units of the clip, > 0.
          grid: distance of the privacy losses that are told apart. A coarser one gives a looser bound.
        """
        removed = self._epsilon(noise_multiplier, AdjacencyType.REMOVE, grid)
        if self.sampling_rate == 1:
            return removed  # Adding a client is the mirror image.
        # Adding a client costs less in all but odd cases; mostly a coarse bound shows it.
        added = self._epsilon(noise_multiplier, AdjacencyType.ADD, 10 * grid)
        if added > removed:
            added = self._epsilon(noise_multiplier, AdjacencyType.ADD, grid)
        return max(removed, added)

    def _epsilon(self, noise_multiplier: float, adjacency: AdjacencyType, grid: float) -> float:
        # A round's losses reach about as far as 1 / (2 * noise^2) + 10 / noise.
        grid = max(grid, (0.5 / noise_multiplier + 10) / noise_multiplier / _MAX_GRID_POINTS)
        while grid <= _COARSEST_GRID:
            one_round = LossDistribution.of_sampled_gaussian(noise_multiplier, self.sampling_rate, adjacency, grid)
            support = one_round.support_of(self.rounds)
            if len(support) <= _MAX_GRID_POINTS:
                return one_round.composed(self.rounds, support).epsilon(self.delta)
            grid *= 1.1 * len(support) / _MAX_GRID_POINTS
        return self._epsilon_without_sampling(noise_multiplier)

    def _epsilon_without_sampling(self, noise_multiplier: float) -> float:
        event = SelfComposedDpEvent(GaussianDpEvent(noise_multiplier), self.rounds)
        return float(RdpAccountant().compose(event).get_epsilon(self.delta))

    def reference_epsilon(self, noise_multiplier: float) -> float:
        """The epsilon that the existing task builder reports: dp_accounting's own accountant on the reference grid.

        Costs about ten times the time of `epsilon`. In double precision it can lie below the true value: by 1e-7 of it at delta
        1/3,000,000, by 3e-5 at delta 1e-9 and 1000 rounds.
        """
        event = SelfComposedDpEvent(PoissonSampledDpEvent(self.sampling_rate, GaussianDpEvent(noise_multiplier)), self.rounds)
        return float(PLDAccountant(value_discretization_interval=REFERENCE_GRID).compose(event).get_epsilon(self.delta))

    def quick_epsilon(self, noise_multiplier: float) -> float:
        """Another upper bound, on the coarsest grid that brings it within 0.02 % of `epsilon`."""
        coarser = self.epsilon(noise_multiplier, _GRIDS[0])
        for grid in _GRIDS[1:]:
            found = self.epsilon(noise_multiplier, grid)
            if _is_settled(coarser, found):
                break
            coarser = found
        return found

    def smallest_noise(self, target_epsilon: float) -> Calibration:
        """The smallest noise multiplier whose epsilon is at most the target, and that epsilon.

        The search runs on the coarsest grid, and goes on from there on a finer one while that takes more than 0.02 % off the noise. Every
        grid bounds epsilon from above, so the noise is safe whichever grid it came from; the epsilon beside it is the one of the
        reference grid. Takes about 0.2 s for the search and, at noise 0.2, 0.4 s for the last evaluation.

        Raises:
          UnreachableTargetError: no noise multiplier up to 1e7 meets the target.
        """
        # The existing task builder's accountant composes in double precision, which moves its delta by about rounds * 2e-16. The noise
        # is to pass its check as well.
        goal = target_epsilon * (1 - min(1e-3, self.rounds * sys.float_info.epsilon / self.delta))
        found = smallest_noise(lambda noise: self.epsilon(noise, _GRIDS[0]), goal)
        for grid in _GRIDS[1:]:
            coarser = found
            found = smallest_noise(lambda noise, grid=grid: self.epsilon(noise, grid), goal, coarser.noise_multiplier)
            if _is_settled(coarser.noise_multiplier, found.noise_multiplier):
                break
        return Calibration(found.noise_multiplier, min(found.epsilon, self.epsilon(found.noise_multiplier)))


def _is_settled(coarser: float, finer: float) -> bool:
    """Whether still finer grids would lower the value by less than _GRID_TOLERANCE of it, given two grids that differ tenfold.

    The excess of connect-the-dots shrinks with the grid at least in proportion, so at most a ninth of the last step is left.
    """
    return coarser - finer <= 9 * _GRID_TOLERANCE * finer
