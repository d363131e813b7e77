"""What travels in codes: no decoded update is longer than the clip, the server decodes what phones sent, and learning goes on as without.

Everything is read from the files that travel, and decoded here in double precision.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
import tiny_models
from matrix_cells import for_each_aggregator, for_each_algorithm, for_each_dp_aggregator, for_each_form
from plan_execution import BATCH_SIZE, BuiltTask, Task, clip_of, flatten, pack, read_checkpoint
from tff_runtime import require_tff_runtime

from odp_taskbuilder.build import build
from odp_taskbuilder.config import ResolveOptions
from odp_taskbuilder.config.build_options import BuildOptions
from odp_taskbuilder.config.compression import Compression, levels
from odp_taskbuilder.config.spec import DpAggregator, LearningAlgorithm, PlanForm
from odp_taskbuilder.learning import compression as coder
from odp_taskbuilder.runtime.server_runtime import reduce_in_two_layers

DIGITS = pathlib.Path(__file__).resolve().parents[2] / "configs" / "digits"
BOTH = Compression(update_bits=8, model_bits=7)
for_each_bits = pytest.mark.parametrize("bits", [2, 4, 8])


def unzigzag(natural: np.ndarray) -> np.ndarray:
    natural = natural.astype(np.int64)
    return (natural >> 1) ^ -(natural & 1)


def decoded(checkpoint: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a file with codes multiplied out, in float64."""
    tensors = {}
    for name, value in checkpoint.items():
        if name.endswith("/codes"):
            scale = np.float64(checkpoint[name[: -len("codes")] + "scale"])
            tensors[name[: -len("/codes")]] = unzigzag(value) * scale
        elif not name.endswith("/scale"):
            tensors[name] = value
    return tensors


