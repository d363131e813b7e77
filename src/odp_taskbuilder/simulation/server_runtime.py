"""Executing the server's part of a Plan from the emitted files alone, in the order in which the server drives it.

A round is: `write_client_checkpoint`, the clients, `aggregate_updates` in as many sessions as there are aggregators, optionally
`merge_partials`, `apply`. Everything goes in and out as files, as on the server (spec: plan.md, sections 1.2, 1.3 and 4.6).
"""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import tempfile
from collections.abc import Iterable, Sequence
from typing import Callable, Optional, Union

import tensorflow as tf

from odp_taskbuilder import errors
from odp_taskbuilder.proto import plan_pb2

Path = Union[str, "os.PathLike[str]"]


def load_plan(path: Path) -> plan_pb2.Plan:
    """Reads a Plan from a file.

    Raises:
      errors.StorageError: it cannot be read.
      errors.ArtifactError: it is none.
    """
    try:
        plan = plan_pb2.Plan.FromString(pathlib.Path(path).read_bytes())
    except OSError as error:
        raise errors.StorageError(f"Cannot read {path}: {error.strerror}.") from error
    except Exception as error:  # noqa: BLE001: protobuf's DecodeError has no public module of its own in every release.
        raise errors.ArtifactError(f"{path} is no Plan: {error}") from error
    if len(plan.phase) != 1:
        raise errors.ArtifactError(f"{path} is no Plan that a server would run: it has {len(plan.phase)} phases, not 1.")
    return plan


class MapReduceServer:
    """The server's part of a Plan in MapReduce form.

    Importing the graph costs about 0.1 s. Every public method runs in a session of its own, as the server's roles share nothing but files;
    that costs about 50 ms each. With `keep_session` they run in one session, a few milliseconds each; `close` ends it. The
    results are the same, because every role loads or initializes what it reads.
    """

    def __init__(self, plan: plan_pb2.Plan, *, keep_session: bool = False):
        self._keep_session = keep_session
        self._kept: Optional[tf.compat.v1.Session] = None
        self._savepoint = plan.server_savepoint
        self._phase = plan.phase[0].server_phase
        self._graph = tf.Graph()
        try:
            graph_def = tf.compat.v1.GraphDef.FromString(plan.server_graph_bytes.value)
            with self._graph.as_default():
                tf.import_graph_def(graph_def, name="")
        except Exception as error:  # noqa: BLE001: importing raises what a broken graph makes it stumble over.
            raise errors.ArtifactError(f"The plan's server graph cannot be imported: {error}") from error

    def write_client_checkpoint(self, server_checkpoint: Path, client_checkpoint: Path) -> None:
        """Writes what devices download, from a server checkpoint."""
        with self._session() as session:
            self._restore(session, self._savepoint, server_checkpoint)
            self._save(session, self._phase.write_client_init, client_checkpoint)

    def aggregate_updates(self, updates: Iterable[Path], partial: Path) -> None:
        """One aggregator: sums client updates, each read before the next one is asked for, and writes the intermediate update."""
        with self._session() as session:
            self._run(session, self._phase.phase_init_op)
            for update in updates:
                self._restore(session, self._phase.read_update, update)
                self._run(session, self._phase.aggregate_into_accumulators_op)
            self._save(session, self._phase.write_intermediate_update, partial)

    def merge_partials(self, partials: Sequence[Path], partial: Path) -> None:
        """One aggregator of the next layer: sums intermediate updates and writes one."""
        with self._session() as session:
            self._run(session, self._phase.phase_init_op)
            self._merge(session, partials)
            self._save(session, self._phase.write_intermediate_update, partial)

    def apply(self, server_checkpoint: Path, partials: Sequence[Path], new_server_checkpoint: Path) -> dict[str, float]:
        """The model updater: applies intermediate updates to the server state, and returns the round's metrics."""
        with self._session() as session:
            self._restore(session, self._savepoint, server_checkpoint)
            self._run(session, self._phase.phase_init_op)
            self._merge(session, partials)
            self._run(session, self._phase.apply_aggregrated_updates_op)
            self._save(session, self._savepoint, new_server_checkpoint)
            tensors = [metric.variable_name for metric in self._phase.metrics]
            values = session.run(tensors)
        return {metric.stat_name: _first(value) for metric, value in zip(self._phase.metrics, values)}

    def _merge(self, session: tf.compat.v1.Session, partials: Sequence[Path]) -> None:
        for partial in partials:
            self._restore(session, self._phase.read_intermediate_update, partial)
            self._run(session, self._phase.intermediate_aggregate_into_accumulators_op)

    def close(self) -> None:
        """Ends the session that `keep_session` kept."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    @contextlib.contextmanager
    def _session(self):
        session = self._kept or self._new_session()
        if self._keep_session:
            self._kept = session
        try:
            yield session
        except tf.errors.OpError as error:
            raise errors.ArtifactError(f"The plan's server graph failed: {error.message.splitlines()[0]}") from error
        finally:
            if not self._keep_session:
                session.close()

    def _new_session(self) -> tf.compat.v1.Session:
        config = tf.compat.v1.ConfigProto()
        # As the server does: nodes outside a run's closure are never placed, so they may even be unplaceable.
        config.graph_options.place_pruned_graph = True
        return tf.compat.v1.Session(graph=self._graph, config=config)

    def _restore(self, session: tf.compat.v1.Session, operation: plan_pb2.CheckpointOp, path: Path) -> None:
        feed = self._feed(operation, path)
        self._run(session, operation.before_restore_op, feed)
        if operation.HasField("saver_def"):
            self._run(session, operation.saver_def.restore_op_name, feed)
        self._run(session, operation.after_restore_op, feed)

    def _save(self, session: tf.compat.v1.Session, operation: plan_pb2.CheckpointOp, path: Path) -> None:
        feed = self._feed(operation, path)
        self._run(session, operation.before_save_op)
        if operation.HasField("saver_def"):
            self._run(session, operation.saver_def.save_tensor_name.split(":")[0], feed)
        self._run(session, operation.after_save_op)

    def _feed(self, operation: plan_pb2.CheckpointOp, path: Path) -> dict[str, str]:
        name = operation.saver_def.filename_tensor_name
        return {name: os.fspath(path)} if name else {}

    def _run(self, session: tf.compat.v1.Session, target: str, feed: Optional[dict] = None) -> None:
        if target:
            session.run(self._graph.get_operation_by_name(target), feed_dict=feed)


def _first(value) -> float:
    """What the server publishes of a metric: its first element as a double (spec: plan.md, section 5.2)."""
    return float(value.ravel()[0]) if hasattr(value, "ravel") else float(value)


def reduce_in_two_layers(inputs: Sequence[Path], reduce: Callable[[Sequence[Path], Path], None], directory: Path) -> list[Path]:
    """The first layer of the server's reduction of `inputs`: chunks of ceil(sqrt(n)), each reduced in its own session.

    Returns:
      The inputs of the second layer: `inputs` themselves when there is but one chunk, that is for one or two.
    """
    size = math.ceil(math.sqrt(len(inputs)))
    chunks = [inputs[start : start + size] for start in range(0, len(inputs), size)]
    if len(chunks) == 1:
        return list(inputs)
    outputs = []
    for chunk in chunks:
        handle, output = tempfile.mkstemp(dir=directory, suffix=".partial")
        os.close(handle)
        reduce(chunk, output)
        outputs.append(output)
    return outputs
