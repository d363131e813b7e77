"""What the examples of a task hold: told from its artifacts, or from a model and a config before they are built. Needs no TensorFlow."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from typing import Optional, Union

from google.protobuf import text_format

from odp_taskbuilder import config, errors
from odp_taskbuilder.artifacts import artifact_set, plan_reader
from odp_taskbuilder.artifacts.client_graph import describe_client_graph
from odp_taskbuilder.model.input_spec import STORED_AS, read_model_spec
from odp_taskbuilder.model.starter_config import example_features
from odp_taskbuilder.ops.tflite import read_tflite
from odp_taskbuilder.proto import task_pb2

Path = Union[str, "os.PathLike[str]"]

_MAX_TASK_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class ExampleFeature:
    """One feature of the serialized tf.train.Example that a phone's app hands over.

    Attributes:
      name: its key.
      kind: float32, int64 or string: the list of the Example that holds it.
      shape: of one example, without the batch axis; values are stored in row-major order.
    """

    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many values an example has."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.name} {self.kind}[{', '.join(map(str, self.shape))}]"


@dataclasses.dataclass(frozen=True)
class ExampleFormat:
    """The examples that a task trains on.

    Attributes:
      source: what it was read from.
      population_name: None where the source does not tell it.
      min_client_version: version code that phones' modules must have; None where the source does not tell it.
    """

    source: str
    population_name: Optional[str]
    min_client_version: Optional[int]
    features: tuple[ExampleFeature, ...]

    def with_population(self, population_name: str) -> ExampleFormat:
        return dataclasses.replace(self, population_name=population_name)


def format_of_artifacts(path: Path) -> ExampleFormat:
    """The format that a client plan parses.

    Args:
      path: a directory of artifacts, or a plan. Training and evaluation of one build read the same examples.

    Raises:
      StorageError: it cannot be read.
      ArtifactError: it holds no plan that parses examples.
    """
    path = pathlib.Path(path)
    task = None
    if path.is_dir():
        prefixes = ("", artifact_set.EVALUATION_PREFIX)
        names = (prefix + name for prefix in prefixes for name in (artifact_set.CLIENT_ONLY_PLAN, artifact_set.PLAN))
        plan = next((path / name for name in names if (path / name).exists()), None)
        if plan is None:
            raise errors.ArtifactError(
                f"{path} holds no artifacts: {artifact_set.CLIENT_ONLY_PLAN} is not there.",
                next_step="Name the directory that `odp-task build` made, or a plan.",
            )
        prefix = artifact_set.EVALUATION_PREFIX if plan.name.startswith(artifact_set.EVALUATION_PREFIX) else ""
        task = _read_task(path / (prefix + artifact_set.TASK))
    else:
        plan = path
    with plan_reader.open_plan(plan) as file:
        what = f"{file.what}: the TFLite graph"
        graph = describe_client_graph(read_tflite(file.tflite_graph, what), file.tflite_graph, what)
    features = []
    for tensor in graph.features:
        if tensor.dtype not in STORED_AS.values() or tensor.shape is None or min(tensor.shape, default=0) < 0:
            raise errors.ArtifactError(f"{plan} parses {tensor}, which no app can make examples for.")
        features.append(ExampleFeature(tensor.name, tensor.dtype, tensor.shape))
    if not features:
        raise errors.ArtifactError(f"{plan} does not parse examples: a phone would have nothing to hand over.")
    population = task.population_name if task is not None else ""
    version = task.min_client_version if task is not None else ""
    return ExampleFormat(str(path), population or None, int(version) if version.isdecimal() else None, tuple(features))


def format_of_model(saved_model: Path, task_config: Path) -> ExampleFormat:
    """The format that a build of a model with a config will parse.

    Raises:
      ConfigError: the config does not do.
      ModelError: there is no FunctionalModel, or no example can be parsed into its features and label.
    """
    spec = config.resolve(config.load_config(task_config))
    model = read_model_spec(saved_model)
    features = tuple(
        ExampleFeature(name, STORED_AS[info.dtype], info.example_shape)
        for name, info in example_features(model, spec.label_name).items()
    )
    return ExampleFormat(f"{saved_model} with {task_config}", spec.population_name, None, features)


def _read_task(path: pathlib.Path) -> Optional[task_pb2.Task]:
    if not path.exists():
        return None
    try:
        with open(path, "rb") as file:
            return text_format.Parse(file.read(_MAX_TASK_BYTES).decode("utf-8"), task_pb2.Task())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise errors.ArtifactError(f"{path} cannot be read: {error}.") from error
