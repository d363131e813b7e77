"""Who runs the clients of a round: the interface, and the processes of this machine."""

from __future__ import annotations

import collections
import functools
import hashlib
import importlib.util
import os
import pathlib
import types
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Callable, Optional, Protocol, Union

from odp_taskbuilder import errors
from odp_taskbuilder.data.part import DataPart
from odp_taskbuilder.simulation.comparison import MAX_DIFFERENCE
from odp_taskbuilder.simulation.confined_data import readable_data
from odp_taskbuilder.simulation.deployment import DeployedTask
from odp_taskbuilder.simulation.jobs import (
    AggregateSums,
    ClientSession,
    Cohort,
    CohortResult,
    Comparison,
    SessionResult,
    TranslateTask,
    WorkerSetup,
    deal_evenly,
    gathered,
)
from odp_taskbuilder.simulation.processes import ChildProcesses, StartProcesses
from odp_taskbuilder.simulation.round_reports import CompiledShare
from odp_taskbuilder.simulation.sampling import generator

if TYPE_CHECKING:
    from odp_taskbuilder.simulation.compiled_worker import CompiledWorker
    from odp_taskbuilder.simulation.worker import ClientWorker

# Told of a task whether its clients run compiled from now on.
OnWay = Callable[[int, bool], None]
# Data argument, or a part of it, of each task's clients.
Data = Mapping[int, Union[str, DataPart]]

# Clients of a round that run in both ways, of all workers together; and of each of a task's first two, in which a wrong translation is to be
# found even where it shows in the updates of two clients of three only, such as those that are clipped.
_COMPARED_CLIENTS = 2
_COMPARED_AT_FIRST = 4
_FIRST_COHORTS = 2
# Where rounding sends so many of a task's compared clients two ways, and more than one in four, comparing says nothing any more.
_MANY_KINKS = 4
_COMPARED_PER_KINK = 4
# Until a run has so many clients, compiling takes longer than it can save: a plan's programs take some ten seconds.
_MIN_COMPILED_CLIENTS = 1500


class Engine(Protocol):
    """Runs the clients of rounds. What a cohort yields does not depend on who runs it, nor on what ran before, beyond the rounding of
    sums."""

    def run(self, cohort: Cohort) -> CohortResult:
        """Runs the clients of one round; their partial sums are written then.

        Raises:
          OdpTaskError: as worker.ClientWorker, or a worker died time and again.
        """

    def close(self) -> None:
        """Ends the workers."""


class LocalEngine:
    """Worker processes on this machine, each with TensorFlow Lite's interpreter."""

    def __init__(
        self,
        tasks: Mapping[int, DeployedTask],
        data: Data,
        num_workers: int,
        scratch: pathlib.Path,
        start_processes: StartProcesses = ChildProcesses,
    ):
        self._processes = start_processes(
            "worker",
            functools.partial(_make_worker, tasks, data, _cores_of(start_processes, num_workers), str(scratch)),
            num_workers,
            scratch,
            readable=readable_data(data.values()),
        )

    def run(self, cohort: Cohort) -> CohortResult:
        sessions = deal_evenly(cohort)
        return gathered(sessions, self._processes.run(sessions))

    def close(self) -> None:
        self._processes.close()

    @property
    def process_ids(self) -> list[int]:
        return self._processes.process_ids


