"""What is asked of the worker processes of a simulation, and what they answer.

Everything of size travels as files that both sides can read.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.base.keyword_only import keyword_only
from odp_taskbuilder.data.part import DataPart
from odp_taskbuilder.simulation.deployment import DeployedTask


@dataclasses.dataclass(frozen=True)
class WorkerSetup:
    """What a worker is made with.

    Attributes:
      tasks: by task id.
      data: data argument (data.data_spec), or a part of it, of each task's clients, by task id.
      scratch: directory for files that live as long as one client does; the worker's own.
    """

    tasks: Mapping[int, DeployedTask]
    data: Mapping[int, Union[str, DataPart]]
    scratch: str


@keyword_only
@dataclasses.dataclass(frozen=True)
class Cohort:
    """The clients of one round, all of which get the same checkpoint.

    Attributes:
      checkpoint: file that the clients download.
      directory: for the partial sums of their updates.
      skip_bad_clients: count a client that fails instead of failing with it.
      draws_seed: of what the clients' plans draw in this round.
    """

    task_id: int
    checkpoint: str
    client_ids: tuple[str, ...]
    directory: str
    skip_bad_clients: bool = False
    draws_seed: int = 0

    def session(self, number: int, client_ids: Sequence[str], **options: Any) -> ClientSession:
        """Some of the clients as the session of a number, which names its partial sum.

        Args:
          options: how they run, as ClientSession says.
        """
        return ClientSession(
            task_id=self.task_id,
            checkpoint=self.checkpoint,
            client_ids=tuple(client_ids),
            partial=f"{self.directory}/partial_{number}",
            skip_bad_clients=self.skip_bad_clients,
            sampled=number == 0,
            draws_seed=self.draws_seed,
            **options,
        )


@keyword_only
@dataclasses.dataclass(frozen=True)
class CohortResult:
    """What the clients of a round yield.

    Attributes:
      partials: files of partial sums, in the order in which they are merged.
      reports: clients that reported.
      update_bytes: size of all their updates together.
      client_seconds: what each client took that ran in the interpreter, without what is around it.
      oversized_examples: examples that are larger than phones take.
      zeroed_clients: clients that reported nothing but zeros (runtime.client_runtime.sent_zeros).
      sample: sizes of one client's update, as a file and after gzip; None where none was looked at.
    """

    partials: tuple[str, ...]
    reports: int
    update_bytes: int
    bad_clients: tuple[BadClient, ...] = ()
    client_seconds: tuple[float, ...] = ()
    oversized_examples: int = 0
    zeroed_clients: int = 0
    sample: Optional[tuple[int, int]] = None


@keyword_only
@dataclasses.dataclass(frozen=True)
class ClientSession:
    """Clients whose updates are summed in one go.

    Attributes:
      checkpoint: file that the clients download.
      partial: file to write the sum to.
      skip_bad_clients: count a client that fails instead of failing with it.
      draws_seed: of what the clients' plans draw, together with their names.
      compiled: run them compiled; such as cannot be, in the interpreter.
      compared: those of them that run in both ways.
      timed: measure both ways.
      sampled: see what gzip makes of the first update, where it is a file of the interpreter's.
    """

    task_id: int
    checkpoint: str
    client_ids: tuple[str, ...]
    partial: str
    skip_bad_clients: bool = False
    draws_seed: int = 0
    compiled: bool = False
    compared: tuple[str, ...] = ()
    timed: bool = False
    sampled: bool = False


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
class Comparison:
    """A client that ran compiled and in the interpreter.

    Attributes:
      tensor: of the update, the one that differs most.
      difference: L2 norm of its difference, relative to the tensor's.
      amplified: that is more than float32's rounding of an update, and no more than rounding of the weights makes of it.
      in_rounding: it is the plan's own rounding (--compress_updates) that makes the difference.
    """

    client_id: str
    tensor: str
    difference: float
    amplified: bool = False
    in_rounding: bool = False


@dataclasses.dataclass(frozen=True)
class SessionResult:
    """Attributes:
    reports: clients that reported.
    update_bytes: size of all their updates together.
    client_seconds: what each client took that ran in the interpreter, without what is around it.
    oversized_examples: examples that are larger than phones take.
    zeroed_clients: clients that reported nothing but zeros (runtime.client_runtime.sent_zeros).
    compiled: clients whose updates come from a compiled program.
    comparisons: of clients that ran in both ways, with the same update.
    different: a client whose updates differ, which rounding does not explain; nothing else was done then.
    kinks: clients that ran in both ways with updates that differ, which rounding explains; the interpreter's is taken.
    seconds_compiled: of a client, without compiling; None where it was not asked for.
    summed: the session's file holds the sum of its updates in double precision, for AggregateSums; not if there are none.
    sample: sizes of one client's update, as a file and after gzip; None where none was looked at.
    """

    reports: int
    update_bytes: int
    bad_clients: tuple[BadClient, ...] = ()
    client_seconds: tuple[float, ...] = ()
    oversized_examples: int = 0
    zeroed_clients: int = 0
    compiled: int = 0
    comparisons: tuple[Comparison, ...] = ()
    kinks: tuple[str, ...] = ()
    different: Optional[Comparison] = None
    seconds_compiled: Optional[float] = None
    summed: bool = False
    sample: Optional[tuple[int, int]] = None


@dataclasses.dataclass(frozen=True)
class AggregateSums:
    """Add up sums of updates in double precision, so that it does not show how many they are, and aggregate the result as an update.

    Attributes:
      checkpoint: what the clients downloaded.
      sums: files.
      partial: file to write the partial sum to.
    """

    task_id: int
    checkpoint: str
    sums: tuple[str, ...]
    partial: str


@dataclasses.dataclass(frozen=True)
class TranslateTask:
    """Find out whether a task's client plan can be compiled; yields an UntranslatedOp if not."""

    task_id: int
    checkpoint: str


