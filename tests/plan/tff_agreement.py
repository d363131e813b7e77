"""Builds of a model as a user gets them, and how far what they train is from TensorFlow Federated's own training on the same clients."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plan_execution
import pytest
import tensorflow as tf
import tensorflow_federated as tff
import tiny_models

from odp_taskbuilder.build import BuiltTasks, build_tasks
from odp_taskbuilder.config import ResolveOptions, parse_config
from odp_taskbuilder.config.build_options import BuildOptions
from odp_taskbuilder.config.spec import PlanForm
from odp_taskbuilder.proto import plan_pb2

LABEL = "y"
BATCH_SIZE = 4
LEARNING_RATE = 0.03
_WEIGHTS = "server/global_model_weights/trainable/"

_CONFIG = """
mode: TRAINING_AND_EVAL
population_name: "model"
label_name: "{label}"
use_daf: {use_daf}
policies {{
  dataset_policy {{ batch_size: {batch_size} }}
  model_release_policy {{ num_max_training_rounds: 3 }}
  min_separation_policy {{ minimum_separation: 3 }}
}}
federated_learning {{
  learning_process {{ client_learning_rate: {rate} server_learning_rate: 1 runtime_config {{ report_goal: 3 }} }}
  evaluation {{ source_training_task_id: 1 evaluation_traffic: 0.1 report_goal: 3 }}
}}
differential_privacy {{ clip_norm: 1 }}
"""


def some_unless_full(names: Iterable[str], some: Collection[str]) -> list[Any]:
    """Parameters of a test: each name, of which those that are not among `some` run with --full only."""
    return [pytest.param(name, marks=() if name in some else pytest.mark.full) for name in names]


def build_form(saved_model: pathlib.Path, form: PlanForm, *, rate: float = LEARNING_RATE, options: BuildOptions = BuildOptions()) -> BuiltTasks:
    """Training and evaluation of a saved model, without noise, scanned and checked as by default. Raises errors.OdpTaskError."""
    daf = str(form is PlanForm.DISTRIBUTE_AGGREGATE).lower()
    config = _CONFIG.format(label=LABEL, use_daf=daf, batch_size=BATCH_SIZE, rate=rate)
    options = dataclasses.replace(options, resolve=ResolveOptions(skip_dp_aggregator=True))
    return build_tasks(saved_model, parse_config(config), options)


def emitted_rounds(built: BuiltTasks, clients: Sequence[tiny_models.Client], rounds: int, directory: pathlib.Path) -> list[np.ndarray]:
    """All trainable weights, as one vector, before the first round and after each."""
    training = built.artifacts.training
    directory.mkdir(parents=True)
    checkpoint = directory / "initial"
    training.write_checkpoint(checkpoint)
    deployment = plan_execution.Deployment(plan_pb2.Plan.FromString(training.plan), clients, directory)
    vectors = [_weights(checkpoint)]
    for number in range(rounds):
        checkpoint = deployment.round(checkpoint, number).checkpoint
        vectors.append(_weights(checkpoint))
    return vectors


def _weights(checkpoint: pathlib.Path) -> np.ndarray:
    tensors = plan_execution.read_checkpoint(checkpoint)
    names = sorted((name for name in tensors if name.startswith(_WEIGHTS)), key=lambda name: int(name[len(_WEIGHTS) :]))
    return _vector(tensors[name] for name in names)


def _vector(tensors: Any) -> np.ndarray:
    return np.concatenate([np.asarray(tensor, np.float64).ravel() for tensor in tensors])


def tff_rounds(
    model: tff.learning.models.FunctionalModel, clients: Sequence[tiny_models.Client], rounds: int, *, rate: float = LEARNING_RATE
) -> list[np.ndarray]:
    """As `emitted_rounds`, by TFF's own federated averaging in TFF's runtime."""
    process = tff.learning.algorithms.build_unweighted_fed_avg(
        model,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(rate),
        server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
    )
    datasets = [dataset(client, model.input_spec) for client in clients]
    state = process.initialize()
    vectors = [_vector(process.get_model_weights(state).trainable)]
    for _ in range(rounds):
        state = process.next(state, datasets).state
        vectors.append(_vector(process.get_model_weights(state).trainable))
    return vectors


def dataset(client: tiny_models.Client, input_spec: tuple[Any, tf.TensorSpec]) -> tf.data.Dataset:
    """A client's batches as TFF takes them."""
    features, label = input_spec

    def to_batch(batch: dict[str, tf.Tensor]) -> tuple[Any, tf.Tensor]:
        # In the spec's order, which TFF keeps for an OrderedDict only.
        values = collections.OrderedDict((name, _as(batch[name], spec.dtype)) for name, spec in _named(features).items())
        found = values if isinstance(features, Mapping) else values["x"]
        return found, _as(batch[LABEL], label.dtype)

    return tf.data.Dataset.from_tensor_slices(client).batch(BATCH_SIZE).map(to_batch)


def _as(tensor: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tensor if tensor.dtype == dtype else tf.cast(tensor, dtype)


def with_weights_of(model: tff.learning.models.FunctionalModel, functions: tff.learning.models.FunctionalModel) -> tff.learning.models.FunctionalModel:
    """`functions` with the initial weights of `model`."""
    return tff.learning.models.FunctionalModel(
        initial_weights=model.initial_weights,
        predict_on_batch_fn=functions.predict_on_batch,
        loss_fn=functions.loss,
        input_spec=functions.input_spec,
    )


def _named(features: Any) -> Mapping[str, tf.TensorSpec]:
    return features if isinstance(features, Mapping) else {"x": features}


def difference(emitted: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """How far apart the last weights are, relative to how far TFF's moved."""
    np.testing.assert_array_equal(emitted[0], expected[0])
    moved = np.linalg.norm(expected[-1] - expected[0])
    assert np.isfinite(moved)
    assert moved > 1e-4, f"moved by {moved}"
    return float(np.linalg.norm(emitted[-1] - expected[-1]) / moved)
