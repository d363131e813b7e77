"""Privacy of tree aggregation: the TREE_AGGREGATION and ADAPTIVE_TREE aggregators (DP-FTRL, https://arxiv.org/abs/2103.00039).

Noise is added to the sums of a binary tree over the rounds. Its Renyi divergence at order a is a * depth / (2 * noise^2) with depth =
floor(log2(rounds)) + 1, whatever the number of clients: no sampling is assumed. Neighbouring populations differ by one client whose
contribution is replaced by nothing.

That holds for a client that contributes once. One that contributes up to k times moves the stream of tree sums at most k times as far (the
triangle inequality), so it is accounted for as the same tree with noise / k (spec: privacy.md, section 7).
"""

from __future__ import annotations

import dataclasses

from odp_taskbuilder.privacy.calibration import Calibration, smallest_noise


@dataclasses.dataclass(frozen=True)
class TreeAggregation:
    """One tree over all rounds of a task. (The restarts of ADAPTIVE_TREE make for shorter trees, which spend less.)

    Attributes:
      rounds: T, at least 1.
      contributions: k, the rounds in which one client can take part, at least 1.
      delta: 0 < delta < 1.

    >>> task = TreeAggregation(rounds=1000, contributions=1, delta=1 / 3e6)
    >>> round(task.epsilon(1.0), 4)
    21.2261
    >>> round(task.smallest_noise(10.0).noise_multiplier, 3)
    1.86
    """

    rounds: int
    contributions: int
    delta: float

    accountant = "Renyi differential privacy of one tree, replace a client's contributions by none"

    # Of a stated epsilon: rounding errors move it by 1e-15 of it.
    digits = 6

    def epsilon(self, noise_multiplier: float) -> float:
        """An upper bound of the epsilon that all rounds together spend, at a noise multiplier > 0. Takes milliseconds."""
        # Imported here, as in gaussian.py.
        from dp_accounting import NeighboringRelation, SingleEpochTreeAggregationDpEvent
        from dp_accounting.rdp import RdpAccountant

        event = SingleEpochTreeAggregationDpEvent(noise_multiplier / self.contributions, [self.rounds])
        accountant = RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_SPECIAL)
        return float(accountant.compose(event).get_epsilon(self.delta))

    def quick_epsilon(self, noise_multiplier: float) -> float:
        """The same: nothing is quicker."""
        return self.epsilon(noise_multiplier)

    def smallest_noise(self, target_epsilon: float) -> Calibration:
        """The smallest noise multiplier whose epsilon is at most the target, and that epsilon.

        Raises:
          UnreachableTargetError: no noise multiplier up to 1e7 meets the target.
        """
        return smallest_noise(self.epsilon, target_epsilon, start=float(self.contributions), tolerance=2e-5)
