"""The server's part of a Plan in MapReduce form (spec: plan.md, sections 1.2 and 4)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Optional, Union

import tensorflow as tf

from odp_taskbuilder.proto import plan_pb2
from odp_taskbuilder.runtime.graph_session import GraphSessions, metric_value
from odp_taskbuilder.runtime.seeded_noise import seed_feed

Path = Union[str, "os.PathLike[str]"]


class MapReduceServer:
    """Runs the one stateful graph of the plan; see `server_runtime` for the order of a round."""

    def __init__(self, plan: plan_pb2.Plan, *, keep_session: bool = False, seed_noise: bool = False):
        self._savepoint = plan.server_savepoint
        self._phase = plan.phase[0].server_phase
        self._sessions = GraphSessions(plan.server_graph_bytes.value, keep=keep_session, seed_noise=seed_noise)

    def close(self) -> None:
        """Ends the session that `keep_session` kept."""
        self._sessions.close()

    def write_client_checkpoint(self, server_checkpoint: Path, client_checkpoint: Path) -> None:
        """Writes what devices download, from a server checkpoint."""
        with self._sessions.session() as session:
            self._restore(session, self._savepoint, server_checkpoint)
            self._save(session, self._phase.write_client_init, client_checkpoint)

    def aggregate_updates(self, updates: Iterable[Path], partial: Path) -> None:
        """One aggregator: sums client updates, each read before the next one is asked for, and writes the intermediate update."""
        with self._sessions.session() as session:
            self._run(session, self._phase.phase_init_op)
            for update in updates:
                self._restore(session, self._phase.read_update, update)
                self._run(session, self._phase.aggregate_into_accumulators_op)
            self._save(session, self._phase.write_intermediate_update, partial)

    def merge_partials(self, partials: Sequence[Path], partial: Path) -> None:
        """One aggregator of the next layer: sums intermediate updates and writes one."""
        with self._sessions.session() as session:
            self._run(session, self._phase.phase_init_op)
            self._merge(session, partials)
            self._save(session, self._phase.write_intermediate_update, partial)

    def apply(
        self, server_checkpoint: Path, partials: Sequence[Path], new_server_checkpoint: Path, *, noise_seed: Optional[int] = None
    ) -> dict[str, float]:
        """The model updater: applies intermediate updates to the server state, and returns the round's metrics.

        Args:
          noise_seed: needed by a server whose noise is seeded, and by no other.
        """
        seed = {} if noise_seed is None else seed_feed(noise_seed)
        with self._sessions.session() as session:
            self._restore(session, self._savepoint, server_checkpoint)
            self._run(session, self._phase.phase_init_op)
            self._merge(session, partials)
            self._run(session, self._phase.apply_aggregrated_updates_op, seed)
            self._save(session, self._savepoint, new_server_checkpoint)
            tensors = [metric.variable_name for metric in self._phase.metrics]
            values = session.run(tensors)
        return {metric.stat_name: metric_value(value) for metric, value in zip(self._phase.metrics, values)}

    def _merge(self, session: tf.compat.v1.Session, partials: Sequence[Path]) -> None:
        for partial in partials:
            self._restore(session, self._phase.read_intermediate_update, partial)
            self._run(session, self._phase.intermediate_aggregate_into_accumulators_op)

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
            session.run(self._sessions.graph.get_operation_by_name(target), feed_dict=feed)
