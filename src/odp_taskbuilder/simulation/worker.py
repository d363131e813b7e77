"""What the worker processes of a simulation do: run clients and sum their updates, or play the server.

Both are functions of their jobs and the plans. This module loads TensorFlow; the process that sends the jobs need not.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Optional, Union

import numpy as np

from odp_taskbuilder import errors
from odp_taskbuilder.base.phone_limits import MAX_EXAMPLE_BYTES
from odp_taskbuilder.data import examples as example_codec
from odp_taskbuilder.data import tfrecord
from odp_taskbuilder.data.client_data import ClientData
from odp_taskbuilder.data.open import open_client_data
from odp_taskbuilder.data.synthetic import Feature
from odp_taskbuilder.proto import plan_pb2
from odp_taskbuilder.runtime import client_runtime, server_runtime
from odp_taskbuilder.runtime.partial_sums import weigh_partial
from odp_taskbuilder.simulation.communication import gzip_size_of
from odp_taskbuilder.simulation.deployment import DeployedTask
from odp_taskbuilder.simulation.jobs import (
    ApplyPartials,
    BadClient,
    ClientSession,
    SessionResult,
    WorkerSetup,
    WriteClientCheckpoint,
    named_after_client,
)
from odp_taskbuilder.simulation.sampling import client_seed
from odp_taskbuilder.simulation.update_sums import adds_up, read_tensors, write_tensors


class ClientWorker:
    """Runs clients: the client plan in TensorFlow Lite for each, their updates into the server plan's aggregation.

    Where that is known to add up and no more, updates are added up here, in the same order and precision, and the plan gets one sum: the
    same bits for a session of TensorFlow less per client. A worker tries it out on its first client of each task.

    Attributes:
      tasks: by task id.
      update_file, update: of the client that ran last; the latter its tensors by name.
      seconds: that the clients of the session took, without what is around them.
    """

    def __init__(self, setup: WorkerSetup, watched: Mapping[int, Sequence[int]] = MappingProxyType({})):
        """Opens what the sessions need.

        Args:
          watched: by task id, tensors of which the task's device tells what they were (ClientRuntime).
        """
        self._examples_file = os.path.join(setup.scratch, "examples.tfrecord")
        self.update_file = os.path.join(setup.scratch, "update")
        self._sum_file = os.path.join(setup.scratch, "sum")
        features = next(iter(setup.tasks.values())).features
        # Tasks of one deployment parse the same examples; usually they also have the same clients.
        opened = {text: open_client_data(text, features=features) for text in set(setup.data.values())}
        self.tasks = {
            task_id: TaskClients(task, opened[setup.data[task_id]], watched.get(task_id, ())) for task_id, task in setup.tasks.items()
        }

    def __call__(self, session: ClientSession) -> SessionResult:
        """Runs a session.

        Raises:
          OdpTaskError: a client's data cannot be read (StorageError), does not fit the plan (UsageError), or the plan fails
            on it (ArtifactError), unless such clients are skipped; a file cannot be written (StorageError).
        """
        sizes: list[int] = []
        bad_clients: list[BadClient] = []
        self.begin()
        self._sample: Optional[tuple[int, int]] = None
        clients = self.tasks[session.task_id]
        updates = self._updates(session, sizes, bad_clients)
        if clients.adds_up is None:
            first = next(updates, None)
            if first is not None:
                clients.adds_up = adds_up(clients.aggregator, self.update, pathlib.Path(self._sum_file).parent)
                updates = itertools.chain([first], updates)
        clients.aggregator.aggregate_updates(self._summed(updates) if clients.adds_up else updates, session.partial)
        return SessionResult(
            reports=len(sizes),
            update_bytes=sum(sizes),
            bad_clients=tuple(bad_clients),
            client_seconds=tuple(self.seconds),
            oversized_examples=self._oversized,
            zeroed_clients=self.zeroed,
            sample=self._sample,
        )

    def _summed(self, updates: Iterator[str]) -> Iterator[str]:
        """The sum of all updates, as one file."""
        total: dict[str, np.ndarray] = {}
        with np.errstate(over="ignore"):
            for _ in updates:
                for name, value in self.update.items():
                    # The plan starts from zeros, too, which shows in the sign of a zero.
                    if name not in total:
                        total[name] = np.zeros_like(value)
                    np.add(total[name], value, out=total[name])
        if total:
            write_tensors(self._sum_file, total)
            yield self._sum_file

    def begin(self) -> None:
        """Counts anew what a session counts."""
        self.seconds: list[float] = []
        self._oversized = self.zeroed = 0

    def _updates(self, session: ClientSession, sizes: list[int], bad_clients: list[BadClient]) -> Iterator[str]:
        """Yields the update of one client after the other, in the same file."""
        for client_id in session.client_ids:
            failure = self.run_client(session, client_id)
            if failure is None:
                sizes.append(os.path.getsize(self.update_file))
                if session.sampled and self._sample is None:
                    self._sample = sizes[-1], gzip_size_of(self.update_file)
                yield self.update_file
            elif session.skip_bad_clients:
                bad_clients.append(BadClient(client_id, failure.message))
            else:
                raise failure

    def run_client(self, session: ClientSession, client_id: str) -> Optional[errors.OdpTaskError]:
        """Writes the client's update to `update_file`, or returns what is wrong with the client. Raises only what is not the client's
        fault."""
        clients = self.tasks[session.task_id]
        where = f"Client {client_id!r} ({clients.data.location(client_id)})"
        try:
            examples = list(clients.data.examples(client_id))
            if not examples:
                raise errors.UsageError(f"{where} has no examples.")
        except errors.OdpTaskError as error:
            return named_after_client(error, client_id)
        tfrecord.write_records(pathlib.Path(self._examples_file), examples)
        self._oversized += sum(len(example) > MAX_EXAMPLE_BYTES for example in examples)
        start = time.monotonic()
        try:
            seed = client_seed(session.draws_seed, client_id)
            clients.device.run(self._examples_file, session.checkpoint, self.update_file, draws_seed=seed)
        except errors.ArtifactError as error:
            misfit = first_misfit(examples, clients.features)
            if misfit is not None:
                return named_after_client(errors.UsageError(f"{where}, {misfit}"), client_id)
            return named_after_client(errors.ArtifactError(f"{where}: {error.message}"), client_id)
        self.seconds.append(time.monotonic() - start)
        self.update = read_tensors(self.update_file)
        self.zeroed += client_runtime.sent_zeros(self.update)
        return None


class TaskClients:
    """What running clients of one task needs.

    Attributes:
      device: runs the client plan.
      aggregator: runs the server plan's part.
      adds_up: whether that part does no more with updates than add them up; None while nobody knows.
      features: what the client plan parses.
    """

    def __init__(self, task: DeployedTask, data: ClientData, watched: Sequence[int]):
        plan = plan_pb2.ClientOnlyPlan.FromString(task.client_only_plan)
        self.device = client_runtime.ClientRuntime(plan, seed_draws=True, watched=watched)
        self.aggregator = _open_server(task)
        self.adds_up: Optional[bool] = None
        self.data = data
        self.features = task.features


class ServerWorker:
    """Plays the server of each task."""

    def __init__(self, tasks: Mapping[int, DeployedTask], *, seed_noise: bool = False):
        """Opens the server plans.

        Args:
          seed_noise: every ApplyPartials says which seed the noise has.
        """
        self._servers = {task_id: _open_server(task, seed_noise=seed_noise) for task_id, task in tasks.items()}

    def __call__(self, job: Union[WriteClientCheckpoint, ApplyPartials]) -> Optional[dict[str, float]]:
        server = self._servers[job.task_id]
        if isinstance(job, WriteClientCheckpoint):
            server.write_client_checkpoint(job.server_checkpoint, job.client_checkpoint)
            return None
        if job.weight == 1 or not job.partials:
            return server.apply(job.server_checkpoint, job.partials, job.new_server_checkpoint, noise_seed=job.noise_seed)
        with tempfile.TemporaryDirectory() as directory:
            total, weighted = (os.path.join(directory, name) for name in ("sum", "weighted_sum"))
            server.merge_partials(job.partials, total)
            weigh_partial(total, weighted, job.weight)
            return server.apply(job.server_checkpoint, [weighted], job.new_server_checkpoint, noise_seed=job.noise_seed)


def first_misfit(examples: Sequence[bytes], features: Sequence[Feature]) -> Optional[str]:
    """The first thing in serialized examples that a plan cannot parse; None if they fit.

    Args:
      features: what the plan parses.
    """
    for index, serialized in enumerate(examples):
        try:
            values = example_codec.decode(serialized)
        except ValueError as error:
            return f"example {index}: {error}."
        for feature in features:
            expected = f"{feature.kind}{list(feature.shape)}"
            found = values.get(feature.name)
            if found is None:
                present = ", ".join(f"{name} {_described(array)}" for name, array in sorted(values.items())) or "none"
                return f"example {index} has no feature {feature.name!r}; the plan expects {expected}. Its features: {present}."
            if example_codec.kind_of(found) != feature.kind or found.size != np.prod(feature.shape, dtype=int):
                return f"example {index}: feature {feature.name!r} is {_described(found)}; the plan expects {expected}."
    return None


def _described(values: np.ndarray) -> str:
    return f"{example_codec.kind_of(values)}[{values.size}]"


def _open_server(task: DeployedTask, *, seed_noise: bool = False) -> server_runtime.Server:
    return server_runtime.open_server(plan_pb2.Plan.FromString(task.plan), keep_session=True, seed_noise=seed_noise)