class CompiledEngine:
    """Worker processes on this machine, one to a core, that run the client plan compiled by XLA (compiled.client_program).

    A client goes to the worker that had it before, which may still hold its examples.

    Attributes:
      share: how many clients ran compiled.
    """

    def __init__(
        self,
        tasks: Mapping[int, DeployedTask],
        data: Data,
        num_workers: int,
        scratch: pathlib.Path,
        *,
        must_compile: bool,
        on_notice: Callable[[str], None],
        on_way: OnWay = lambda task_id, compiled: None,
        former: Mapping[int, bool] = types.MappingProxyType({}),
        start_processes: StartProcesses = ChildProcesses,
    ):
        """Starts the workers.

        Args:
          must_compile: a plan that cannot be compiled is an error; otherwise it runs in the interpreter, as does one for which that is
            faster.
          on_notice: told which way a task goes, and why.
          on_way: told which way a task goes.
          former: whether a task ran compiled before, by its id; it goes on so, and is not measured again.

        Raises:
          UsageError: JAX is not installed.
        """
        if not has_jax():
            raise errors.UsageError("The engine `compiled` needs JAX.", next_step="pip install jax==0.4.13 jaxlib==0.4.13")
        self.share = CompiledShare()
        self._must_compile = must_compile
        self._on_notice = on_notice
        self._on_way = on_way
        self._former = {} if must_compile else former
        self._num_workers = num_workers
        self._homes: dict[str, int] = {}
        # Whether a task runs compiled; it is not here before its first cohort.
        self._is_compiled: dict[int, bool] = {}
        # Of each task, the clients that were compared, and those that lie on a kink.
        self._compared: collections.Counter[int] = collections.Counter()
        self._kinks: collections.Counter[int] = collections.Counter()
        # And those that differ by what rounding makes of it, kinks included.
        self._rounding: collections.Counter[int] = collections.Counter()
        self._cohorts = 0
        # Of each task, those that ran compiled.
        self._compiled_cohorts: collections.Counter[int] = collections.Counter()
        self._processes = start_processes(
            "worker",
            functools.partial(_make_compiled_worker, tasks, data, _cores_of(start_processes, num_workers), str(scratch)),
            num_workers,
            scratch,
            preload=("odp_taskbuilder.simulation.compiled_worker",),
            readable=readable_data(data.values()),
        )

    def run(self, cohort: Cohort) -> CohortResult:
        """As Engine.

        Raises:
          UnsupportedOpsError: the client plan cannot be compiled, and must be.
          ArtifactError: a client's compiled update is not the interpreter's, or too many cannot be compared. Where the plan need not be
            compiled, the interpreter may run it instead.
        """
        self._cohorts += 1
        task_id = cohort.task_id
        first = task_id not in self._is_compiled
        timed = first and not self._must_compile and task_id not in self._former
        if first:
            self._is_compiled[task_id] = self._former.get(task_id, True) and self._can_compile(cohort)
        was_compiled = self._is_compiled[task_id]
        if not was_compiled:
            sessions = deal_evenly(cohort)
            results = self._processes.run(sessions)
        else:
            shares = self._deal(cohort.client_ids)
            sessions = self._compiled_sessions(cohort, shares, timed=timed)
            results = self._processes.run(sessions, children=[position for position, share in enumerate(shares) if share])
            different = next((result.different for result in results if result.different is not None), None)
            if different is not None:
                self._give_up_compiling(task_id, different, may_go_on=timed or self._rounding[task_id] > 0)
                sessions = deal_evenly(cohort)
                results = self._processes.run(sessions)
            else:
                if timed:
                    self._keep_the_faster(task_id, results)
                self._look_at_kinks(task_id, results)
        if first or self._is_compiled[task_id] != was_compiled:
            self._on_way(task_id, self._is_compiled[task_id])
        for result in results:
            self.share.add(result)
        return gathered(sessions, results, self._aggregated(cohort, sessions, results))

    def _aggregated(self, cohort: Cohort, sessions: Sequence[ClientSession], results: Sequence[SessionResult]) -> list[str]:
        """What is merged in place of the sums of sessions."""
        sums = tuple(session.partial for session, result in zip(sessions, results) if result.summed)
        if not sums:
            return []
        partial = f"{cohort.directory}/partial_sum"
        self._processes.run([AggregateSums(cohort.task_id, cohort.checkpoint, sums, partial)], children=[0])
        for path in sums:
            os.unlink(path)
        return [partial]

    def close(self) -> None:
        self._processes.close()

    @property
    def process_ids(self) -> list[int]:
        return self._processes.process_ids

    def _can_compile(self, cohort: Cohort) -> bool:
        (found,) = self._processes.run([TranslateTask(cohort.task_id, cohort.checkpoint)], children=[0])
        if found is None:
            return True
        what = f"{found.op} in the subgraph {found.subgraph!r}: {found.reason}"
        if self._must_compile:
            raise errors.UnsupportedOpsError(
                f"The client plan of task {cohort.task_id} cannot be compiled. {what}.",
                ops={found.op: found.reason},
                next_step="Run with --engine local, or --engine auto, which takes it where it must.",
            )
        self._on_notice(f"task {cohort.task_id} runs in the interpreter, as it cannot be compiled: {what}")
        return False

    def _compiled_sessions(self, cohort: Cohort, shares: Sequence[Sequence[str]], *, timed: bool) -> list[ClientSession]:
        """One session for each worker, in each of which at least one client is compared: random ones, others in every round."""
        digest = hashlib.sha256("\0".join(cohort.client_ids).encode()).digest()
        rng = generator(int.from_bytes(digest[:8], "big"), "compared clients", self._cohorts)
        busy = [share for share in shares if share]
        self._compiled_cohorts[cohort.task_id] += 1
        is_early = self._compiled_cohorts[cohort.task_id] <= _FIRST_COHORTS
        each = -(-max(_COMPARED_CLIENTS, _COMPARED_AT_FIRST if is_early else 0) // len(busy))
        sessions = []
        for number, share in enumerate(busy):
            chosen = rng.choice(len(share), min(each, len(share)), replace=False)
            compared = tuple(share[position] for position in chosen)
            sessions.append(cohort.session(number, share, compiled=True, compared=compared, timed=timed))
        return sessions

    def _deal(self, client_ids: Sequence[str]) -> list[list[str]]:
        """Shares of the same size up to one client, each client where it was before as far as that goes."""
        shares: list[list[str]] = [[] for _ in range(self._num_workers)]
        most = -(-len(client_ids) // self._num_workers)
        homeless = []
        for client_id in client_ids:
            home = self._homes.get(client_id)
            if home is None or len(shares[home]) == most:
                homeless.append(client_id)
            else:
                shares[home].append(client_id)
        for client_id in homeless:
            smallest = min(range(self._num_workers), key=lambda position: len(shares[position]))
            shares[smallest].append(client_id)
            self._homes[client_id] = smallest
        return shares

    def _give_up_compiling(self, task_id: int, different: Comparison, *, may_go_on: bool) -> None:
        """Leaves a task to the interpreter: in its first round, of which nothing is kept, and where the plan is one in which rounding was seen
        to make as much of a difference. Elsewhere former rounds may have been wrong."""
        allowed = (
            "it is rounded to codes in another way"
            if different.in_rounding
            else f"{MAX_DIFFERENCE:g} is allowed, and rounding does not explain it"
        )
        what = (
            f"the compiled update of client {different.client_id!r} is not the interpreter's: {different.tensor} differs by "
            f"{different.difference:.3g} of its L2 norm; {allowed}"
        )
        if self._must_compile or not may_go_on:
            raise errors.ArtifactError(
                f"Task {task_id}: {what}.",
                next_step="Run with --engine local, and report this: a translation of the compiled engine is wrong.",
            )
        self._is_compiled[task_id] = False
        self._on_notice(f"task {task_id} runs in the interpreter: {what}")

    def _look_at_kinks(self, task_id: int, results: Sequence[SessionResult]) -> None:
        """Leaves a task to the interpreter whose clients rounding sends two ways again and again."""
        on_kinks = sum(len(result.kinks) for result in results)
        self._kinks[task_id] += on_kinks
        self._rounding[task_id] += on_kinks + sum(comparison.amplified for result in results for comparison in result.comparisons)
        self._compared[task_id] += on_kinks + sum(len(result.comparisons) for result in results)
        kinks, compared = self._kinks[task_id], self._compared[task_id]
        if kinks < _MANY_KINKS or _COMPARED_PER_KINK * kinks <= compared:
            return
        what = f"rounding sends {kinks} of {compared} compared clients another way"
        if self._must_compile:
            raise errors.ArtifactError(
                f"Compiled updates of task {task_id} cannot be checked: {what}.", next_step="Run with --engine local."
            )
        self._is_compiled[task_id] = False
        self._on_notice(f"task {task_id} runs in the interpreter from now on: {what}")

    def _keep_the_faster(self, task_id: int, results: Sequence[SessionResult]) -> None:
        compiled = [result.seconds_compiled for result in results if result.seconds_compiled is not None]
        interpreted = [seconds for result in results for seconds in result.client_seconds]
        if not compiled or not interpreted:
            return
        ratio = min(interpreted) / min(compiled)
        self._is_compiled[task_id] = ratio > 1
        way = "runs compiled" if ratio > 1 else "runs in the interpreter from now on"
        self._on_notice(
            f"task {task_id} {way}: a client takes {_milliseconds(min(compiled))} compiled, "
            f"{_milliseconds(min(interpreted))} in the interpreter"
        )


def has_jax() -> bool:
    return importlib.util.find_spec("jax") is not None and importlib.util.find_spec("jaxlib") is not None


def make_auto_engine(
    tasks: Mapping[int, DeployedTask],
    data: Data,
    num_workers: int,
    scratch: pathlib.Path,
    *,
    clients: int,
    on_notice: Callable[[str], None],
    on_way: OnWay = lambda task_id, compiled: None,
    former: Mapping[int, bool] = types.MappingProxyType({}),
    start_processes: StartProcesses = ChildProcesses,
) -> Union[LocalEngine, CompiledEngine]:
    """The engine that is likely to be done first: compiled, unless the run is short. A run that is resumed goes on as it was.

    Args:
      clients: that the whole run has, about.
      on_notice: told which it is, and why.
      on_way, former: as of CompiledEngine.
    """
    reason = None
    if not has_jax():
        reason = "JAX is not installed"
    elif former and not any(former.values()):
        reason = "so did those of the rounds that are there"
    elif not former and clients < _MIN_COMPILED_CLIENTS:
        reason = f"{clients:,} are done before their plan is compiled"
    if reason is not None:
        on_notice(f"clients run in the interpreter: {reason}")
        for task_id in tasks:
            on_way(task_id, False)
        return LocalEngine(tasks, data, num_workers, scratch, start_processes)
    if former:
        on_notice("clients run compiled, as those of the rounds that are there")
    return CompiledEngine(
        tasks,
        data,
        num_workers,
        scratch,
        must_compile=False,
        on_notice=on_notice,
        on_way=on_way,
        former=former,
        start_processes=start_processes,
    )


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"


def _cores_of(start_processes: StartProcesses, num_workers: int) -> Optional[int]:
    """How many cores workers may have for themselves. A process that is shared is not ours to pin to one."""
    return num_workers if start_processes is ChildProcesses else None


def _make_worker(tasks: Mapping[int, DeployedTask], data: Data, num_workers: Optional[int], scratch: str, position: int) -> ClientWorker:
    # TensorFlow's threads hand a client over to each other at every step: on one core that takes a sixth less.
    _stay_on_one_core(num_workers, position)
    from odp_taskbuilder.simulation.worker import ClientWorker

    return ClientWorker(WorkerSetup(tasks, data, str(_workers_directory(scratch, position))))


def _make_compiled_worker(
    tasks: Mapping[int, DeployedTask], data: Data, num_workers: Optional[int], scratch: str, position: int
) -> CompiledWorker:
    # The weights of a client stay in the caches of one core.
    _stay_on_one_core(num_workers, position)
    from odp_taskbuilder.simulation.compiled_worker import CompiledWorker

    return CompiledWorker(WorkerSetup(tasks, data, str(_workers_directory(scratch, position))))


def _stay_on_one_core(num_workers: Optional[int], position: int) -> None:
    """Pins this process, where there is a core for each worker."""
    # macOS has no way to say so.
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if num_workers is not None and num_workers <= len(cores):
        os.sched_setaffinity(0, {cores[position]})


def _workers_directory(scratch: str, position: int) -> pathlib.Path:
    directory = pathlib.Path(scratch, f"worker_{position}")
    # A worker that died left its files; they are written again.
    directory.mkdir(exist_ok=True)
    return directory
