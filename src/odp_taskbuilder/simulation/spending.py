"""The privacy that a run has spent so far."""

from __future__ import annotations

import dataclasses
from typing import Optional

from odp_taskbuilder.config.spec import PrivacySpec
from odp_taskbuilder.privacy import mechanism_of

# Accounting takes up to half a second; a run of many rounds is not to spend its time on it.
_MAX_UPDATES = 20


class PrivacySpending:
    """Epsilon after a number of rounds, as `odp-task privacy` accounts for it: for the population that the task is meant for, not for the
    clients of a simulation."""

    def __init__(self, spec: Optional[PrivacySpec], rounds: int):
        """Prepares.

        Args:
          spec: None without a DP aggregator.
          rounds: that the run will have.
        """
        self._spec = spec
        self._every = max(1, rounds // _MAX_UPDATES)
        self._last: tuple[int, Optional[float]] = (0, None)

    def epsilon(self, rounds: int) -> Optional[float]:
        """Epsilon after so many rounds; None without a DP aggregator."""
        if self._spec is None:
            return None
        if self._last[0] != rounds:
            self._last = (
                rounds,
                mechanism_of(dataclasses.replace(self._spec, rounds=rounds)).epsilon(self._spec.noise_multiplier),
            )
        return self._last[1]

    def recent_epsilon(self, rounds: int) -> Optional[float]:
        """Epsilon after so many rounds, or at the last round for which it was worth computing, which is at most a twentieth of the run ago."""
        accounted = rounds - rounds % self._every
        return self.epsilon(accounted) if accounted else None
