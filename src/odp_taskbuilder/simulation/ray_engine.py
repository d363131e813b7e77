"""A Ray cluster that runs the clients: of several machines, or one that is started on this machine.

Ray is optional. Its actors hold the same ClientWorker as the local processes; checkpoint and partial sums travel as bytes
through Ray, so that machines share no file system but the one that the client data is on.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from odp_taskbuilder import errors
from odp_taskbuilder.simulation.deployment import DeployedTask
from odp_taskbuilder.simulation.jobs import ClientSession, SessionResult, WorkerSetup

# Actors that die on the same session, before it is given up.
_MAX_DEATHS = 3


class RayEngine:
    """Actors on a Ray cluster (engines.Engine): the one that RAY_ADDRESS names, otherwise one that lives as long as this
    object."""

    def __init__(self, tasks: Mapping[int, DeployedTask], data: Mapping[int, str], num_workers: int):
        # Ray warns about a change of its defaults for accelerators, of which there are none here.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise errors.UsageError("The engine `ray` needs Ray.", next_step="pip install 'odp-task[ray]'") from error
        self._ray = ray
        address = os.environ.get("RAY_ADDRESS")
        # A cluster of our own must offer as many places as there are workers.
        ray.init(
            address=address,
            num_cpus=None if address else num_workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
        )
        self._make_actor = lambda: ray.remote(_RayWorker).options(num_cpus=1).remote(dict(tasks), dict(data))
        self._actors = [self._make_actor() for _ in range(num_workers)]

    def run(self, sessions: Sequence[ClientSession]) -> list[SessionResult]:
        if not sessions:
            return []
        checkpoint = self._ray.put(pathlib.Path(sessions[0].checkpoint).read_bytes())
        waiting = collections.deque(range(len(sessions)))
        deaths: collections.Counter[int] = collections.Counter()
        results: dict[int, SessionResult] = {}
        busy: dict[Any, tuple[int, int]] = {}  # Future to positions of actor and session.
        idle = list(range(len(self._actors)))
        while len(results) < len(sessions):
            while waiting and idle:
                position, index = idle.pop(), waiting.popleft()
                busy[self._actors[position].run.remote(sessions[index], checkpoint)] = (position, index)
            (done, *_), _ = self._ray.wait(list(busy))
            position, index = busy.pop(done)
            idle.append(position)
            try:
                results[index], partial = self._ray.get(done)
            except self._ray.exceptions.RayActorError as error:
                deaths[index] += 1
                if deaths[index] >= _MAX_DEATHS:
                    raise errors.OdpTaskError(
                        f"A Ray worker died {deaths[index]} times on {sessions[index]!r}: {error}"
                    ) from error
                self._actors[position] = self._make_actor()
                waiting.appendleft(index)
                continue
            except self._ray.exceptions.RayTaskError as error:
                # What the worker raised is the cause of Ray's own error.
                raise error.cause if isinstance(error.cause, errors.OdpTaskError) else error from error
            pathlib.Path(sessions[index].partial).write_bytes(partial)
        return [results[index] for index in range(len(sessions))]

    def close(self) -> None:
        self._ray.shutdown()


class _RayWorker:
    """The actor: a ClientWorker with the files of its own machine."""

    def __init__(self, tasks: Mapping[int, DeployedTask], data: Mapping[int, str]):
        os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        from odp_taskbuilder.simulation.worker import ClientWorker

        self._directory = tempfile.TemporaryDirectory(prefix="odp-task-ray-")
        self._scratch = pathlib.Path(self._directory.name)
        self._worker = ClientWorker(WorkerSetup(tasks, data, self._directory.name))

    def run(self, session: ClientSession, checkpoint: bytes) -> tuple[SessionResult, bytes]:
        here = dataclasses.replace(
            session, checkpoint=str(self._scratch / "checkpoint"), partial=str(self._scratch / "partial")
        )
        pathlib.Path(here.checkpoint).write_bytes(checkpoint)
        result = self._worker(here)
        return result, pathlib.Path(here.partial).read_bytes()
