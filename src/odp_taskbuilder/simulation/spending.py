"""The privacy that a run has spent so far."""

from __future__ import annotations

import dataclasses
from typing import Optional

from odp_taskbuilder.config.spec import PrivacySpec
from odp_taskbuilder.privacy import mechanism_of
from odp_taskbuilder.privacy.assumptions import pace
from odp_taskbuilder.privacy.rounding import stated_epsilon

# Accounting takes a second or so: a run is not to spend its time on it.
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
        """Epsilon after a round; given for some ten rounds of a run."""
        return None if number % self._every else self._epsilon(number)

    def total(self) -> Optional[float]:
        """Epsilon after all rounds."""
        return self._epsilon(self._rounds)

    def assumptions(self) -> tuple[str, ...]:
        """What these epsilons assume of phones, one sentence each."""
        return () if self._spec is None else pace(self._spec)

    def _epsilon(self, rounds: int) -> Optional[float]:
        if self._spec is None:
            return None
        mechanism = mechanism_of(dataclasses.replace(self._spec, rounds=rounds))
        return stated_epsilon(mechanism.epsilon(self._spec.noise_multiplier), mechanism.digits)
