"""The privacy that a run has spent so far."""

from __future__ import annotations

import dataclasses
from typing import Optional

from odp_taskbuilder.config.spec import PrivacySpec
from odp_taskbuilder.metrics.run_facts import SpentPrivacy
from odp_taskbuilder.privacy import mechanism_of
from odp_taskbuilder.privacy.assumptions import meant_for, pace
from odp_taskbuilder.privacy.rounding import stated_epsilon

# Accounting takes a second or so: a run is not to spend its time on it.
_MAX_UPDATES = 10
# Too few digits for the grid to show.
_PROGRESS_DIGITS = 4


class PrivacySpending:
    """Accounts for the rounds of a run; for nothing without a DP aggregator."""

    def __init__(
        self, spec: Optional[PrivacySpec], rounds: int, *, clients: int, clients_per_round: int, draws_as_accounted: bool
    ):
        """Prepares for a run of so many rounds.

        Args:
          clients: that the run draws from.
          clients_per_round: that it draws, on average.
          draws_as_accounted: it draws each client independently.

        Raises:
          ConfigError: the population is too small for the task's delta or report goal.
        """
        self._spec = spec
        self._rounds = rounds
        self._every = max(1, rounds // _MAX_UPDATES)
        self._simulated: Optional[PrivacySpec] = None
        self._draws_as_accounted = draws_as_accounted
        if spec is None:
            return
        mechanism_of(spec)
        if not spec.aggregator.is_tree and clients < spec.population:
            # The noise does not depend on how many take part; the probability to be drawn does.
            self._simulated = dataclasses.replace(
                spec, population=clients, report_goal=min(clients, clients_per_round)
            )

    def progress(self, number: int) -> Optional[SpentPrivacy]:
        """After a round, in four digits; given for some ten rounds of a run."""
        return None if number % self._every else self._spent(number, is_progress=True)

    def total(self) -> Optional[SpentPrivacy]:
        """After all rounds."""
        return self._spent(self._rounds, is_progress=False)

    def _spent(self, rounds: int, *, is_progress: bool) -> Optional[SpentPrivacy]:
        spec, simulated = self._spec, self._simulated
        if spec is None:
            return None
        return SpentPrivacy(
            epsilon=_epsilon(spec, rounds, is_progress=is_progress),
            meant_for=meant_for(spec),
            simulated_epsilon=None if simulated is None else _epsilon(simulated, rounds, is_progress=is_progress),
            simulated_clients=None if simulated is None else simulated.population,
            delta=spec.delta,
            rounds=rounds,
            assumptions=(*self._sampling(), *pace(spec)),
        )

    def _sampling(self) -> tuple[str, ...]:
        spec, simulated = self._spec, self._simulated
        if spec is None or spec.aggregator.is_tree:
            return ()
        drawn = f"{spec.report_goal:,} of {spec.population:,} devices"
        if simulated is None:
            return (f"Each round is assumed to draw {drawn} on average, every one independently (Poisson sampling).",)
        sentence = (
            f"Each round is assumed to draw every client independently (Poisson sampling): {drawn} on average, or here "
            f"{simulated.report_goal:,} of {simulated.population:,}"
        )
        if self._draws_as_accounted:
            return (f"{sentence}.",)
        return (f"{sentence}. These rounds drew cohorts of fixed size, which only resembles that; --sampling poisson draws so.",)


def _epsilon(spec: PrivacySpec, rounds: int, *, is_progress: bool) -> float:
    mechanism = mechanism_of(dataclasses.replace(spec, rounds=rounds))
    if is_progress:
        return stated_epsilon(mechanism.quick_epsilon(spec.noise_multiplier), min(_PROGRESS_DIGITS, mechanism.digits))
    return stated_epsilon(mechanism.epsilon(spec.noise_multiplier), mechanism.digits)
