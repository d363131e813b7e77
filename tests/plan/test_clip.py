"""No client's update is longer than the clip, whatever the size of its tensors: the stated privacy rests on it (spec: plan.md, section 5.5).

At 0.2 million parameters this is tested for every kind of task in test_matrix.py.
"""

from __future__ import annotations

import multiprocessing
import pathlib
import tempfile

import numpy as np
import pytest
import tensorflow as tf
import tiny_models
from matrix_cells import for_each_algorithm, for_each_dp_aggregator
from plan_execution import BuiltTask, Task, clip_of, read_checkpoint, update_norm

from odp_taskbuilder.config.spec import DpAggregator, LearningAlgorithm, PlanForm
from odp_taskbuilder.learning.clipping import sum_of_squares

FOUR_MILLION = tiny_models.stack((784, 2048), (2048, 1024), (1024, 256), (256, 1))
# Three tensors of 16.8 million elements.
FIFTY_MILLION = tiny_models.stack((784, 4096), (4096, 4096), (4096, 4096), (4096, 4096), (4096, 1))
# A prime number: no way to divide it into rows of equal length.
ONE_MILLION_ODD = tiny_models.uniform(1_000_003)


def norms_in_clips(task: Task) -> dict[PlanForm, float]:
    """Executes one client, whose update is too long, in each form: the norm of what it sends, in units of the clip."""
    norms = {}
    with tempfile.TemporaryDirectory() as scratch:
        built = BuiltTask(task, pathlib.Path(scratch, "clipped"))
        for form in PlanForm:
            client_checkpoint, (update,) = built.deployment(form).client_updates(built.initial_checkpoint, 0)
            assert clip_of(read_checkpoint(client_checkpoint), task.aggregator) == np.float32(task.clip)
            norms[form] = update_norm(read_checkpoint(update)) / task.clip
    return norms


def assert_the_clip_holds(task: Task) -> None:
    for form, norm in norms_in_clips(task).items():
        assert 1 - 1e-6 <= norm <= 1 + 1e-6, form


@for_each_algorithm
def test_at_four_million_parameters(algorithm):
    assert_the_clip_holds(Task(FOUR_MILLION, algorithm, DpAggregator.FIXED_GAUSSIAN, clip=1e-3))


def test_at_fifty_million_parameters():
    assert_the_clip_holds(Task(FIFTY_MILLION, LearningAlgorithm.FED_AVG, DpAggregator.FIXED_GAUSSIAN, clip=1e-3))


def clip_for(aggregator: DpAggregator) -> float:
    # The trees take updates with an element beyond a hundred clips for zero.
    return 5e-2 if aggregator.is_tree else 1e-3


@pytest.mark.full
@for_each_algorithm
@for_each_dp_aggregator
def test_for_every_aggregator_at_four_million_parameters(algorithm, aggregator):
    assert_the_clip_holds(Task(FOUR_MILLION, algorithm, aggregator, clip=clip_for(aggregator)))


@pytest.mark.full
@for_each_algorithm
@for_each_dp_aggregator
def test_for_every_aggregator_at_fifty_million_parameters(algorithm, aggregator):
    # Each in a process of its own: TensorFlow does not give back the gigabytes that one takes.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(assert_the_clip_holds_at_fifty_million, (algorithm, aggregator))


def assert_the_clip_holds_at_fifty_million(algorithm, aggregator):
    assert_the_clip_holds(Task(FIFTY_MILLION, algorithm, aggregator, clip=clip_for(aggregator)))


@for_each_algorithm
def test_for_equal_elements_whose_number_has_no_divisors(algorithm):
    """Equal elements are the worst case that is known: rounding errors add up."""
    assert_the_clip_holds(Task(ONE_MILLION_ODD, algorithm, DpAggregator.FIXED_GAUSSIAN, clip=1e-3))


@pytest.mark.parametrize("size", [1, 2, 16, 17, 251, 100_000, 1_000_003, 1 << 24])
def test_staged_sums_are_accurate_in_tensorflow_lite(size):
    """To 1e-6: then the norm, its root, is good to 5e-7. TFLite's plain SUM loses 3 to 8 % at the last of these sizes."""
    with tf.Graph().as_default() as graph:
        value = tf.compat.v1.placeholder(tf.float32, [size])
        output = sum_of_squares(value)
        converter = tf.compat.v1.lite.TFLiteConverter(graph.as_graph_def(), [value], [output])
    # Without delegates of the desktop, as ClientRuntime.
    resolver = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = tf.lite.Interpreter(model_content=converter.convert(), experimental_op_resolver_type=resolver)
    rng = np.random.default_rng(size)
    for values in (rng.standard_normal(size, np.float32), np.full(size, rng.random(), np.float32)):
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
        interpreter.invoke()
        result = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        np.testing.assert_allclose(result, np.sum(np.square(values, dtype=np.float64)), rtol=1e-6)
