"""Privacy loss distributions (PLD) of the sampled Gaussian mechanism, on an even grid of privacy losses.

One round is put on the grid by connect-the-dots (Doroshenko et al., https://arxiv.org/abs/2207.04380), which is pessimistic: whatever
the grid, the divergences of the discrete distribution bound those of the mechanism from above. Rounds compose by convolution.

The mathematics and the conventions are those of dp_accounting's PLDAccountant, the tests' oracle. Two things differ. Whole
arrays are computed at once where dp_accounting loops over grid points in Python, which makes it about ten times faster. And the
convolution runs in extended precision where the machine has it: in double precision a power of 1000 costs the Fourier transform four digits,
so that epsilon at delta 1e-9 wavers by 3e-5 of its value to either side.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from dp_accounting.pld import common
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss
from scipy import fft

# Probability that composition may move from either end of the distribution to an infinite loss; dp_accounting's value.
_TAIL_MASS = 1e-15


@dataclasses.dataclass(frozen=True)
class LossDistribution:
    """A discrete distribution of privacy losses.

    Attributes:
      grid: distance of neighbouring losses.
      lowest: the smallest loss is lowest * grid.
      masses: probabilities of the losses lowest * grid, (lowest + 1) * grid, ...; extended precision, shape (n,).
      infinity_mass: probability of an infinite loss.
    """

    grid: float
    lowest: int
    masses: np.ndarray
    infinity_mass: float

    @classmethod
    def of_sampled_gaussian(
        cls, noise_multiplier: float, sampling_rate: float, adjacency: AdjacencyType, grid: float
    ) -> LossDistribution:
        """One round of Gaussian noise on a sum over Poisson-sampled clients, with one client removed or added."""
        loss = GaussianPrivacyLoss(noise_multiplier, sampling_prob=sampling_rate, adjacency_type=adjacency)
        bounds = loss.connect_dots_bounds()
        lowest, highest = math.floor(bounds.epsilon_lower / grid), math.ceil(bounds.epsilon_upper / grid)
        divergences = _divergences(loss, np.arange(lowest, highest + 1) * grid)
        return cls(grid, lowest, _connect_the_dots(divergences, grid), divergences[-1])

    def support_of(self, rounds: int) -> range:
        """The grid points, counted from `rounds * lowest`, between which nearly all of the sum of `rounds` independent losses lies.

        At most _TAIL_MASS lies outside (a Chernoff bound).
        """
        orders = np.array([-20, -10, -5, -2, -1, 1, 2, 5, 10, 20]) / len(self.masses)
        first, last = common.compute_self_convolve_bounds(self.masses.astype(np.float64), rounds, _TAIL_MASS, orders)
        return range(first, last + 1)

    def composed(self, rounds: int, support: range) -> LossDistribution:
        """The distribution of the sum of `rounds` independent losses; `support` is support_of(rounds)."""
        size = fft.next_fast_len(max(len(support), len(self.masses)), real=True)
        convolution = fft.irfft(_power(fft.rfft(self.masses, size), rounds), size)
        # What lies outside the support wraps around into it, and counts as infinite besides.
        masses = np.maximum(np.roll(convolution, -support.start)[: len(support)], 0)
        infinity_mass = _TAIL_MASS - math.expm1(rounds * math.log1p(-self.infinity_mass))
        return LossDistribution(self.grid, self.lowest * rounds + support.start, masses, infinity_mass)

    def epsilon(self, delta: float) -> float:
        """The smallest epsilon >= 0 whose divergence is at most delta: the sum of (1 - e^(epsilon - loss)) * mass over the larger losses."""
        if self.infinity_mass > delta:
            return math.inf
        losses = np.arange(self.lowest, self.lowest + len(self.masses)) * self.grid
        losses, masses = losses[losses > 0], self.masses[losses > 0]
        if not losses.size:
            return 0.0
        # From one grid point up to the next one, number i, the divergence is upper[i] - e^epsilon * lower[i].
        upper = self.infinity_mass + np.cumsum(masses[::-1])[::-1]
        lower = np.cumsum((masses * np.exp(-losses.astype(masses.dtype)))[::-1])[::-1]
        if upper[0] - lower[0] <= delta:
            return 0.0
        lower[lower < np.finfo(lower.dtype).tiny] = 0  # Losses in the thousands; without it the bound is looser, but one.
        with np.errstate(divide="ignore"):
            divergences = upper - np.exp(losses + np.log(lower))
        within = np.flatnonzero(divergences <= delta)
        i = within[0] if within.size else -1
        return float(np.log((upper[i] - delta) / lower[i])) if lower[i] > 0 else float(losses[i])


def _divergences(loss: GaussianPrivacyLoss, epsilons: np.ndarray) -> np.ndarray:
    """Hockey-stick divergences of one round at ascending epsilons: mu_upper(x) - e^epsilon * mu_lower(x), x being where the loss is epsilon."""
    q = loss.sampling_prob
    if q == 1:
        reached = np.full(epsilons.shape, True)
        divergences = np.empty_like(epsilons)
        loss_if_sampled = epsilons
    elif loss.adjacency_type is AdjacencyType.REMOVE:
        # The loss exceeds log(1 - q) everywhere; up to there the divergence is 1 - e^epsilon.
        reached = epsilons > math.log1p(-q)
        divergences = -np.expm1(np.minimum(epsilons, 0))
        loss_if_sampled = _log_unsampled(epsilons[reached], q)
    else:
        # The loss stays below -log(1 - q) everywhere; from there on the divergence is 0.
        reached = epsilons < -math.log1p(-q)
        divergences = np.zeros_like(epsilons)
        loss_if_sampled = -_log_unsampled(-epsilons[reached], q)
    x = loss.inverse_privacy_loss_without_subsampling(loss_if_sampled)
    divergences[reached] = loss.mu_upper_cdf(x) - np.exp(epsilons[reached] + loss.mu_lower_log_cdf(x))
    # Rounding must not make the divergence rise with epsilon; where it does, the larger value is the safe one.
    return np.maximum.accumulate(np.clip(divergences, 0, 1)[::-1])[::-1]


def _log_unsampled(x: np.ndarray, q: float) -> np.ndarray:
    """log(1 + (e^x - 1) / q) for x >= log(1 - q), exact near 0 and free of overflow."""
    large = x > 30
    result = np.empty_like(x)
    with np.errstate(divide="ignore"):  # At x = log(1 - q) the result is -infinity.
        result[~large] = np.log1p(np.maximum(np.expm1(x[~large]) / q, -1))
    result[large] = x[large] - math.log(q) + np.log1p((q - 1) * np.exp(-x[large]))
    return result


def _connect_the_dots(divergences: np.ndarray, grid: float) -> np.ndarray:
    """Masses of the finite losses, given the divergences there: algorithm 1 of https://arxiv.org/abs/2207.04380 on an even grid."""
    rises = np.diff(divergences.astype(np.longdouble))
    from_below = np.concatenate([[1 - divergences[0]], rises / np.expm1(-np.longdouble(grid))])
    from_above = np.concatenate([rises / np.expm1(np.longdouble(grid)), [0]])
    return np.maximum(from_below + from_above, 0)


def _power(base: np.ndarray, exponent: int) -> np.ndarray:
    """base ** exponent by squaring. NumPy's own goes through a complex logarithm for every element, ten times slower."""
    result = np.ones_like(base)
    while exponent:
        if exponent & 1:
            result *= base
        base = base * base
        exponent >>= 1
    return result