@dataclasses.dataclass(frozen=True)
class UntranslatedOp:
    """The first operator of a client plan that cannot be compiled, where it stands, and why."""

    op: str
    subgraph: str
    reason: str


@dataclasses.dataclass(frozen=True)
class WriteClientCheckpoint:
    """Derive what clients download from a server checkpoint."""

    task_id: int
    server_checkpoint: str
    client_checkpoint: str


@dataclasses.dataclass(frozen=True)
class ApplyPartials:
    """Merge partial sums in the order given, apply them to a server checkpoint, write the new one; yields the round's
    metrics.

    Attributes:
      weight: what the sum is multiplied by before it is applied.
      noise_seed: of the noise that the plan adds; None takes another one each time.
    """

    task_id: int
    server_checkpoint: str
    partials: tuple[str, ...]
    new_server_checkpoint: str
    weight: float = 1.0
    noise_seed: Optional[int] = None


# Clients are dealt to at most so many sessions, whose sums are merged in order. It bounds how many workers can share a
# round, and it is fixed, since another grouping of the same sums would round differently.
_MAX_SESSIONS = 16


def deal_evenly(cohort: Cohort) -> list[ClientSession]:
    """The sessions of a cohort for workers that add up as the server does, client by client."""
    size = max(1, math.ceil(len(cohort.client_ids) / _MAX_SESSIONS))
    return [
        cohort.session(start // size, cohort.client_ids[start : start + size])
        for start in range(0, len(cohort.client_ids), size)
    ]


def gathered(sessions: Sequence[ClientSession], results: Sequence[SessionResult], aggregated: Sequence[str] = ()) -> CohortResult:
    """What the sessions of a cohort yield together. A session without reports has no sum worth merging; its file goes.

    Args:
      aggregated: files of partial sums in place of those sessions' that were `summed`.
    """
    for session, result in zip(sessions, results):
        if not result.reports and not result.summed:
            os.unlink(session.partial)
    return CohortResult(
        partials=(
            *aggregated,
            *(session.partial for session, result in zip(sessions, results) if result.reports and not result.summed),
        ),
        reports=sum(result.reports for result in results),
        update_bytes=sum(result.update_bytes for result in results),
        bad_clients=tuple(client for result in results for client in result.bad_clients),
        client_seconds=tuple(seconds for result in results for seconds in result.client_seconds),
        oversized_examples=sum(result.oversized_examples for result in results),
        zeroed_clients=sum(result.zeroed_clients for result in results),
        sample=next((result.sample for result in results if result.sample is not None), None),
    )
