"""Who runs the clients of a round: the interface, and the processes of this machine."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from odp_taskbuilder.simulation.deployment import DeployedTask
from odp_taskbuilder.simulation.jobs import ClientSession, SessionResult, WorkerSetup
from odp_taskbuilder.simulation.processes import ChildProcesses

if TYPE_CHECKING:
    from odp_taskbuilder.simulation.worker import ClientWorker


class Engine(Protocol):
    """Runs client sessions. What a session yields does not depend on who runs it, nor on what ran before."""

    def run(self, sessions: Sequence[ClientSession]) -> list[SessionResult]:
        """Runs sessions of one round, all with the same checkpoint, and returns their results in order; their partial sums
        are written then.

        Raises:
          OdpTaskError: as worker.ClientWorker, or a worker died time and again.
        """

    def close(self) -> None:
        """Ends the workers."""


class LocalEngine:
    """Worker processes on this machine."""

    def __init__(self, tasks: Mapping[int, DeployedTask], data: Mapping[int, str], num_workers: int, scratch: pathlib.Path):
        self._processes = ChildProcesses(
            "worker", functools.partial(_make_worker, tasks, data, str(scratch)), num_workers, scratch
        )

    def run(self, sessions: Sequence[ClientSession]) -> list[SessionResult]:
        return self._processes.run(sessions)

    def close(self) -> None:
        self._processes.close()

    @property
    def process_ids(self) -> list[int]:
        return self._processes.process_ids


def _make_worker(tasks: Mapping[int, DeployedTask], data: Mapping[int, str], scratch: str, position: int) -> ClientWorker:
    from odp_taskbuilder.simulation.worker import ClientWorker

    directory = pathlib.Path(scratch, f"worker_{position}")
    # A worker that died left its files; they are written again.
    directory.mkdir(exist_ok=True)
    return ClientWorker(WorkerSetup(tasks, data, str(directory)))
