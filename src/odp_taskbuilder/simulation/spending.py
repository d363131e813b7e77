"""The privacy that a run has spent so far."""

from __future__ import annotations

import dataclasses
from typing import Optional

from odp_taskbuilder.config.spec import PrivacySpec
from odp_taskbuilder.privacy import mechanism_of
from odp_taskbuilder.privacy.gaussian import SampledGaussian

# Accounting takes up to a second: a run is not to spend its time on it.
_MAX_UPDATES = 10


class PrivacySpending:
    """Epsilon after a number of rounds, as `odp-task privacy` accounts for it: for the population that the task is meant
    for, not for the clients of a simulation. None without a DP aggregator."""

    def __init__(self, spec: Optional[PrivacySpec], rounds: int):
        """Prepares for a run of so many rounds.

        Raises:
          ConfigError: the population is too small for the task's delta or report goal.
        """
        if spec is not None:
            mechanism_of(spec)
        self._spec = spec
        self._rounds = rounds
        self._every = max(1, rounds // _MAX_UPDATES)

    def progress(self, number: int) -> Optional[float]:
        """Epsilon after a round, at most 0.02 % above what `total` would say. Given for some ten rounds of a run."""
        if self._spec is None or number % self._every:
            return None
        mechanism = mechanism_of(dataclasses.replace(self._spec, rounds=number))
        epsilon = mechanism.quick_epsilon if isinstance(mechanism, SampledGaussian) else mechanism.epsilon
        return epsilon(self._spec.noise_multiplier)

    def total(self) -> Optional[float]:
        """Epsilon after all rounds."""
        if self._spec is None:
            return None
        return mechanism_of(dataclasses.replace(self._spec, rounds=self._rounds)).epsilon(self._spec.noise_multiplier)
