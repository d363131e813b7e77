"""Builds the artifacts of a task, and runs rounds from them and, as an oracle, with TensorFlow Federated's own execution."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow_federated as tff
import tiny_models
from tff_runtime import require_tff_runtime

from odp_taskbuilder.artifacts.checkpoint_reader import open_checkpoint
from odp_taskbuilder.config import ResolveOptions, TaskSpec, parse_config, resolve
from odp_taskbuilder.config.compression import Compression
from odp_taskbuilder.config.spec import DpAggregator, LearningAlgorithm, OptimizerKind, PlanForm
from odp_taskbuilder.learning import evaluation, preprocessing, training
from odp_taskbuilder.model.load import LoadedModel, load_model
from odp_taskbuilder.ops.report import OpsReport, ops_report
from odp_taskbuilder.plan import builder, initial_state, naming
from odp_taskbuilder.plan.client import DataSource
from odp_taskbuilder.privacy import PrivacyBudget, privacy_budget
from odp_taskbuilder.proto import plan_pb2
from odp_taskbuilder.runtime.client_runtime import ClientRuntime
from odp_taskbuilder.runtime.server_runtime import open_server

BATCH_SIZE = 2
REPORT_GOAL = 3

_CONFIG = """
mode: TRAINING_AND_EVAL
population_name: "test"
label_name: "{label_name}"
policies {{
  dataset_policy {{ batch_size: {batch_size} }}
  model_release_policy {{ num_max_training_rounds: 3 }}
  min_separation_policy {{ minimum_separation: 3 }}
}}
federated_learning {{
  learning_process {{
    type: {algorithm}
    client_optimizer: {client_optimizer}
    client_learning_rate: {client_learning_rate}
    server_optimizer: {server_optimizer}
    server_learning_rate: {server_learning_rate}
    {metrics}
    runtime_config {{ report_goal: {report_goal} }}
  }}
  evaluation {{ source_training_task_id: 1 evaluation_traffic: 0.1 report_goal: {report_goal} }}
}}
differential_privacy {{ type: {aggregator} clip_norm: {clip} init_clip_norm: {clip} noise_multiplier: 0.1 }}
"""


@dataclasses.dataclass(frozen=True)
class Task:
    """What a task is built from.

    Attributes:
      aggregator: None for none.
      noise_multiplier: may be 0, which no config can ask for.
      form: that the process is composed for; without compression it is the same for both.
    """

    model: tiny_models.TinyModel
    algorithm: LearningAlgorithm = LearningAlgorithm.FED_AVG
    aggregator: Optional[DpAggregator] = DpAggregator.FIXED_GAUSSIAN
    client_optimizer: OptimizerKind = OptimizerKind.SGD
    server_optimizer: OptimizerKind = OptimizerKind.SGD
    client_learning_rate: float = 0.5
    server_learning_rate: float = 1.0
    metrics: tuple[str, ...] = ("binary_accuracy",)
    clip: float = 0.5
    noise_multiplier: float = 0.0
    report_goal: int = REPORT_GOAL
    compression: Compression = Compression()
    form: PlanForm = PlanForm.MAP_REDUCE

    def spec(self) -> TaskSpec:
        config = _CONFIG.format(
            label_name=self.model.label_name or "",
            batch_size=BATCH_SIZE,
            algorithm=self.algorithm.value,
            client_optimizer=self.client_optimizer.value,
            client_learning_rate=self.client_learning_rate,
            server_optimizer=self.server_optimizer.value,
            server_learning_rate=self.server_learning_rate,
            metrics="\n".join(f'metrics {{ name: "{name}" }}' for name in self.metrics),
            report_goal=self.report_goal,
            aggregator=(self.aggregator or DpAggregator.FIXED_GAUSSIAN).value,
            clip=self.clip,
        )
        spec = resolve(parse_config(config), ResolveOptions(skip_dp_aggregator=self.aggregator is None))
        return dataclasses.replace(spec, form=self.form)


@functools.cache
def _saved_and_loaded(model: tiny_models.TinyModel) -> LoadedModel:
    with tempfile.TemporaryDirectory() as scratch:
        tff.learning.models.save_functional_model(model.make(), scratch)
        return load_model(scratch)


class BuiltTask:
    """The artifacts of a task, each built when it is first asked for."""

    def __init__(self, task: Task, directory: pathlib.Path):
        self.task = task
        self.directory = directory
        self.spec = task.spec()
        directory.mkdir(parents=True, exist_ok=True)
        self.loaded_model = _saved_and_loaded(task.model)
        self.model = training.with_metrics(self.loaded_model, self.spec.learning.metrics)
        self.process = training.training_process(self.model, self.spec, self._budget(), task.compression)
        self._deployments: dict[tuple[PlanForm, bool], Deployment] = {}

    def _budget(self) -> PrivacyBudget:
        # A budget that costs no accounting; of it the process takes the noise only.
        budget = privacy_budget(dataclasses.replace(self.spec.privacy, skip_aggregator=True))
        return dataclasses.replace(budget, noise_multiplier=self.task.noise_multiplier)

    @property
    def state_type(self) -> tff.Type:
        return self.process.initialize.type_signature.result.member

    @functools.cached_property
    def initial_checkpoint(self) -> pathlib.Path:
        path = self.directory / "initial_state.server.ckp"
        initial_state.training_checkpoint_writer(self.process.initialize, self.loaded_model)(path)
        return path

    @functools.cached_property
    def evaluation(self) -> tff.Computation:
        return evaluation.evaluation_computation(self.model, self.state_type, self.task.compression)

    def deployment(self, form: PlanForm, *, evaluates: bool = False) -> Deployment:
        key = form, evaluates
        if key not in self._deployments:
            source = DataSource(
                preprocessing.example_parser(self.loaded_model.input_spec, self.spec.label_name),
                self.spec.dataset,
                plan_pb2.ExampleSelector(),
            )
            plan = builder.build_plan(self.evaluation if evaluates else self.process.next, source, form).plan
            directory = self.directory / f"{form.value}{'_eval' if evaluates else ''}"
            directory.mkdir()
            self._deployments[key] = Deployment(plan, self.task.model.clients, directory)
        return self._deployments[key]

    @functools.cache  # noqa: B019 - lives as long as the tests.
    def artifact_rounds(self, form: PlanForm) -> list[Round]:
        """Three rounds from the training artifacts."""
        rounds, checkpoint = [], self.initial_checkpoint
        for number in range(3):
            rounds.append(self.deployment(form).round(checkpoint, number))
            checkpoint = rounds[-1].checkpoint
        return rounds

    @functools.cached_property
    def tff_rounds(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Server state and metrics of three rounds as TFF executes the process, from the same initial state."""
        require_tff_runtime()
        state = pack(self.state_type, read_checkpoint(self.initial_checkpoint))
        datasets = [self.task.model.dataset(client, BATCH_SIZE) for client in self.task.model.clients]
        rounds = []
        for _ in range(3):
            output = self.process.next(state, datasets)
            state = output.state
            rounds.append((flatten(self.state_type, state), flatten_metrics(output.metrics)))
        return rounds


