"""The server's part of a Plan in DistributeAggregate form (spec: plan.md, sections 1.3 and 5)."""

from __future__ import annotations

import functools
import os
import pathlib
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any, Optional, Union

import numpy as np
import tensorflow as tf

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts.checkpoint_reader import open_checkpoint
from odp_taskbuilder.plan.checkpoint import CheckpointTensor, write_checkpoint
from odp_taskbuilder.proto import plan_pb2
from odp_taskbuilder.runtime.graph_session import GraphSessions, metric_value
from odp_taskbuilder.runtime.seeded_noise import seed_feed

Path = Union[str, "os.PathLike[str]"]


class DistributeAggregateServer:
    """Runs the plan's two graphs, and its aggregations in place of the native core; see `server_runtime` for the order of a round.

    The core's partial results travel in a serialization of its own; here they are checkpoints like its final report.
    """

    def __init__(self, plan: plan_pb2.Plan, *, keep_session: bool = False, seed_noise: bool = False):
        self._phase = plan.phase[0].server_phase_v2
        self._prepare = GraphSessions(plan.server_graph_prepare_bytes.value, keep=keep_session)
        self._result = GraphSessions(plan.server_graph_result_bytes.value, keep=keep_session, seed_noise=seed_noise)
        # Name in a client's update -> what the aggregate calls it, with dtype and shape.
        self._sums = {}
        for aggregation in self._phase.aggregations:
            inputs = [argument.input_tensor for argument in aggregation.intrinsic_args if argument.HasField("input_tensor")]
            if aggregation.intrinsic_uri != "federated_sum" or len(inputs) != 1 or len(aggregation.output_tensors) != 1:
                raise errors.ArtifactError(
                    f"The plan asks for the aggregation {aggregation.intrinsic_uri!r} with {len(inputs)} inputs; the server would refuse it."
                )
            self._sums[inputs[0].name] = aggregation.output_tensors[0]

    def close(self) -> None:
        """Ends the sessions that `keep_session` kept."""
        self._prepare.close()
        self._result.close()

    def write_client_checkpoint(self, server_checkpoint: Path, client_checkpoint: Path) -> None:
        """Writes what devices download, from a server checkpoint."""
        with tempfile.TemporaryDirectory() as scratch:
            self._run_prepare(server_checkpoint, client_checkpoint, pathlib.Path(scratch, "intermediate_state"))

    def aggregate_updates(self, updates: Iterable[Path], partial: Path) -> None:
        """One aggregator: sums client updates, each read before the next one is asked for, and writes the partial sum."""
        self._sum(updates, {name: name for name in self._sums}, partial)

    def merge_partials(self, partials: Sequence[Path], partial: Path) -> None:
        """One aggregator of the next layer: sums partial sums and writes one."""
        self._sum(partials, {name: output.name for name, output in self._sums.items()}, partial)

    def apply(
        self, server_checkpoint: Path, partials: Sequence[Path], new_server_checkpoint: Path, *, noise_seed: Optional[int] = None
    ) -> dict[str, float]:
        """The model updater: applies partial sums to the server state, and returns the round's metrics.

        Args:
          noise_seed: needed by a server whose noise is seeded, and by no other.
        """
        router = self._phase.result_router
        with tempfile.TemporaryDirectory() as scratch:
            aggregate, state, unused = (pathlib.Path(scratch, name) for name in ("aggregate", "intermediate_state", "client"))
            self.merge_partials(partials, aggregate)
            # The intermediate state was not kept from the start of the round: the server computes it again.
            self._run_prepare(server_checkpoint, unused, state)
            feed = {
                router.result_intermediate_state_input_filepath_tensor_name: os.fspath(state),
                router.result_aggregate_result_input_filepath_tensor_name: os.fspath(aggregate),
                router.result_server_state_output_filepath_tensor_name: os.fspath(new_server_checkpoint),
                **({} if noise_seed is None else seed_feed(noise_seed)),
            }
            metrics = [tensor.name for tensor in self._phase.tensorflow_spec_result.output_tensor_specs]
            values = self._run(self._result, self._phase.tensorflow_spec_result, feed, metrics)
        return {name.split(":")[0]: metric_value(value) for name, value in zip(metrics, values)}

    def _run_prepare(self, server_checkpoint: Path, client_checkpoint: Path, intermediate_state: Path) -> None:
        router = self._phase.prepare_router
        feed = {
            router.prepare_server_state_input_filepath_tensor_name: os.fspath(server_checkpoint),
            router.prepare_output_filepath_tensor_name: os.fspath(client_checkpoint),
            router.prepare_intermediate_state_output_filepath_tensor_name: os.fspath(intermediate_state),
        }
        self._run(self._prepare, self._phase.tensorflow_spec_prepare, feed, [])

    def _run(self, sessions: GraphSessions, spec: plan_pb2.TensorflowSpec, feed: dict[str, Any], fetches: list[str]) -> list:
        with sessions.session() as session:
            targets = [sessions.graph.get_operation_by_name(name) for name in spec.target_node_names]
            return session.run([*fetches, *targets], feed_dict=feed)[: len(fetches)]

    def _sum(self, files: Iterable[Path], names: dict[str, str], output: Path) -> None:
        """Adds up tensors of checkpoints, in the order of the files and in the tensors' own precision.

        Args:
          names: name in a client's update -> name in these files.
        """
        sums: dict[str, np.ndarray] = {}
        for path in files:
            with open_checkpoint(path) as checkpoint:
                for update_name, name in names.items():
                    value = self._checked(checkpoint.read(name), update_name, path)
                    sums[update_name] = value if update_name not in sums else sums[update_name] + value
        tensors = []
        for update_name, spec in self._sums.items():
            shape = tuple(dim.size for dim in spec.shape.dim)
            value = sums.get(update_name, np.zeros(shape, tf.as_dtype(spec.dtype).as_numpy_dtype))
            tensors.append(CheckpointTensor(spec.name, spec.dtype, shape, functools.partial(np.asarray, value)))
        with open(output, "wb") as file:
            write_checkpoint(file, tensors)

    def _checked(self, value: np.ndarray, update_name: str, path: Path) -> np.ndarray:
        spec = self._sums[update_name]
        shape = tuple(dim.size for dim in spec.shape.dim)
        if value.shape != shape or value.dtype != tf.as_dtype(spec.dtype).as_numpy_dtype:
            raise errors.ArtifactError(
                f"{path}: {update_name} is {value.dtype}{list(value.shape)}, the plan aggregates {tf.as_dtype(spec.dtype).name}{list(shape)}."
            )
        return value
