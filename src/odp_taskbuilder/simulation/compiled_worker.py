"""A worker process that runs clients in compiled programs, and asks the interpreter about some of them.

Nothing is taken on trust. Of some clients of a session each tensor of the compiled update is compared with the interpreter's (comparison);
that the server plan's aggregation adds updates up, so that their sum may take the place of all of them, is tried out on one of them.
"""

from __future__ import annotations

import collections
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, Optional, Union

import numpy as np
import tensorflow as tf

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts.coded_tensors import decoded
from odp_taskbuilder.base.phone_limits import MAX_EXAMPLE_BYTES
from odp_taskbuilder.data.part import DataPart
from odp_taskbuilder.proto import plan_pb2
from odp_taskbuilder.simulation.comparison import DifferentError, RoundedTensor, compare_rounding, compared
from odp_taskbuilder.simulation.jobs import (
    AggregateSums,
    BadClient,
    ClientSession,
    Comparison,
    SessionResult,
    TranslateTask,
    UntranslatedOp,
    WorkerSetup,
)
from odp_taskbuilder.simulation.update_sums import Tensors, adds_up, adds_up_decoded, coded_sums, read_tensors, write_tensors
from odp_taskbuilder.simulation.worker import ClientWorker, TaskClients

# XLA reads it when it compiles its first program: a worker has one core.
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_cpu_multi_thread_eigen=false", "intra_op_parallelism_threads=1"]
).strip()

from odp_taskbuilder.compiled.client_program import WILD_MAGNITUDE, ClientProgram, Sums, integer_bytes  # noqa: E402
from odp_taskbuilder.compiled.translation import Untranslatable  # noqa: E402

# Parsed examples that a worker keeps for the next time that a client takes part.
_MAX_CACHE_BYTES = 128 << 20
# Serialized examples that are parsed at a time.
_MAX_BLOCK_BYTES = 16 << 20
_TIMED_CLIENTS = 64

Examples = tuple[np.ndarray, ...]
# The data argument and the client.
_Key = tuple[Union[str, DataPart], str]


class CompiledWorker:
    """Runs sessions like ClientWorker, compiled where a session asks for it."""

    def __init__(self, setup: WorkerSetup):
        self.scratch = pathlib.Path(setup.scratch)
        self.cache = _Cache()
        self.tasks = {
            task_id: _CompiledTask(
                plan_pb2.ClientOnlyPlan.FromString(task.client_only_plan).tflite_graph, setup.data[task_id]
            )
            for task_id, task in setup.tasks.items()
        }
        watched = {
            task_id: [rounding.unrounded for rounding in task.program.roundings]
            for task_id, task in self.tasks.items()
            if task.program is not None
        }
        self.interpreter = ClientWorker(setup, watched)

    def __call__(self, job: Union[ClientSession, AggregateSums, TranslateTask]) -> Union[SessionResult, Optional[UntranslatedOp]]:
        """Runs a session, aggregates the sums of sessions, or tells whether a task can be compiled.

        Raises:
          OdpTaskError: as ClientWorker.
        """
        if isinstance(job, AggregateSums):
            self._aggregate(job)
            return None
        if isinstance(job, TranslateTask):
            return self.tasks[job.task_id].untranslated(read_tensors(job.checkpoint))
        if not job.compiled:
            return self.interpreter(job)
        try:
            return _CompiledSession(self, job).run()
        except DifferentError as found:
            return SessionResult(reports=0, update_bytes=0, different=found.comparison)

    def _aggregate(self, job: AggregateSums) -> None:
        """Adds up sums and gives the plan one: as an update under the names, in the dtypes and shapes of the plan's; of codes it takes two."""
        program = self.tasks[job.task_id].program
        total: dict[str, np.ndarray] = {}
        for path in job.sums:
            _add(total, read_tensors(path))
        like = {
            tensor.name: np.broadcast_to(np.zeros((), tensor.dtype), tensor.shape)
            for tensor in program.update(read_tensors(job.checkpoint))
        }
        if program.roundings:
            parts = coded_sums(total, like)
        else:
            parts = [{name: total[name].astype(tensor.dtype).reshape(tensor.shape) for name, tensor in like.items()}]
        paths = [self.scratch / f"sum_{number}" for number in range(len(parts))]
        for file, part in zip(paths, parts):
            write_tensors(file, part)
        self.interpreter.tasks[job.task_id].aggregator.aggregate_updates(paths, job.partial)


