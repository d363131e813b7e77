"""One round, run from the emitted plans: the server's steps in a process of their own, the clients by an engine."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import io
import os
import pathlib
import stat
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Callable, Optional, Protocol

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts.checkpoint_reader import open_checkpoint
from odp_taskbuilder.simulation.communication import Communication, gzip_size, gzip_size_of
from odp_taskbuilder.simulation.deployment import TRAINING_TASK_ID, DeployedTask
from odp_taskbuilder.simulation.engines import Engine
from odp_taskbuilder.simulation.jobs import ApplyPartials, BadClient, Cohort, CohortResult, WriteClientCheckpoint
from odp_taskbuilder.simulation.processes import ChildProcesses, StartProcesses
from odp_taskbuilder.simulation.round_options import RoundOptions
from odp_taskbuilder.simulation.sampling import draws_seed, noise_seed

if TYPE_CHECKING:
    from odp_taskbuilder.simulation.worker import ServerWorker

_LEAST_PRIORITY = 19


@dataclasses.dataclass(frozen=True)
class RoundResult:
    """What one round yields.

    Attributes:
      metrics: as the server publishes them.
      new_checkpoint: the new server checkpoint; of an evaluation round nobody needs it.
      reports: clients whose updates were aggregated.
      communication: of the round; None where no files travel.
      client_seconds: what each client took that reported; empty where that is not measured.
      oversized_examples: examples that are larger than phones take.
      zeroed_clients: clients that reported nothing but zeros, because what they would have sent was not finite or too large; None where
        updates are not looked at one by one.
    """

    metrics: Mapping[str, float]
    new_checkpoint: pathlib.Path
    reports: int
    bad_clients: tuple[BadClient, ...] = ()
    communication: Optional[Communication] = None
    client_seconds: tuple[float, ...] = ()
    oversized_examples: int = 0
    zeroed_clients: Optional[int] = None


class RoundRunner(Protocol):
    """Runs rounds of a task."""

    def run_round(self, task_id: int, number: int, server_checkpoint: pathlib.Path, client_ids: Sequence[str]) -> RoundResult:
        """Runs one round from a server checkpoint; the files of its result are there until the next one.

        Args:
          number: of the round.

        Raises:
          OdpTaskError: a client is bad and must not be skipped, or something failed.
        """

    def close(self) -> None:
        """Ends all processes."""


def require_checkpoint(path: pathlib.Path) -> None:
    """Looks at a server checkpoint before TensorFlow does, which does not say which file it cannot read.

    Raises:
      StorageError: it cannot be read.
      ArtifactError: it is damaged.
    """
    try:
        with open_checkpoint(path) as checkpoint:
            checkpoint.check()
    except (errors.StorageError, errors.ArtifactError) as error:
        raise type(error)(
            error.message,
            next_step="Remove this round and those after it from the run directory: the same command runs them again.",
        ) from error


def _require_file(path: pathlib.Path) -> None:
    """Refuses what a stranger's plan may have left in the place of a file: it would be followed with the user's rights."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise errors.ArtifactError(f"The plan left something else than a file as {path.name}.")


def _meanwhile(measure: Callable[[], int]) -> Callable[[], int]:
    """Calls a function in a thread, which takes what time the processes of the round leave; returns a function that waits for its result."""
    future: concurrent.futures.Future[int] = concurrent.futures.Future()

    def call() -> None:
        # Of this thread alone, where the system knows such a thing.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LEAST_PRIORITY)
        try:
            future.set_result(measure())
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited.
            future.set_exception(error)

    # Not an executor's: a round that fails does not wait for it.
    threading.Thread(target=call, daemon=True).start()
    return future.result