@dataclasses.dataclass(frozen=True)
class Round:
    """What one round left.

    Attributes:
      checkpoint: the new server checkpoint.
      client_checkpoint: what the clients got.
      updates: what they sent.
    """

    checkpoint: pathlib.Path
    client_checkpoint: pathlib.Path
    updates: tuple[pathlib.Path, ...]
    metrics: dict[str, float]

    @property
    def state(self) -> dict[str, np.ndarray]:
        """The server state, without the metrics that stand beside it."""
        return {name: value for name, value in read_checkpoint(self.checkpoint).items() if name.startswith("server/")}


class Deployment:
    """A plan that runs on a server and on clients."""

    def __init__(self, plan: plan_pb2.Plan, clients: Sequence[tiny_models.Client], directory: pathlib.Path):
        # As they are stored and sent.
        self.plan = plan_pb2.Plan.FromString(plan.SerializeToString())
        client_plan = plan_pb2.ClientOnlyPlan.FromString(builder.client_only_plan(plan).SerializeToString())
        self.server = open_server(self.plan)
        self.device = ClientRuntime(client_plan)
        self._directory = directory
        self._clients = []
        for number, client in enumerate(clients):
            self._clients.append(directory / f"examples_{number}")
            tiny_models.write_client(client, self._clients[-1])

    @property
    def client_examples(self) -> tuple[pathlib.Path, ...]:
        """The file of each client's examples."""
        return tuple(self._clients)

    @property
    def ops(self) -> OpsReport:
        return ops_report(self.plan.client_tflite_graph_bytes)

    def client_updates(self, checkpoint: pathlib.Path, number: int) -> tuple[pathlib.Path, tuple[pathlib.Path, ...]]:
        """What the clients get from a server checkpoint, and what they answer."""
        client_checkpoint = self._path(f"client_{number}")
        self.server.write_client_checkpoint(checkpoint, client_checkpoint)
        updates = tuple(self._path(f"update_{number}_{client}") for client in range(len(self._clients)))
        for examples, update in zip(self._clients, updates):
            self.device.run(examples, client_checkpoint, update)
        return client_checkpoint, updates

    def round(self, checkpoint: pathlib.Path, number: int) -> Round:
        client_checkpoint, updates = self.client_updates(checkpoint, number)
        new_checkpoint, metrics = self.apply(checkpoint, updates, number)
        return Round(new_checkpoint, client_checkpoint, updates, metrics)

    def apply(
        self, checkpoint: pathlib.Path, updates: Sequence[pathlib.Path], number: int
    ) -> tuple[pathlib.Path, dict[str, float]]:
        """The server's part of a round from there on: up to two aggregators, and the model updater."""
        new_checkpoint = self._path(f"server_{number + 1}")
        partials = []
        for share in filter(None, (updates[::2], updates[1::2])):
            partials.append(self._path(f"partial_{number}_{len(partials)}"))
            self.server.aggregate_updates(share, partials[-1])
        return new_checkpoint, self.server.apply(checkpoint, partials, new_checkpoint)

    def _path(self, name: str) -> pathlib.Path:
        return self._directory / name