class _CompiledTask:
    """What compiled sessions of a task share.

    Attributes:
      program: None where the plan cannot be followed from examples to batches.
      data: the data argument, which tells clients of the same id apart.
      adds_up: whether the server plan's aggregation of two updates is that of their sum; None while nobody knows.
    """

    def __init__(self, flatbuffer: bytes, data: Union[str, DataPart]):
        self.data = data
        self.adds_up: Optional[bool] = None
        self.program: Optional[ClientProgram] = None
        self._untranslated: Optional[UntranslatedOp] = None
        try:
            self.program = ClientProgram(flatbuffer)
        except Untranslatable as found:
            self._untranslated = UntranslatedOp(found.op, found.subgraph, found.reason)

    def untranslated(self, checkpoint: Tensors) -> Optional[UntranslatedOp]:
        if self.program is not None:
            try:
                self.program.check(checkpoint)
            except Untranslatable as found:
                return UntranslatedOp(found.op, found.subgraph, found.reason)
        return self._untranslated


class _CompiledSession:
    """One session under way."""

    def __init__(self, worker: CompiledWorker, session: ClientSession):
        self._worker = worker
        self._interpreter = worker.interpreter
        self._session = session
        self._task = worker.tasks[session.task_id]
        self._clients: TaskClients = worker.interpreter.tasks[session.task_id]
        self._checkpoint = read_tensors(session.checkpoint)
        # Clients that the interpreter has to run: some are wild, of others it says what is wrong with them.
        self._odd: list[str] = []
        self._bad: list[BadClient] = []
        self._comparisons: list[Comparison] = []
        self._kinks: list[str] = []
        self._compiled = self._reports = 0
        # Of all compiled updates, and of a single one without its integers, which take more bytes the larger they are.
        self._integer_bytes = 0
        self._file_bytes = 0
        self._interpreted_bytes = 0
        self._oversized = 0
        worker.interpreter.begin()
        self._compiled_seconds: Optional[float] = None
        self._example_update: Optional[Tensors] = None

    def run(self) -> SessionResult:
        session = self._session
        if self._task.adds_up is False:
            self._clients.aggregator.aggregate_updates(self._one_by_one(), session.partial)
            return self._result()
        total = self._sum_of_compiled()
        if self._example_update is None:
            # None of the clients can be compiled.
            return self._interpreter(session)
        if self._task.adds_up is None:
            tried = adds_up_decoded if self._task.program.roundings else adds_up
            self._task.adds_up = tried(self._clients.aggregator, self._example_update, self._worker.scratch)
            if not self._task.adds_up:
                return _CompiledSession(self._worker, session).run()
        for update in self._odd_updates():
            _add(total, decoded(read_tensors(update)))
        write_tensors(session.partial, total)
        return self._result(summed=self._reports > 0)

    def _result(self, *, summed: bool = False) -> SessionResult:
        return SessionResult(
            reports=self._reports,
            update_bytes=self._interpreted_bytes + self._compiled * self._file_bytes + self._integer_bytes,
            bad_clients=tuple(self._bad),
            compiled=self._compiled,
            comparisons=tuple(self._comparisons),
            kinks=tuple(self._kinks),
            seconds_compiled=self._compiled_seconds,
            summed=summed,
            client_seconds=tuple(self._interpreter.seconds),
            oversized_examples=self._oversized,
            zeroed_clients=self._interpreter.zeroed,
        )

    def _sum_of_compiled(self) -> dict[str, np.ndarray]:
        """Adds up all clients that can be compiled, and compares some."""
        session, program = self._session, self._task.program
        total: dict[str, np.ndarray] = {}
        for client_ids, clients in self._blocks():
            sums = program.sums(self._checkpoint, clients)
            wild = set(sums.wild)
            _add(total, sums.tensors)
            self._odd += [client_ids[position] for position in sums.wild]
            tame = [position for position in range(len(clients)) if position not in wild]
            self._compiled += len(tame)
            self._integer_bytes += sums.integer_bytes
            chosen = [position for position in tame if client_ids[position] in session.compared]
            # One update must be seen, also where those that were to be compared are wild.
            for position in chosen or tame[: self._example_update is None]:
                own = self._compare(client_ids[position], clients[position])
                if own is not None:
                    self._take_out(client_ids[position], own, total)
            if session.timed and self._compiled_seconds is None and tame:
                self._compiled_seconds = self._time([clients[position] for position in tame[:_TIMED_CLIENTS]])
        self._reports += self._compiled
        return total

    def _one_by_one(self) -> Iterator[pathlib.Path]:
        """The updates of all clients, one after the other in a file: for aggregations that do more than add up."""
        path = self._worker.scratch / "compiled_update"
        for client_ids, clients in self._blocks():
            for client_id, examples in zip(client_ids, clients):
                sums = self._task.program.sums(self._checkpoint, [examples])
                if sums.wild:
                    self._odd.append(client_id)
                    continue
                is_compared = client_id in self._session.compared or self._example_update is None
                if is_compared and self._compare(client_id, examples) is not None:
                    self._odd.append(client_id)
                    continue
                self._compiled += 1
                self._integer_bytes += sums.integer_bytes
                self._reports += 1
                write_tensors(path, self._task.program.single(self._checkpoint, examples).saved)
                yield path
        yield from self._odd_updates()

    def _odd_updates(self) -> Iterator[pathlib.Path]:
        for client_id in self._odd:
            failure = self._interpreter.run_client(self._session, client_id)
            if failure is None:
                self._interpreted_bytes += os.path.getsize(self._interpreter.update_file)
                self._reports += 1
                yield pathlib.Path(self._interpreter.update_file)
            elif self._session.skip_bad_clients:
                self._bad.append(BadClient(client_id, failure.message))
            else:
                raise failure

    def _compare(self, client_id: str, examples: Examples) -> Optional[Sums]:
        """Runs a client in both ways. Returns its compiled update if it lies on a kink, where both ways are right.

        Raises:
          DifferentError: its updates differ, and rounding does not explain it.
          ArtifactError: the interpreter cannot run it.
        """
        program = self._task.program
        own = program.sums(self._checkpoint, [examples])
        failure = None
        for _ in range(1 + self._session.timed):
            failure = failure or self._interpreter.run_client(self._session, client_id)
        if failure is not None:
            raise errors.ArtifactError(
                f"Client {client_id!r} runs compiled, and fails in the interpreter: {failure.message}", next_step="Run with --engine local."
            )
        update = read_tensors(self._interpreter.update_file)
        self._file_bytes = os.path.getsize(self._interpreter.update_file) - integer_bytes(update)
        self._example_update = update
        watched = self._clients.device.watched_values()
        comparison = compared_client(program, client_id, self._checkpoint, examples, own, update, watched)
        if comparison is None:
            self._kinks.append(client_id)
            return own
        self._comparisons.append(comparison)
        return None

    def _take_out(self, client_id: str, own: Sums, total: dict[str, np.ndarray]) -> None:
        """Takes a client out of the compiled sum; the interpreter runs it instead."""
        _add(total, {name: -value for name, value in own.tensors.items()})
        self._compiled -= 1
        self._integer_bytes -= own.integer_bytes
        self._odd.append(client_id)

    def _time(self, clients: Sequence[Examples]) -> float:
        """Seconds that a client takes, once its program is compiled."""
        start = time.perf_counter()
        self._task.program.sums(self._checkpoint, clients)
        return (time.perf_counter() - start) / len(clients)

    def _blocks(self) -> Iterator[tuple[list[str], list[Examples]]]:
        """Yields clients with their parsed examples, as many at a time as fit. Clients that do not parse are put to the odd ones."""
        client_ids: list[str] = []
        found: list[Union[Examples, list[bytes]]] = []
        kept: Any
        size = 0
        for client_id in self._session.client_ids:
            entry = self._worker.cache.get((self._task.data, client_id))
            if entry is not None:
                kept, oversized = entry
                self._oversized += oversized
            else:
                try:
                    kept = list(self._clients.data.examples(client_id))
                except errors.OdpTaskError:
                    kept = []
                if not kept:
                    self._odd.append(client_id)
                    continue
                size += sum(map(len, kept))
                self._oversized += _oversized(kept)
            client_ids.append(client_id)
            found.append(kept)
            if size > _MAX_BLOCK_BYTES:
                yield self._parsed(client_ids, found)
                client_ids, found, size = [], [], 0
        if client_ids:
            yield self._parsed(client_ids, found)

    def _parsed(
        self, client_ids: Sequence[str], found: Sequence[Union[Examples, list[bytes]]]
    ) -> tuple[list[str], list[Examples]]:
        new = [(client_id, examples) for client_id, examples in zip(client_ids, found) if isinstance(examples, list)]
        parsed = dict(zip((client_id for client_id, _ in new), self._parse([examples for _, examples in new])))
        names, clients = [], []
        for client_id, examples in zip(client_ids, found):
            if isinstance(examples, list):
                oversized = _oversized(examples)
                examples = parsed[client_id]
                if examples is None:
                    self._odd.append(client_id)
                    continue
                self._worker.cache.put((self._task.data, client_id), examples, oversized)
            names.append(client_id)
            clients.append(examples)
        return names, clients

    def _parse(self, clients: Sequence[Sequence[bytes]]) -> list[Optional[Examples]]:
        """Of each client the features of its examples, by the kernel that the plan names; None if they do not parse, or are so large
        that TFLite's arithmetic counts."""
        if not clients:
            return []
        features = self._task.program.features
        serialized = [example for examples in clients for example in examples]
        try:
            columns = tf.io.parse_example(
                serialized, {feature.name: tf.io.FixedLenFeature(feature.shape, feature.dtype) for feature in features}
            )
        except tf.errors.InvalidArgumentError:
            if len(clients) == 1:
                return [None]
            return [result for examples in clients for result in self._parse([examples])]
        ends = np.cumsum([len(examples) for examples in clients])[:-1]
        split = [np.split(columns[feature.name].numpy(), ends) for feature in features]
        return [examples if _is_tame(examples) else None for examples in zip(*split)]


