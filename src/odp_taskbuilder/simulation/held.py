"""A simulation that stays open between its rounds, all of it in this process: for callers that are one worker process of many.

with HeldSimulation(artifacts, options, scratch) as simulation:
    simulation.run(5, directory)
    simulation.run(10, directory)  # Goes on from the fifth round.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Callable, Union

from odp_taskbuilder.simulation import round_checks
from odp_taskbuilder.simulation.processes import ThisProcess
from odp_taskbuilder.simulation.round_reports import OnRound, Summary
from odp_taskbuilder.simulation.rounds import Rounds
from odp_taskbuilder.simulation.run_directory import RunDirectory
from odp_taskbuilder.simulation.simulate import SimulationOptions, open_simulation_data, open_simulation_runner


class HeldSimulation:
    """Plans, programs and client data stay loaded until `close`.

    Raises, here and in `run`:
      OdpTaskError: as `simulate`.
    """

    def __init__(
        self,
        artifacts: Union[str, pathlib.Path],
        options: SimulationOptions,
        scratch: pathlib.Path,
        on_notice: Callable[[str], None] = lambda notice: None,
    ):
        """Opens what can be opened before the first round.

        Args:
          options: as of `simulate`; `run_directory` and the number of rounds are `run`'s. A cohort is smaller than `clients_per_round`
            where that is beyond the report goal or the number of clients.
          scratch: directory for files that live as long as a round.
        """
        self.deployment, self.data, self.evaluation_data = open_simulation_data(artifacts, options)
        clients = round_checks.available_clients(
            self.data, self.deployment.eligibility.min_example_count, options.rounds.skip_bad_clients
        )
        cohort = max(1, min(options.rounds.clients_per_round, self.deployment.training.report_goal, len(clients)))
        options = dataclasses.replace(options, rounds=dataclasses.replace(options.rounds, clients_per_round=cohort))
        self._options = options
        self._runner = open_simulation_runner(self.deployment, options, scratch, on_notice, ThisProcess)

    def __enter__(self) -> HeldSimulation:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def run(self, rounds: int, directory: pathlib.Path, on_round: OnRound = lambda report: None) -> Summary:
        """Runs the rounds up to a number that the directory does not hold yet."""
        options = dataclasses.replace(self._options.rounds, rounds=rounds)
        kept = RunDirectory(directory, self.deployment.population)
        all_rounds = Rounds(self.deployment, self.data, self.evaluation_data, options, kept, on_round=on_round)
        with kept.opened({**all_rounds.settings(), "oracle": False}):
            return all_rounds.run(self._runner)

    def close(self) -> None:
        self._runner.close()
