"""What is asked of the worker processes of a simulation, and what they answer.

Everything of size travels as files that both sides can read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from odp_taskbuilder import errors
from odp_taskbuilder.simulation.deployment import DeployedTask


@dataclasses.dataclass(frozen=True)
class WorkerSetup:
    """What a worker is made with.

    Attributes:
      tasks: by task id.
      data: data argument (data.data_spec) of each task's clients, by task id.
      scratch: directory for files that live as long as one client does; the worker's own.
    """

    tasks: Mapping[int, DeployedTask]
    data: Mapping[int, str]
    scratch: str


@dataclasses.dataclass(frozen=True)
class ClientSession:
    """Clients whose updates are summed in one go.

    Attributes:
      checkpoint: file that the clients download.
      partial: file to write the sum to.
      skip_bad_clients: count a client that fails instead of failing with it.
    """

    task_id: int
    checkpoint: str
    client_ids: tuple[str, ...]
    partial: str
    skip_bad_clients: bool = False


@dataclasses.dataclass(frozen=True)
class BadClient:
    """A client that did not report, and why."""

    client_id: str
    reason: str


_TWO_WAYS_ON = "Mend the data, or count such clients instead with --skip_bad_clients."


def named_after_client(error: errors.OdpTaskError, client_id: str, next_step: str = _TWO_WAYS_ON) -> errors.OdpTaskError:
    """An error of reading or running a client, with the client in its message and the way on."""
    message = error.message if repr(client_id) in error.message else f"Client {client_id!r}: {error.message}"
    kind: Any = type(error)
    return kind(message, next_step=next_step)


@dataclasses.dataclass(frozen=True)
class SessionResult:
    """Attributes:
    reports: clients that reported.
    update_bytes: size of all their updates together.
    client_seconds: what each client took that ran, without what is around it.
    oversized_examples: examples that are larger than phones take.
    """

    reports: int
    update_bytes: int
    bad_clients: tuple[BadClient, ...] = ()
    client_seconds: tuple[float, ...] = ()
    oversized_examples: int = 0


@dataclasses.dataclass(frozen=True)
class WriteClientCheckpoint:
    """Derive what clients download from a server checkpoint."""

    task_id: int
    server_checkpoint: str
    client_checkpoint: str


@dataclasses.dataclass(frozen=True)
class ApplyPartials:
    """Merge partial sums in the order given, apply them to a server checkpoint, write the new one; yields the round's
    metrics."""

    task_id: int
    server_checkpoint: str
    partials: tuple[str, ...]
    new_server_checkpoint: str