class PlanRounds:
    """Rounds in the order in which server and devices drive them (spec: plan.md, sections 1.2 and 1.3)."""

    def __init__(
        self,
        tasks: Mapping[int, DeployedTask],
        engine: Engine,
        scratch: pathlib.Path,
        options: RoundOptions,
        start_processes: StartProcesses = ChildProcesses,
        *,
        checkpoints: Sequence[pathlib.Path] = (),
        on_notice: Callable[[str], None] = lambda notice: None,
    ):
        """Starts the server's process.

        Args:
          checkpoints: files and directories that server checkpoints lie in.
          on_notice: told, in a line, what the kernel refuses to the processes that execute the plans.
        """
        self._tasks = tasks
        self._engine = engine
        self._scratch = scratch
        self._options = options
        # What gzip makes of the client plans.
        self._plan_wire: dict[int, int] = {}
        self._on_notice = on_notice
        self._has_looked = False
        make_server = functools.partial(_make_server, tasks, options.noise_seed is not None)
        self._server = start_processes("server", make_server, 1, scratch, readable=[str(path) for path in checkpoints])

    def run_round(self, task_id: int, number: int, server_checkpoint: pathlib.Path, client_ids: Sequence[str]) -> RoundResult:
        client_checkpoint = self._scratch / "client_checkpoint"
        new_checkpoint = self._scratch / "server_checkpoint"
        require_checkpoint(server_checkpoint)
        self._server.run([WriteClientCheckpoint(task_id, str(server_checkpoint), str(client_checkpoint))])
        self._say_weaknesses()
        _require_file(client_checkpoint)
        checkpoint_wire = _meanwhile(functools.partial(gzip_size_of, client_checkpoint))
        result = self._engine.run(
            Cohort(
                task_id=task_id,
                checkpoint=str(client_checkpoint),
                client_ids=tuple(client_ids),
                directory=str(self._scratch),
                skip_bad_clients=self._options.skip_bad_clients,
                draws_seed=draws_seed(self._options.seed, task_id, number),
            )
        )
        options = self._options
        job = ApplyPartials(task_id, str(server_checkpoint), result.partials, str(new_checkpoint))
        if options.noise_as_deployed and result.reports and task_id == TRAINING_TASK_ID:
            job = dataclasses.replace(job, weight=self._tasks[task_id].report_goal / result.reports)
        if options.noise_seed is not None:
            job = dataclasses.replace(job, noise_seed=noise_seed(options.noise_seed, number))
        (metrics,) = self._server.run([job])
        _require_file(new_checkpoint)
        for partial in result.partials:
            os.unlink(partial)
        communication = self._communication(task_id, client_checkpoint.stat().st_size, checkpoint_wire(), len(client_ids), result)
        return RoundResult(
            metrics=metrics,
            new_checkpoint=new_checkpoint,
            reports=result.reports,
            bad_clients=result.bad_clients,
            communication=communication,
            client_seconds=result.client_seconds,
            oversized_examples=result.oversized_examples,
            zeroed_clients=result.zeroed_clients,
        )

    def _communication(
        self, task_id: int, checkpoint_bytes: int, checkpoint_wire: int, clients: int, result: CohortResult
    ) -> Communication:
        if task_id not in self._plan_wire:
            self._plan_wire[task_id] = gzip_size(io.BytesIO(self._tasks[task_id].client_only_plan))
        file_bytes, wire_bytes = result.sample or (1, 0)
        return Communication(
            broadcast=clients * (len(self._tasks[task_id].client_only_plan) + checkpoint_bytes),
            aggregated=result.update_bytes,
            broadcast_wire=clients * (self._plan_wire[task_id] + checkpoint_wire),
            aggregated_wire=round(result.update_bytes * wire_bytes / file_bytes),
        )

    def _say_weaknesses(self) -> None:
        if not self._has_looked and self._server.weaknesses:
            self._on_notice(f"the plans run in a sandbox without {', '.join(self._server.weaknesses)}")
        self._has_looked = True

    def close(self) -> None:
        self._engine.close()
        self._server.close()


def _make_server(tasks: Mapping[int, DeployedTask], seed_noise: bool, position: int) -> ServerWorker:
    from odp_taskbuilder.simulation.worker import ServerWorker

    return ServerWorker(tasks, seed_noise=seed_noise)