def read_checkpoint(path: pathlib.Path) -> dict[str, np.ndarray]:
    with open_checkpoint(path) as checkpoint:
        return {tensor.name: checkpoint.read(tensor.name) for tensor in checkpoint.tensors}


def clip_of(client_checkpoint: Mapping[str, np.ndarray], aggregator: DpAggregator) -> float:
    """The L2 clip that clients were sent. The tree aggregators' limit for zeroing stands before it."""
    position = 2 if aggregator.is_tree else 1
    return float(client_checkpoint[f"client/{position}{'/sum_params' if aggregator.is_adaptive else ''}"])


def update_norm(update: Mapping[str, np.ndarray]) -> float:
    """L2 norm, in double precision, over the weights in a client's update under a DP aggregator."""
    tensors = [value for name, value in update.items() if re.fullmatch(r"update/1/(sum_state/)?\d+", name)]
    return math.sqrt(sum(float(np.sum(np.square(value, dtype=np.float64))) for value in tensors))


def pack(state_type: tff.Type, tensors: Mapping[str, np.ndarray]) -> Any:
    """The value of `state_type` that a checkpoint holds, as an argument for a TFF computation."""
    leaves = iter(naming.leaves(state_type, naming.SERVER))

    def packed(part: tff.Type) -> Any:
        if isinstance(part, tff.StructType):
            return tff.structure.Struct([(name, packed(element)) for name, element in tff.structure.iter_elements(part)])
        value = tensors[next(leaves).name]
        return value.item().decode() if value.dtype == object else value

    return packed(state_type)


def flatten(state_type: tff.Type, state: Any) -> dict[str, Any]:
    """The tensors of a state under their checkpoint names."""
    leaves = naming.leaves(state_type, naming.SERVER)
    values = tff.structure.flatten(tff.structure.from_container(state, recursive=True))
    assert len(values) == len(leaves)
    return {leaf.name: value for leaf, value in zip(leaves, values)}


def flatten_metrics(metrics: Any) -> dict[str, Any]:
    """The metrics of a round under their published names."""

    def walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping):
            for name, element in value.items():
                yield from walk(element, f"{path}/{name}")
        elif np.size(value):  # TFF reports an empty tuple where a part of the process has no metrics.
            yield path, value

    return dict(walk(metrics, "server"))


def assert_close(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Both hold the same tensors, to 1e-5 relative in every element; 1e-6 of the largest one where an element is nearly zero."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        value = np.asarray(value)
        if value.dtype.kind in "SUO":
            assert [_text(element) for element in np.ravel(actual[name])] == [_text(element) for element in value.ravel()], name
        else:
            atol = 1e-6 * np.max(np.abs(value), initial=0)
            np.testing.assert_allclose(actual[name], value, rtol=1e-5, atol=atol, err_msg=name)


def _text(element: Any) -> str:
    return element.decode() if isinstance(element, bytes) else str(element)
