"""A model that is traced again computes what it did and has the same gradients; what cannot be traced again stays, with the reason."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import recurrent_models
import tensorflow as tf

from odp_taskbuilder.model.load import LoadedModel
from odp_taskbuilder.retracing import retrace_model


def loss_and_gradients(model: LoadedModel, x, y):
    weights = tuple(variable.read_value() for variable in model.trainable)
    others = tuple(variable.read_value() for variable in model.non_trainable)

    @tf.function
    def run(weights, x, y):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            output = model.functional_model.predict_on_batch((weights, others), x, True)
            loss = model.functional_model.loss(output, y)
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, weights)]
        return loss, gradients, model.functional_model.predict_on_batch((weights, others), x, False), output

    return run(weights, x, y)


def relative_error(actual, expected) -> float:
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(actual - expected) / max(np.linalg.norm(expected), 1e-12))


@pytest.mark.parametrize("name", recurrent_models.MODELS)
def test_loss_gradients_and_predictions_are_those_of_the_saved_model(name):
    native, retraced, loops = recurrent_models.loaded(recurrent_models.MODELS[name])
    assert loops
    assert {loop.form for loop in loops} <= {"scan", "unrolled", "conditional"}, loops
    examples = recurrent_models.examples(5, *native.input_spec)
    expected, actual = (tf.nest.flatten(loss_and_gradients(model, *examples)) for model in (native, retraced))
    assert max(map(relative_error, actual, expected)) < 1e-5


@pytest.mark.parametrize("name", recurrent_models.WITH_LOST_SHAPES)
def test_a_model_whose_shapes_saving_lost_computes_what_it_did_and_knows_them(name):
    native, retraced, loops = recurrent_models.loaded(recurrent_models.WITH_LOST_SHAPES[name])
    assert loops == ()
    assert retraced is not native
    examples = recurrent_models.examples(5, *native.input_spec)
    expected, actual = (tf.nest.flatten(loss_and_gradients(model, *examples)) for model in (native, retraced))
    assert max(map(relative_error, actual, expected)) < 1e-5
    assert not unknown_sizes(retraced)


def unknown_sizes(model: LoadedModel) -> set[str]:
    """Names of what the model computes from images that has more than one unknown size."""
    weights = tuple(variable.read_value() for variable in model.trainable)
    traced = tf.function(lambda x: model.forward.training(model_weights=(weights, ()), x=x, training=True))
    # A reshape whose sizes are computed is left behind, and read by nothing.
    graph = traced.get_concrete_function(model.input_spec[0]).graph
    read = {tensor.name for operation in graph.get_operations() for tensor in operation.inputs}
    tensors = [tensor for operation in graph.get_operations() for tensor in operation.outputs if tensor.name in read]
    return {tensor.name for tensor in tensors if tensor.dtype.is_floating and tensor.shape.as_list().count(None) > 1}


def test_a_loop_behind_a_dense_layer_knows_its_steps_and_keeps_the_gradient_of_swish():
    native, retraced, loops = recurrent_models.loaded(recurrent_models.dense_before_gru)
    assert [(loop.form, loop.steps) for loop in loops] == [("scan", recurrent_models.STEPS)]
    examples = recurrent_models.examples(5, *native.input_spec)
    expected, actual = (tf.nest.flatten(loss_and_gradients(model, *examples)) for model in (native, retraced))
    assert max(map(relative_error, actual, expected)) < 1e-5


def test_short_loops_are_unrolled_and_long_ones_scanned():
    forms = {
        name: {(loop.form, loop.steps) for loop in recurrent_models.loaded(recurrent_models.MODELS[name])[2]}
        for name in ("two_steps", "gru")
    }
    assert forms == {"two_steps": {("unrolled", 2)}, "gru": {("scan", recurrent_models.STEPS)}}


def test_an_assertion_about_shapes_is_decided_and_one_about_data_stays():
    _, retraced, _ = recurrent_models.loaded(recurrent_models.MODELS["next_tokens"])
    assert "Assert" not in op_types(retraced)
    _, retraced, _ = recurrent_models.loaded(recurrent_models.asserting_of_its_data)
    assert "Assert" in op_types(retraced)


def op_types(model: LoadedModel) -> set[str]:
    weights = tuple(variable.read_value() for variable in model.trainable)

    @tf.function
    def run(x, y):
        return model.functional_model.loss(model.functional_model.predict_on_batch((weights, ()), x, True), y)

    graph_def = run.get_concrete_function(*model.input_spec).graph.as_graph_def()
    nodes = [*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)]
    return {node.op for node in nodes}


def test_a_step_that_draws_is_differentiated_on_the_numbers_that_it_drew():
    _, retraced, loops = recurrent_models.loaded(recurrent_models.drawing_in_each_step)
    assert {loop.form for loop in loops} == {"scan"}
    for _ in range(3):
        loss, (gradient,), *_ = loss_and_gradients(retraced, *recurrent_models.examples(4, *retraced.input_spec))
        np.testing.assert_allclose(tf.reduce_sum(gradient * retraced.trainable[0]), loss, rtol=1e-5)


def test_every_step_draws_other_numbers():
    _, retraced, _ = recurrent_models.loaded(recurrent_models.drawing_in_each_step)
    draws = {float(loss_and_gradients(retraced, *recurrent_models.examples(1, *retraced.input_spec))[0]) for _ in range(4)}
    assert len(draws) == 4


def test_the_gradient_of_a_conditional_is_that_of_the_branch_taken():
    native, retraced, loops = recurrent_models.loaded(recurrent_models.branching_at_a_singularity)
    assert [loop.form for loop in loops] == ["conditional"]
    for scale in (0.0, 1.0, -1.0):
        x = np.full([2, recurrent_models.STEPS, 3], scale, np.float32)
        y = np.zeros([2, 1], np.float32)
        expected, actual = (loss_and_gradients(model, x, y)[1][0].numpy() for model in (native, retraced))
        assert np.all(np.isfinite(actual))
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_a_loop_that_depends_on_data_stays_with_the_reason():
    native, retraced, loops = recurrent_models.loaded(recurrent_models.steps_that_depend_on_data)
    assert {loop.form for loop in loops} == {"kept"}
    assert all("number of steps is not known" in loop.reason for loop in loops)
    assert retraced.forward.training.function_type == native.forward.training.function_type
    assert "While" in {op.removeprefix("Stateless") for op in op_types(retraced)}


def test_a_model_without_loops_is_left_alone():
    native, _, loops = recurrent_models.loaded(recurrent_models.without_loops)
    again, _ = retrace_model(native)
    assert again is native
    assert loops == ()


def test_reports_name_the_loop_as_the_saved_model_does():
    _, _, loops = recurrent_models.loaded(recurrent_models.MODELS["stacked"])
    assert [loop.name.split("/")[-1] for loop in loops] == ["while", "while"]
    assert all(dataclasses.asdict(loop)["steps"] == recurrent_models.STEPS for loop in loops)
