"""A Ray cluster that runs the clients: of several machines, or one that is started on this machine.

Ray is optional. Its actors hold the same ClientWorker as the local processes; checkpoint and partial sums travel as bytes
through Ray, so that machines share no file system but the one that the client data is on.

Ray's driver, and with it a cluster of our own, lives in a child process: ended by a signal while it starts, Ray hangs,
crashes or leaves processes behind. The child's process group holds everything that it starts and is killed as a whole.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import importlib.util
import os
import pathlib
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.base.private_directory import private_directory
from odp_taskbuilder.data.part import DataPart
from odp_taskbuilder.simulation.confined_data import readable_data
from odp_taskbuilder.simulation.deployment import DeployedTask
from odp_taskbuilder.simulation.jobs import (
    ClientSession,
    Cohort,
    CohortResult,
    SessionResult,
    WorkerSetup,
    deal_evenly,
    gathered,
)
from odp_taskbuilder.simulation.processes import MAX_DEATHS, ChildProcesses

if TYPE_CHECKING:
    from odp_taskbuilder.simulation.worker import ClientWorker

# Paths of sockets may have 107 bytes, of which Ray takes up to 65 below its directory.
_MAX_DIRECTORY_BYTES = 42
_RAYS_OWN_DIRECTORY = "/tmp/ray"


class RayEngine:
    """Actors on a Ray cluster (engines.Engine): the one that RAY_ADDRESS names, otherwise one that lives as long as this
    object."""

    def __init__(self, tasks: Mapping[int, DeployedTask], data: Mapping[int, Union[str, DataPart]], num_workers: int, scratch: pathlib.Path):
        """Starts the driver; the cluster starts with the first sessions.

        Raises:
          UsageError: Ray is not installed.
        """
        if importlib.util.find_spec("ray") is None:
            raise errors.UsageError("The engine `ray` needs Ray.", next_step="pip install 'odp-task[ray]'")
        make_driver = functools.partial(_make_driver, dict(tasks), dict(data), num_workers, str(scratch))
        self._processes = ChildProcesses("ray", make_driver, 1, scratch)

    def run(self, cohort: Cohort) -> CohortResult:
        sessions = deal_evenly(cohort)
        return gathered(sessions, self._processes.run([tuple(sessions)])[0] if sessions else [])

    def close(self) -> None:
        self._processes.close()

    @property
    def driver_process_id(self) -> int:
        """Also the process group of a cluster of our own."""
        return self._processes.process_ids[0]


def start_ray(num_workers: int, scratch: str) -> Any:
    """Connects to the cluster that RAY_ADDRESS names, or starts one of so many processors; returns the module `ray`.

    Args:
      scratch: directory for what a cluster of our own writes.
    """
    # Ray warns about a change of its defaults for accelerators, of which there are none here.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if os.environ.get("RAY_ADDRESS"):
        place: dict[str, Any] = {"address": os.environ["RAY_ADDRESS"]}
    else:
        # What Ray and its workers write goes when the run does. A cluster of our own must offer as many places as there
        # are workers.
        os.environ["TMPDIR"] = scratch
        fits = len(os.fsencode(scratch)) <= _MAX_DIRECTORY_BYTES
        place = {"num_cpus": num_workers, "_temp_dir": scratch if fits else _RAYS_OWN_DIRECTORY}
    ray.init(**place, include_dashboard=False, log_to_driver=False, logging_level="error")
    return ray


class _Driver:
    def __init__(self, tasks: Mapping[int, DeployedTask], data: Mapping[int, Union[str, DataPart]], num_workers: int, scratch: str):
        self._ray = ray = start_ray(num_workers, scratch)
        # Ray replaces an actor that dies; its session is run again below. One on each machine before two on one.
        actor = ray.remote(_RayWorker).options(num_cpus=1, max_restarts=-1, scheduling_strategy="SPREAD")
        # Ray forgets the arguments of an actor before that is replaced, unless somebody holds on to them.
        self._tasks = ray.put(tasks)
        self._actors = [actor.remote(self._tasks, data) for _ in range(num_workers)]

    def __call__(self, sessions: tuple[ClientSession, ...]) -> list[SessionResult]:
        ray = self._ray
        checkpoint = ray.put(pathlib.Path(sessions[0].checkpoint).read_bytes())
        results: dict[int, SessionResult] = {}
        waiting = collections.deque(range(len(sessions)))
        failures: collections.Counter[int] = collections.Counter()
        idle = collections.deque(self._actors)
        # What an actor is at: a session, or nothing but to answer.
        under_way: dict[Any, tuple[Any, Optional[int]]] = {}
        while len(results) < len(sessions):
            while waiting and idle:
                actor, number = idle.popleft(), waiting.popleft()
                under_way[actor.run.remote(sessions[number], checkpoint)] = (actor, number)
            (ready,), _ = ray.wait(list(under_way), num_returns=1)
            actor, number = under_way.pop(ready)
            try:
                answer = ray.get(ready)
            except ray.exceptions.RayActorError as error:
                # Its machine does not answer: another one runs the session, and this one is waited for.
                if number is not None:
                    failures[number] += 1
                    if failures[number] >= MAX_DEATHS:
                        raise errors.OdpTaskError(f"No Ray worker survives {sessions[number]!r}: {error}") from error
                    waiting.append(number)
                under_way[actor.answer.options(max_task_retries=-1).remote()] = (actor, None)
                continue
            except ray.exceptions.RayTaskError as error:
                # What the worker raised is the cause of Ray's own error.
                raise error.cause if isinstance(error.cause, errors.OdpTaskError) else error from error
            idle.append(actor)
            if number is not None:
                results[number], partial = answer
                pathlib.Path(sessions[number].partial).write_bytes(partial)
        return [results[number] for number in range(len(sessions))]


class _RayWorker:
    """The actor: a ClientWorker with the files of its own machine, in a confined process."""

    def __init__(self, tasks: Mapping[int, DeployedTask], data: Mapping[int, Union[str, DataPart]]):
        os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        # An actor is killed, so that nothing cleans up behind it but the next one.
        self._directory = contextlib.ExitStack()
        self._scratch = self._directory.enter_context(private_directory(None, "odp-task-ray-"))
        # Ray needs its sockets: what a plan may do, it does in another process.
        make_worker = functools.partial(_make_worker, tasks, data, str(self._scratch))
        self._processes = ChildProcesses("worker", make_worker, 1, self._scratch, readable=readable_data(data.values()))

    def answer(self) -> None:
        """Tells that this actor is there."""

    def run(self, session: ClientSession, checkpoint: bytes) -> tuple[SessionResult, bytes]:
        here = dataclasses.replace(
            session, checkpoint=str(self._scratch / "checkpoint"), partial=str(self._scratch / "partial")
        )
        pathlib.Path(here.checkpoint).write_bytes(checkpoint)
        try:
            (result,) = self._processes.run([here])
        except errors.StorageError as error:
            raise errors.StorageError(
                f"{error.message.rstrip('.')}, on the machine {socket.gethostname()} of the Ray cluster.",
                next_step=error.next_step or "Client data must be there under the same path on every machine.",
            ) from error
        return result, pathlib.Path(here.partial).read_bytes()


def _make_worker(
    tasks: Mapping[int, DeployedTask], data: Mapping[int, Union[str, DataPart]], scratch: str, position: int
) -> ClientWorker:
    from odp_taskbuilder.simulation.worker import ClientWorker

    return ClientWorker(WorkerSetup(tasks, data, scratch))


def _make_driver(
    tasks: Mapping[int, DeployedTask], data: Mapping[int, Union[str, DataPart]], num_workers: int, scratch: str, position: int
) -> _Driver:
    return _Driver(tasks, data, num_workers, scratch)
