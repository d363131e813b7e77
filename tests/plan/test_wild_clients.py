"""Whatever a client's examples hold, its update is finite and no longer than the clip, and is zero where TFF would have zeroed it.

The plans are executed in TensorFlow Lite, whose arithmetic clamps; TFF's own training of a client is executed in TensorFlow, whose
arithmetic does not (spec: phone.md, H10; privacy.md, section 8).
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
import tiny_models
from matrix_cells import for_each_aggregator, for_each_algorithm
from plan_execution import BATCH_SIZE, BuiltTask, Task, clip_of, read_checkpoint, update_norm
from tensorflow_federated.python.learning import client_weight_lib, loop_builder
from tensorflow_federated.python.learning.algorithms import fed_sgd
from tensorflow_federated.python.learning.templates import model_delta_client_work

from odp_taskbuilder.config.spec import LearningAlgorithm, PlanForm
from odp_taskbuilder.learning.client_work import TRAINING_LIMIT

CLIP = 0.1
NUM_FEATURES = 4
# Values that are known for trouble: not finite, near the ends of float32, denormal, beyond the root of its largest value, milliseconds.
SPECIAL = (np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, 1e-38, 1e19, -1e19, 1.75e12, 0.0)
WRONG_CLASSES = (-1.0, 3.0, 0.5, 1e10)


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:
    """A kind of model with its clients, and which of them have nothing unusual about them."""

    model: tiny_models.TinyModel
    learning_rate: float
    friendly: tuple[bool, ...]


def magnitudes(rng: np.random.Generator, shape: tuple[int, ...], friendly: bool) -> np.ndarray:
    """float32 values, in one of several ways that are not friendly if they need not be."""
    values = rng.normal(size=shape)
    way = 0 if friendly else rng.integers(5)
    if way == 1:
        values *= 10 ** rng.uniform(-38, 38)
    elif way == 2 and values.size:
        for _ in range(rng.integers(1, 4)):
            values.flat[rng.integers(values.size)] = rng.choice(SPECIAL)
    elif way == 3:
        values = np.sign(values) * 10 ** rng.uniform(-38, 38.5, size=shape)
    elif way == 4:
        values[:, 0] *= 10 ** rng.uniform(0, 38)
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def clients(rng: np.random.Generator, count: int, classes: bool) -> tuple[list[tiny_models.Client], list[bool]]:
    made, friendly = [], []
    for number in range(count):
        size = rng.integers(21)
        friendly.append(bool(size) and number % 8 == 0)
        x = magnitudes(rng, (size, NUM_FEATURES), friendly[-1])
        if classes:
            y = rng.integers(0, 3, (size, 1)).astype(np.float32)
            if size and not friendly[-1] and rng.random() < 0.3:
                y[rng.integers(size)] = rng.choice(SPECIAL + WRONG_CLASSES)
        else:
            y = magnitudes(rng, (size, 1), friendly[-1])
        made.append({"x": x, "y": y})
    return made, friendly


def linear_regression() -> tff.learning.models.FunctionalModel:
    @tf.function
    def predict(weights, x, training):
        (kernel, bias), _ = weights
        return tf.matmul(x, kernel) + bias

    return functional_model(predict, lambda output, label: tf.reduce_mean((output - label) ** 2), (NUM_FEATURES, 1), (1,))


def classifier() -> tff.learning.models.FunctionalModel:
    @tf.function
    def predict(weights, x, training):
        (kernel, bias, kernel_2, bias_2), _ = weights
        return tf.matmul(tf.nn.relu(tf.matmul(x, kernel) + bias), kernel_2) + bias_2

    def loss(output, label):
        # All zeros for a label that is no class.
        one_hot = tf.cast(tf.equal(label, tf.constant([[0.0, 1.0, 2.0]])), tf.float32)
        return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(one_hot, output))

    return functional_model(predict, loss, (NUM_FEATURES, 5), (5,), (5, 3), (3,))


def functional_model(predict, loss, *shapes) -> tff.learning.models.FunctionalModel:
    rng = np.random.default_rng(5)
    return tff.learning.models.FunctionalModel(
        initial_weights=(tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes), ()),
        predict_on_batch_fn=predict,
        loss_fn=lambda output, label, sample_weight=None: loss(output, label),
        input_spec=(tf.TensorSpec([None, NUM_FEATURES], tf.float32), tf.TensorSpec([None, 1], tf.float32)),
    )


@functools.cache
def kinds(count: int) -> tuple[Kind, ...]:
    made = []
    for seed, (make, classes, learning_rate) in enumerate(((linear_regression, False, 1e-3), (classifier, True, 1.0))):
        examples, friendly = clients(np.random.default_rng(seed), count, classes)
        model = tiny_models.TinyModel(make, tuple(examples), lambda batch: (batch["x"], batch["y"]))
        made.append(Kind(model, learning_rate, tuple(friendly)))
    return tuple(made)


@functools.cache
def updates_of_tff(kind: Kind, algorithm: LearningAlgorithm, built) -> list[tuple[np.ndarray, ...]]:
    """What TFF's own training makes of each client, before any aggregation: all zeros where it is not finite."""
    task = built(task_of(kind, algorithm, None))
    weights = tuple(tf.constant(variable) for variable in task.loaded_model.trainable)
    loop = loop_builder.LoopImplementation.DATASET_REDUCE
    if algorithm is LearningAlgorithm.FED_AVG:
        update = model_delta_client_work.build_functional_model_delta_update(
            task.model, weighting=client_weight_lib.ClientWeighting.UNIFORM, loop_implementation=loop
        )
        optimizer = tff.learning.optimizers.build_sgdm(kind.learning_rate)
        train = functools.partial(update, optimizer, (weights, ()))
    else:
        update = fed_sgd._build_functional_client_update(task.model, loop_implementation=loop)
        train = functools.partial(update, tff.learning.models.ModelWeights(weights, ()))

    @tf.function(input_signature=task.model.input_spec)
    def run(x, y):
        result, _ = train(tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH_SIZE))
        return result.update

    return [tuple(tensor.numpy() for tensor in run(client["x"], client["y"])) for client in kind.model.clients]


