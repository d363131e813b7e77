"""The oracle: the same learning process in TensorFlow Federated's own runtime, on the same clients and checkpoints.

It shares with the plans what the process is composed of, and nothing of how they are written and run. No files travel, so it
reports no communication.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.data.part import DataPart
from odp_taskbuilder.simulation.deployment import Deployment
from odp_taskbuilder.simulation.jobs import named_after_client
from odp_taskbuilder.simulation.plan_rounds import RoundResult, require_checkpoint
from odp_taskbuilder.simulation.processes import ChildProcesses

if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_federated as tff


@dataclasses.dataclass(frozen=True)
class TffSetup:
    """What the oracle is composed from.

    Attributes:
      saved_model, task_config: what the artifacts were built from.
      data: data argument of each task's clients, by task id.
    """

    deployment: Deployment
    saved_model: pathlib.Path
    task_config: str
    data: Mapping[int, Union[str, DataPart]]


@dataclasses.dataclass(frozen=True)
class _TffRound:
    task_id: int
    server_checkpoint: str
    client_ids: tuple[str, ...]
    new_server_checkpoint: str


class TffRounds:
    """Runs rounds of a task in TFF (plan_rounds.RoundRunner)."""

    def __init__(self, setup: TffSetup, scratch: pathlib.Path):
        self._new_checkpoint = scratch / "server_checkpoint"
        # A process of its own: TFF's runtime starts another one, which would outlive this one.
        self._process = ChildProcesses("tff", functools.partial(_make_oracle, setup), 1, scratch)

    def run_round(self, task_id: int, number: int, server_checkpoint: pathlib.Path, client_ids: Sequence[str]) -> RoundResult:
        require_checkpoint(server_checkpoint)
        (metrics,) = self._process.run(
            [_TffRound(task_id, str(server_checkpoint), tuple(client_ids), str(self._new_checkpoint))]
        )
        return RoundResult(metrics, self._new_checkpoint, reports=len(client_ids))

    def close(self) -> None:
        self._process.close()


class _Oracle:
    def __init__(self, setup: TffSetup):
        from odp_taskbuilder.config import load_config, resolve
        from odp_taskbuilder.config.spec import ResolveOptions
        from odp_taskbuilder.data.open import open_client_data
        from odp_taskbuilder.learning import evaluation, preprocessing, training
        from odp_taskbuilder.model.load import load_model
        from odp_taskbuilder.privacy import privacy_budget
        from odp_taskbuilder.retracing import retrace_model

        deployment = setup.deployment
        skipped = deployment.privacy is None
        spec = resolve(load_config(setup.task_config), ResolveOptions(skip_dp_check=True, skip_dp_aggregator=skipped))
        privacy = (
            spec.privacy if skipped else dataclasses.replace(spec.privacy, noise_multiplier=deployment.privacy.noise_multiplier)
        )
        # TFF's runtime executes a placeholder that saved loops carry along.
        loaded, _ = retrace_model(load_model(setup.saved_model))
        model = training.with_metrics(loaded, spec.learning.metrics)
        process = training.training_process(model, spec, privacy_budget(privacy), deployment.compression)
        self._state_type = process.initialize.type_signature.result.member
        self._computations = {deployment.training.task_id: process.next}
        if deployment.evaluation is not None:
            self._computations[deployment.evaluation.task_id] = evaluation.evaluation_computation(
                model, self._state_type, deployment.compression
            )
        self._features = deployment.training.features
        self._data = {task_id: open_client_data(text, features=self._features) for task_id, text in setup.data.items()}
        self._parser = preprocessing.example_parser(loaded.input_spec, spec.label_name)
        self._dataset = spec.dataset

    def __call__(self, round_: _TffRound) -> dict[str, float]:
        from odp_taskbuilder.plan import naming
        from odp_taskbuilder.runtime.graph_session import metric_value

        computation = self._computations[round_.task_id]
        datasets = [self._client_dataset(round_.task_id, client_id) for client_id in round_.client_ids]
        new_state, metrics = computation(self._read_state(round_.server_checkpoint), datasets)
        self._write_state(new_state, round_.new_server_checkpoint)
        names = naming.leaves(computation.type_signature.result[1], naming.SERVER)
        return {leaf.name: metric_value(value) for leaf, value in zip(names, _flat(metrics))}

    def _client_dataset(self, task_id: int, client_id: str) -> tf.data.Dataset:
        import tensorflow as tf

        from odp_taskbuilder.simulation.worker import first_misfit

        data = self._data[task_id]
        try:
            examples = list(data.examples(client_id))
            misfit: Optional[str] = first_misfit(examples, self._features) if examples else "it has no examples."
            if misfit is not None:
                raise errors.UsageError(f"Client {client_id!r} ({data.location(client_id)}), {misfit}")
        except errors.OdpTaskError as error:
            raise named_after_client(error, client_id, next_step="Mend the data: --engine tff can skip no client.") from error
        serialized = tf.data.Dataset.from_tensor_slices(examples)
        batches = serialized.batch(self._dataset.batch_size).map(self._parser.parse).take(self._dataset.max_batches)
        if isinstance(self._parser.features, Mapping):
            # TFF serializes other mappings only where their names are in alphabetical order.
            batches = batches.map(lambda features, label: (collections.OrderedDict(features), label))
        return batches

    def _read_state(self, path: str) -> Any:
        from odp_taskbuilder.artifacts.checkpoint_reader import open_checkpoint
        from odp_taskbuilder.plan import naming

        with open_checkpoint(path) as checkpoint:
            values = [checkpoint.read(leaf.name) for leaf in naming.leaves(self._state_type, naming.SERVER)]
        return _structured(self._state_type, iter(values))

    def _write_state(self, state: Any, path: str) -> None:
        import numpy as np

        from odp_taskbuilder.plan import checkpoint, naming

        tensors = []
        for leaf, value in zip(naming.leaves(self._state_type, naming.SERVER), _flat(state)):
            array = np.asarray(value)
            tensors.append(
                checkpoint.CheckpointTensor(leaf.name, leaf.dtype.as_datatype_enum, array.shape, functools.partial(np.asarray, array))
            )
        with open(path, "wb") as file:
            checkpoint.write_checkpoint(file, tensors)


def _structured(tff_type: tff.Type, values: Iterator[Any]) -> Any:
    """The values as a TFF structure of a type, in the type's order."""
    import tensorflow_federated as tff

    if isinstance(tff_type, tff.StructType):
        return tff.structure.Struct(
            [(name, _structured(element, values)) for name, element in tff.structure.iter_elements(tff_type)]
        )
    value = next(values)
    return value.item() if value.dtype == object else value


def _flat(value: Any) -> list[Any]:
    """The tensors of whatever container TFF returns, in its type's order."""
    import tensorflow_federated as tff

    return tff.structure.flatten(tff.structure.from_container(value, recursive=True))


def _make_oracle(setup: TffSetup, position: int) -> _Oracle:
    return _Oracle(setup)