def weights_in(update: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The weights of a client's decoded update, in their order: all other tensors are scalars."""
    return [update[name] for name in sorted(update) if np.ndim(update[name])]


def norm(tensors: list[np.ndarray]) -> float:
    return math.sqrt(sum(float(np.sum(np.square(tensor, dtype=np.float64))) for tensor in tensors))


def adversarial(size: int, bits: int) -> list[np.ndarray]:
    """Ten tensors that a coder may lengthen, in which the first element is the peak."""
    largest = levels(bits)
    rng = np.random.default_rng(bits)
    steps = [
        np.full(size, 0.5),  # Half-way between two codes.
        np.full(size, 1 / 4100),  # The smallest that the dither rounds up.
        np.full(size, 1 / 4099 - 1e-9),
        np.full(size, largest),
        np.floor(rng.uniform(0, largest, size)) + 1 / 4100,
        rng.choice([0.5, -0.5], size),
        np.zeros(size),
        rng.standard_cauchy(size),
        10.0 ** rng.uniform(-30, 0, size),
        np.full(size, np.nextafter(1, 0)),
    ]
    for values in steps:
        values[0] = max(largest, np.abs(values).max())
    magnitudes = [1, 1e-30, 1e17, 1e-38, 1, 1e-3, 1, 1e10, 1, 1e-20]
    return [(values / values[0] * magnitude).astype(np.float32) for values, magnitude in zip(steps, magnitudes)]


def tflite(make, *shape: int) -> tf.lite.Interpreter:
    """An interpreter of a function of one float32 tensor, without delegates of the desktop, as ClientRuntime."""
    with tf.Graph().as_default() as graph:
        value = tf.compat.v1.placeholder(tf.float32, shape)
        outputs = list(make(value))
        converter = tf.compat.v1.lite.TFLiteConverter(graph.as_graph_def(), [value], outputs)
    resolver = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = tf.lite.Interpreter(model_content=converter.convert(), experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    return interpreter


def run(interpreter: tf.lite.Interpreter, value: np.ndarray) -> list[np.ndarray]:
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


def natural_codes(bits: int):
    def make(value):
        codes, scale = coder.shortened_codes(value, bits)
        return coder.zigzag(codes), scale

    return make


def assert_no_longer(size: int, bits: int, tensors: list[np.ndarray]) -> None:
    interpreter = tflite(natural_codes(bits), size)
    for number, tensor in enumerate(tensors):
        natural, scale = run(interpreter, tensor)
        assert natural.min() >= 0 and natural.max() <= 2 * levels(bits), number
        result = unzigzag(natural) * np.float64(scale)
        length = norm([tensor])
        # Below 1e-38 values are denormal, and may count as zero on the way.
        assert norm([result]) <= length, (number, norm([result]) / length - 1)
        # Every code is next to its value: the decoded tensor was shortened as a whole, not bent.
        peak = np.abs(tensor).max()
        if peak >= 1e-30:
            steps = tensor.astype(np.float64) / peak * levels(bits)
            assert np.abs(unzigzag(natural) - steps).max() <= 1 + 1e-3, number


@for_each_bits
def test_no_decoded_tensor_is_longer_in_tensorflow_lite(bits):
    size = 100_003
    rng = np.random.default_rng(bits)
    random = [rng.standard_normal(size, np.float32) * np.float32(10 ** rng.uniform(-20, 17)) for _ in range(10)]
    assert_no_longer(size, bits, [*random, *adversarial(size, bits)])


def test_no_decoded_tensor_of_millions_of_elements_is_longer():
    for size in (1_606_144, 1 << 24):
        assert_no_longer(size, 8, [np.random.default_rng(size).standard_normal(size, np.float32)])


@pytest.mark.full
@for_each_bits
@pytest.mark.parametrize("size", [1_606_144, 1 << 24, 16_000_057])
def test_no_decoded_tensor_of_millions_of_elements_is_longer_whatever_it_holds(size, bits):
    rng = np.random.default_rng(size)
    assert_no_longer(size, bits, [rng.standard_normal(size, np.float32), rng.random(size, np.float32), *adversarial(size, bits)])


@for_each_bits
def test_tensorflow_and_tensorflow_lite_make_the_same_codes(bits):
    """Of the same tensor: codes bit for bit, and scales but for the order in which a sum of squares is added up."""
    size = 100_003
    interpreter, in_a_graph = tflite(natural_codes(bits), size), tf.function(natural_codes(bits))
    rng = np.random.default_rng(bits)
    random = [rng.standard_normal(size, np.float32) * np.float32(10 ** rng.uniform(-6, 6)) for _ in range(5)]
    for tensor in (*random, *adversarial(size, bits)):
        natural, scale = run(interpreter, tensor)
        expected, expected_scale = in_a_graph(tf.constant(tensor))
        np.testing.assert_array_equal(natural, expected.numpy())
        np.testing.assert_allclose(scale, expected_scale.numpy(), rtol=6e-7)


def test_a_last_bit_of_a_tensor_moves_few_codes_and_by_one_step():
    """What engines differ in whose training rounds otherwise."""
    rng = np.random.default_rng(0)
    for bits, share in ((4, 0.01), (8, 0.1)):
        tensor = rng.standard_normal(100_003, np.float32)
        nudged = np.nextafter(tensor, tensor + rng.choice([-1, 1], tensor.size).astype(np.float32))
        codes, other = (coder.shortened_codes(tf.constant(value), bits)[0].numpy() for value in (tensor, nudged))
        moved = np.abs(codes - other)
        assert moved.max() == 1 and 0 < np.mean(moved) < share


def test_rounding_is_unbiased_over_many_clients():
    """Rounding to the nearest is off by up to half a step, always to the same side."""
    rng = np.random.default_rng(0)
    for centre in (0.01, 0.3, 0.49, 3.2):
        # What 4,000 clients have for the same weight, in steps, beside a peak.
        values = np.concatenate([[127], centre + rng.normal(scale=0.05, size=4000)]).astype(np.float32)
        codes, _ = coder.shortened_codes(tf.constant(values), 8)
        assert abs(float(np.mean(codes[1:].numpy() - values[1:]))) < 0.03


def test_models_are_rounded_to_the_nearest():
    weights = np.random.default_rng(0).uniform(-1, 1, 5000).astype(np.float32)
    for bits in (2, 7, 8):
        codes, scale = coder.nearest_codes(tf.constant(weights), bits)
        np.testing.assert_array_equal(coder.unzigzag(coder.zigzag(codes)), codes)
        error = np.abs(codes.numpy() * np.float64(scale) - weights).max()
        assert error <= np.abs(weights).max() / levels(bits) / 2 * (1 + 1e-5)


def echo(*shapes: tuple[int, ...], clients: tuple[np.ndarray, ...]) -> tiny_models.TinyModel:
    """A model whose gradient is its client's example, cut into weights of those shapes: the clients' updates are chosen freely."""
    sizes = [math.prod(shape) for shape in shapes]

    def make() -> tff.learning.models.FunctionalModel:
        @tf.function
        def predict(weights, x, training):
            parts = tf.split(x, sizes, axis=1)
            products = [tf.reduce_sum(part * tf.reshape(weight, [1, -1]), axis=1) for part, weight in zip(parts, weights[0])]
            return tf.add_n(products)[:, tf.newaxis]

        rng = np.random.default_rng(3)
        return tff.learning.models.FunctionalModel(
            initial_weights=(tuple(rng.uniform(-0.1, 0.1, shape).astype(np.float32) for shape in shapes), ()),
            predict_on_batch_fn=predict,
            loss_fn=lambda output, label, sample_weight=None: tf.reduce_mean(output),
            input_spec=(tf.TensorSpec([None, sum(sizes)], tf.float32), tf.TensorSpec([None, 1], tf.float32)),
        )

    examples = tuple({"x": client[np.newaxis], "y": np.zeros((1, 1), np.float32)} for client in clients)
    return tiny_models.TinyModel(make, examples, lambda batch: (batch["x"], batch["y"]))


LARGE, SMALL = (101, 101), (7,)
SIZE = 101 * 101 + 7


@functools.cache
def echoed(random: int) -> tiny_models.TinyModel:
    rng = np.random.default_rng(random)
    clients = [rng.standard_normal(SIZE, np.float32) * np.float32(10 ** rng.uniform(-3, 3)) for _ in range(random)]
    return echo(LARGE, SMALL, clients=(*clients, *adversarial(SIZE, 8)))


def echo_task(model: tiny_models.TinyModel, aggregator, form: PlanForm, **options) -> Task:
    return Task(model, LearningAlgorithm.FED_SGD, aggregator, metrics=(), compression=BOTH, form=form, **options)


def assert_the_clip_holds(task: BuiltTask, aggregator: DpAggregator, form: PlanForm) -> None:
    client_checkpoint, updates = task.deployment(form).client_updates(task.initial_checkpoint, 0)
    clip = clip_of(read_checkpoint(client_checkpoint), aggregator)
    ratios = [norm(weights_in(decoded(read_checkpoint(update)))) / clip for update in updates]
    assert max(ratios) <= 1 + 1e-6
    # Clipped they were, and no shorter than they need be.
    assert sum(ratio > 0.99 for ratio in ratios) >= len(ratios) / 4


@for_each_form
def test_no_client_sends_more_than_the_clip(built, form):
    aggregator = DpAggregator.ADAPTIVE_GAUSSIAN if form is PlanForm.MAP_REDUCE else DpAggregator.FIXED_GAUSSIAN
    assert_the_clip_holds(built(echo_task(echoed(10), aggregator, form, clip=1.0)), aggregator, form)


@pytest.mark.full
@for_each_dp_aggregator
@for_each_form
def test_no_client_of_hundreds_sends_more_than_the_clip(built, aggregator, form):
    assert_the_clip_holds(built(echo_task(echoed(200), aggregator, form, clip=1.0)), aggregator, form)


def assert_travels_in_codes(task: BuiltTask, form: PlanForm) -> None:
    """One round: what phones get, what they send, and what the server makes of it."""
    before = read_checkpoint(task.initial_checkpoint)
    number = next(i for i, weight in enumerate(task.loaded_model.trainable) if weight.shape.num_elements() > 10_000)
    done = task.artifact_rounds(form)[0]
    received = read_checkpoint(done.client_checkpoint)
    assert received[f"client/0/trainable/{number}/codes"].dtype == np.int32
    weight = before[f"server/global_model_weights/trainable/{number}"]
    step = np.abs(weight).max() / levels(7)
    np.testing.assert_allclose(decoded(received)[f"client/0/trainable/{number}"], weight, rtol=0, atol=step * 0.50001)

    sent = [read_checkpoint(update) for update in done.updates]
    for update in sent:
        large = [value for value in update.values() if value.size > 10_000]
        assert [value.dtype for value in large] == [np.int32 if form is PlanForm.MAP_REDUCE else np.float32]
        # In grid mode, too, there are no more than 255 values.
        assert len(np.unique(large[0])) <= 255
    updates = [weights_in(decoded(update)) for update in sent]
    weights = [total(update, task) for update in sent]
    after = read_checkpoint(done.checkpoint)
    for position in range(len(task.loaded_model.trainable)):
        mean = sum(update[position].astype(np.float64) for update in updates) / sum(weights)
        name = f"server/global_model_weights/trainable/{position}"
        # The server's learning rate is 1 and its noise zero.
        expected = before[name] - mean
        np.testing.assert_allclose(after[name], expected, rtol=0, atol=2e-6 * np.abs(expected).max(), err_msg=name)
    assert norm([after[name] - before[name]]) > 0


def total(update: dict[str, np.ndarray], task: BuiltTask) -> float:
    """A client's part of what the sum is divided by."""
    if task.task.aggregator is not None:
        return task.task.report_goal / len(task.task.model.clients)
    if task.task.algorithm is LearningAlgorithm.FED_AVG:
        return float(update["update/0"])
    (num_examples,) = (value for name, value in update.items() if name.endswith("/loss/1"))
    return float(num_examples)


CELLS = [
    (LearningAlgorithm.FED_AVG, None, PlanForm.MAP_REDUCE),
    (LearningAlgorithm.FED_SGD, DpAggregator.ADAPTIVE_GAUSSIAN, PlanForm.MAP_REDUCE),
    (LearningAlgorithm.FED_SGD, None, PlanForm.DISTRIBUTE_AGGREGATE),
]


def dense_task(algorithm, aggregator, form) -> Task:
    return Task(tiny_models.DENSE, algorithm, aggregator, compression=BOTH, form=form)


@pytest.mark.parametrize(("algorithm", "aggregator", "form"), CELLS)
def test_the_server_applies_what_phones_sent(built, algorithm, aggregator, form):
    assert_travels_in_codes(built(dense_task(algorithm, aggregator, form)), form)


@pytest.mark.full
@for_each_algorithm
@for_each_aggregator
@for_each_form
def test_the_server_applies_what_phones_sent_in_every_kind_of_task(built, algorithm, aggregator, form):
    assert_travels_in_codes(built(dense_task(algorithm, aggregator, form)), form)
    assert not built(dense_task(algorithm, aggregator, form)).deployment(form).ops.unsupported()


@pytest.mark.parametrize("use_daf", [False, pytest.param(True, marks=pytest.mark.full)])
def test_two_builds_give_the_same_bytes(tmp_path, use_daf):
    config = tmp_path / "config.pbtxt"
    config.write_text((DIGITS / "try_out.pbtxt").read_text() + f"use_daf: {str(use_daf).lower()}\n")
    options = BuildOptions(resolve=ResolveOptions(skip_dp_aggregator=True), compression=dataclasses.replace(BOTH, above=100, evaluation=True))
    made = []
    for name in ("one", "two"):
        build(DIGITS / "saved_model", config, tmp_path / name, options)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        made.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    assert made[0] == made[1]
    assert any(b"/codes" in content for content in made[0].values())


def weights_after(state: dict[str, np.ndarray]) -> np.ndarray:
    names = sorted(name for name in state if "/global_model_weights/" in name)
    return np.concatenate([np.ravel(state[name]) for name in names])


def in_tff(task: BuiltTask, checkpoint: pathlib.Path) -> np.ndarray:
    """The weights after a round in TFF's own runtime, from the server state in a checkpoint."""
    require_tff_runtime()
    datasets = [task.task.model.dataset(client, BATCH_SIZE) for client in task.task.model.clients]
    state = pack(task.state_type, read_checkpoint(checkpoint))
    return weights_after(flatten(task.state_type, task.process.next(state, datasets).state))


@pytest.mark.parametrize("form", [PlanForm.MAP_REDUCE, pytest.param(PlanForm.DISTRIBUTE_AGGREGATE, marks=pytest.mark.full)])
def test_rounds_whose_training_is_equal_in_every_bit_agree_with_tff(built, form):
    """Of gradients that are the clients' examples there is nothing to round: what is left is the coder, the sum and the model's coder."""
    clients = tuple(np.random.default_rng(client).standard_normal(SIZE, np.float32) for client in range(5))
    task = built(echo_task(echo(LARGE, SMALL, clients=clients), None, form))
    checkpoint = task.initial_checkpoint
    for number, done in enumerate(task.artifact_rounds(form)):
        expected = in_tff(task, checkpoint)
        apart = np.linalg.norm(weights_after(done.state) - expected) / np.linalg.norm(expected)
        assert apart <= 1e-6, number
        checkpoint = done.checkpoint


def test_updates_add_up_the_same_in_one_two_and_three_layers(built, tmp_path):
    task = built(dense_task(*CELLS[0]))
    done = task.artifact_rounds(PlanForm.MAP_REDUCE)[0]
    server = task.deployment(PlanForm.MAP_REDUCE).server
    server.aggregate_updates(done.updates, tmp_path / "one")
    partials = [tmp_path / f"partial_{number}" for number in range(len(done.updates))]
    for update, partial in zip(done.updates, partials):
        server.aggregate_updates([update], partial)
    layer = reduce_in_two_layers(partials, server.merge_partials, tmp_path)
    server.merge_partials(layer, tmp_path / "three")
    states = []
    for name in ("one", "three"):
        server.apply(task.initial_checkpoint, [tmp_path / name], tmp_path / "state")
        states.append(read_checkpoint(tmp_path / "state"))
    assert len(layer) < len(partials)
    for name, value in states[0].items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(states[1][name], value, rtol=1e-6, atol=1e-6 * np.abs(value).max(initial=0), err_msg=name)


@pytest.mark.parametrize(
    "aggregator", [None, pytest.param(DpAggregator.FIXED_GAUSSIAN, marks=pytest.mark.full)], ids=["NONE", "FIXED_GAUSSIAN"]
)
def test_clients_that_are_not_finite_do_not_move_the_model(built, aggregator):
    wild = []
    for value in (np.nan, np.inf, -np.inf, 1e30):
        wild.append(np.ones(SIZE, np.float32))
        wild[-1][5000] = value
    task = built(echo_task(echo(LARGE, SMALL, clients=tuple(wild)), aggregator, PlanForm.MAP_REDUCE))
    done = task.deployment(PlanForm.MAP_REDUCE).round(task.initial_checkpoint, 0)
    for update in done.updates:
        assert not any(tensor.any() for tensor in weights_in(decoded(read_checkpoint(update))))
    before = read_checkpoint(task.initial_checkpoint)
    for name, value in done.state.items():
        if "/global_model_weights/" in name:
            np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_evaluation_gets_the_model_as_it_is_unless_asked_for(built):
    plain = dense_task(*CELLS[0])
    rounded = dataclasses.replace(plain, compression=dataclasses.replace(BOTH, evaluation=True))
    for task, dtype in ((plain, np.float32), (rounded, np.int32)):
        checkpoint, _ = built(task).deployment(PlanForm.MAP_REDUCE, evaluates=True).client_updates(built(task).initial_checkpoint, 0)
        (large,) = [value for value in read_checkpoint(checkpoint).values() if value.size > 10_000]
        assert large.dtype == dtype