def task_of(kind: Kind, algorithm: LearningAlgorithm, aggregator) -> Task:
    return Task(
        kind.model, algorithm, aggregator, client_learning_rate=kind.learning_rate, metrics=("mean_squared_error",), clip=CLIP
    )


def aggregated(update: tuple[np.ndarray, ...], aggregator) -> np.ndarray:
    """What an aggregator makes of an update, in float64."""
    flat = np.concatenate([tensor.ravel() for tensor in update]).astype(np.float64)
    if aggregator is None:
        return flat
    if aggregator.is_tree and np.abs(flat).max(initial=0) > 100 * CLIP:
        return np.zeros_like(flat)
    return flat * min(1, CLIP / max(np.linalg.norm(flat), 1e-300))


def assert_wild_clients_do_no_harm(kind: Kind, algorithm: LearningAlgorithm, aggregator, form: PlanForm, built) -> None:
    task: BuiltTask = built(task_of(kind, algorithm, aggregator))
    client_checkpoint, updates = task.deployment(form).client_updates(task.initial_checkpoint, 0)
    clip = None if aggregator is None else clip_of(read_checkpoint(client_checkpoint), aggregator)
    zeroed = 0
    for number, (path, expected) in enumerate(zip(updates, updates_of_tff(kind, algorithm, built))):
        sent = read_checkpoint(path)
        assert all(np.isfinite(tensor).all() for tensor in sent.values()), number
        # In the order of the weights; without DP aggregator and under FED_AVG a count of clients stands before them.
        names = sorted(name for name, tensor in sent.items() if tensor.ndim)
        values = np.concatenate([sent[name].ravel() for name in names]).astype(np.float64)
        assert values.size == sum(tensor.size for tensor in expected)
        if aggregator is None:
            assert np.abs(values).max() <= TRAINING_LIMIT
        else:
            assert update_norm(sent) <= clip * (1 + 1e-6), number
        if not any(tensor.any() for tensor in expected):
            assert not values.any(), number
        (num_examples,) = (tensor for name, tensor in sent.items() if name.endswith("/loss/1"))
        if not num_examples:
            # Nothing but zeros: neither an update, nor a weight, nor metrics. It counts as a client, and its norm as within the clip.
            zeroed += 1
            counts = {"update/0": 1.0, "update/1/quantile_estimator_state": 0.5}
            for name, tensor in sent.items():
                np.testing.assert_array_equal(tensor, counts.get(name, 0.0), err_msg=f"{number} {name}")
        if kind.friendly[number]:
            assert num_examples == len(kind.model.clients[number]["x"])
            exact = aggregated(expected, aggregator)
            if aggregator is None and algorithm is LearningAlgorithm.FED_SGD:
                # A weighted mean: clients send the product.
                exact *= num_examples
            np.testing.assert_allclose(values, exact, rtol=0, atol=1e-6 * max(np.linalg.norm(exact), 1e-30), err_msg=str(number))
    # The clients are what they were meant to be.
    assert sum(kind.friendly) >= 0.1 * len(updates)
    assert zeroed >= 0.2 * len(updates)


@for_each_algorithm
@for_each_aggregator
@pytest.mark.parametrize("form", PlanForm, ids=lambda form: form.value)
def test_no_examples_break_the_clip(built, algorithm, aggregator, form):
    for kind in kinds(100):
        assert_wild_clients_do_no_harm(kind, algorithm, aggregator, form, built)


@pytest.mark.full
@for_each_algorithm
@for_each_aggregator
@pytest.mark.parametrize("form", PlanForm, ids=lambda form: form.value)
def test_no_examples_of_thousands_of_clients_break_the_clip(built, algorithm, aggregator, form):
    for kind in kinds(1000):
        assert_wild_clients_do_no_harm(kind, algorithm, aggregator, form, built)