class _Cache:
    """Parsed examples by client, and how many of them are oversized: the clients that took part last."""

    def __init__(self) -> None:
        self._entries: collections.OrderedDict[_Key, tuple[Examples, int]] = collections.OrderedDict()
        self._num_bytes = 0

    def get(self, key: _Key) -> Optional[tuple[Examples, int]]:
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: _Key, examples: Examples, oversized: int) -> None:
        # Of its own, not a view of all that were parsed at the time.
        examples = tuple(array.copy() for array in examples)
        self._entries[key] = (examples, oversized)
        self._num_bytes += sum(array.nbytes for array in examples)
        while self._num_bytes > _MAX_CACHE_BYTES:
            _, (oldest, _) = self._entries.popitem(last=False)
            self._num_bytes -= sum(array.nbytes for array in oldest)


def compared_client(
    program: ClientProgram,
    client_id: str,
    checkpoint: Tensors,
    examples: Examples,
    own: Sums,
    update: Tensors,
    watched: Sequence[np.ndarray],
) -> Optional[Comparison]:
    """Compares a client's compiled update with the interpreter's. None if they differ because the client lies on a kink.

    Args:
      own: of this client alone.
      update: the interpreter's.
      watched: what the plan rounds of it (ClientProgram.roundings), in the interpreter and before it is rounded.

    Raises:
      DifferentError: they differ, and rounding does not explain it.
    """

    def run(checkpoint: Tensors) -> Optional[Tensors]:
        if program.roundings:
            single = program.single(checkpoint, examples)
            return None if single is None else single.unrounded
        sums = program.sums(checkpoint, [examples])
        return None if sums.wild else sums.tensors

    if not program.roundings:
        return compared(client_id, checkpoint, own.tensors, update, run)
    interpreted = decoded(update)
    unrounded = {**interpreted, **{rounding.name: value for rounding, value in zip(program.roundings, watched)}}
    own_unrounded = run(checkpoint)
    if own_unrounded is None:
        # Right at the magnitude that makes a client wild.
        return None
    comparison = compared(client_id, checkpoint, own_unrounded, unrounded, run)
    # Of a client on a kink the interpreter's update is taken.
    taken, taken_unrounded = (own.tensors, own_unrounded) if comparison else (interpreted, unrounded)
    tensors = {
        name: RoundedTensor(taken[name], interpreted[name], taken_unrounded[name], unrounded[name], again, step)
        for name, (again, step) in program.rounded(unrounded).items()
    }
    compare_rounding(client_id, tensors)
    return comparison


def _oversized(examples: Sequence[bytes]) -> int:
    return sum(len(example) > MAX_EXAMPLE_BYTES for example in examples)


def _is_tame(examples: Examples) -> bool:
    return all(array.dtype.kind != "f" or bool(np.all(np.abs(array) < WILD_MAGNITUDE)) for array in examples)


def _add(total: dict[str, np.ndarray], tensors: Tensors) -> None:
    for name, value in tensors.items():
        wide = value.astype(np.float64 if value.dtype.kind == "f" else np.int64)
        total[name] = wide if name not in total else total[name] + wide
