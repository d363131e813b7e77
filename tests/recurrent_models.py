"""Small recurrent models, losses with branches, and models whose shapes saving loses, as people write them; each has one output, but for
the last."""

from __future__ import annotations

import functools
import tempfile

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder.model.load import LoadedModel, load_model
from odp_taskbuilder.retracing import RetracedLoop, retrace_model

STEPS = 6
TOKENS = 11
_layers = tf.keras.layers


def _of_keras(model: tf.keras.Model, loss: tf.keras.losses.Loss, features: tf.TensorSpec, label: tf.TensorSpec):
    return tff.learning.models.functional_model_from_keras(model, loss, input_spec=(features, label))


def _of_tokens(*layers: tf.keras.layers.Layer, mask: bool = False):
    model = tf.keras.Sequential([_layers.Embedding(TOKENS, 4, input_length=STEPS, mask_zero=mask), *layers, _layers.Dense(1)])
    return _of_keras(
        model,
        tf.keras.losses.BinaryCrossentropy(from_logits=True),
        tf.TensorSpec([None, STEPS], tf.int64),
        tf.TensorSpec([None, 1], tf.float32),
    )


def _of_features(*layers: tf.keras.layers.Layer):
    return _of_keras(
        tf.keras.Sequential([tf.keras.Input((STEPS, 3)), *layers, _layers.Dense(1)]),
        tf.keras.losses.BinaryCrossentropy(from_logits=True),
        tf.TensorSpec([None, STEPS, 3], tf.float32),
        tf.TensorSpec([None, 1], tf.float32),
    )


def _linear(loss: tf.keras.losses.Loss):
    model = tf.keras.Sequential([_layers.Dense(1, input_shape=(3,))])
    return _of_keras(model, loss, tf.TensorSpec([None, 3], tf.float32), tf.TensorSpec([None, 1], tf.float32))


# A model is made where it is needed: Keras numbers layers.
MODELS = {
    "gru": lambda: _of_tokens(_layers.GRU(5)),
    "lstm": lambda: _of_tokens(_layers.LSTM(5)),
    "simple_rnn": lambda: _of_tokens(_layers.SimpleRNN(5)),
    "masked_lstm": lambda: _of_tokens(_layers.LSTM(5), mask=True),
    "masked_bidirectional_gru": lambda: _of_tokens(_layers.Bidirectional(_layers.GRU(5)), mask=True),
    "bidirectional_sequences": lambda: _of_tokens(
        _layers.Bidirectional(_layers.LSTM(5, return_sequences=True)), _layers.GlobalAveragePooling1D()
    ),
    "stacked": lambda: _of_tokens(_layers.LSTM(5, return_sequences=True), _layers.GRU(4)),
    "cell": lambda: _of_tokens(_layers.RNN(_layers.LSTMCell(5))),
    "stacked_cells": lambda: _of_tokens(_layers.RNN([_layers.GRUCell(5), _layers.LSTMCell(3)])),
    "backwards": lambda: _of_tokens(_layers.GRU(5, go_backwards=True, reset_after=False)),
    "zeros_for_masked_steps": lambda: _of_tokens(
        _layers.RNN(_layers.GRUCell(5), return_sequences=True, zero_output_for_mask=True), _layers.GlobalMaxPool1D(), mask=True
    ),
    "masking_layer": lambda: _of_features(_layers.Masking(), _layers.LSTM(4)),
    "two_steps": lambda: _of_keras(
        tf.keras.Sequential([tf.keras.Input((2, 3)), _layers.GRU(4), _layers.Dense(1)]),
        tf.keras.losses.MeanSquaredError(),
        tf.TensorSpec([None, 2, 3], tf.float32),
        tf.TensorSpec([None, 1], tf.float32),
    ),
    "hinge": lambda: _linear(tf.keras.losses.Hinge()),
    "squared_hinge": lambda: _linear(tf.keras.losses.SquaredHinge()),
    "next_tokens": lambda: _of_keras(
        tf.keras.Sequential(
            [_layers.Embedding(TOKENS, 4, input_length=STEPS), _layers.GRU(5, return_sequences=True), _layers.Dense(TOKENS)]
        ),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        tf.TensorSpec([None, STEPS], tf.int64),
        tf.TensorSpec([None, STEPS], tf.int64),
    ),
}


def _of_images(*layers: tf.keras.layers.Layer):
    return _of_keras(
        tf.keras.Sequential([tf.keras.Input((6, 5, 3)), *layers, _layers.Flatten(), _layers.Dense(1)]),
        tf.keras.losses.MeanSquaredError(),
        tf.TensorSpec([None, 6, 5, 3], tf.float32),
        tf.TensorSpec([None, 1], tf.float32),
    )


# Without loops, and traced again all the same.
WITH_LOST_SHAPES = {
    "dense_before_convolution": lambda: _of_images(_layers.Dense(4), _layers.Conv2D(2, 2, strides=2)),
    "dilated": lambda: _of_images(_layers.Conv2D(2, 2, dilation_rate=2)),
    "dilated_depthwise": lambda: _of_images(_layers.DepthwiseConv2D(2, dilation_rate=2, padding="same")),
    "swish": lambda: _of_images(_layers.Dense(4, activation="swish"), _layers.Dense(4, activation="swish")),
}


def dense_before_gru():
    return _of_features(_layers.Dense(4, activation="swish"), _layers.GRU(3))


def _of_one_weight(predict, steps: int = STEPS):
    """A model of one weight [3] whose output has one column; its loss is the mean of the output."""

    def loss(output, label, sample_weight=None):
        return tf.reduce_mean(output)

    return tff.learning.models.FunctionalModel(
        initial_weights=((np.array([0.5, -1.0, 0.25], np.float32),), ()),
        predict_on_batch_fn=tf.function(predict),
        loss_fn=loss,
        input_spec=(tf.TensorSpec([None, steps, 3], tf.float32), tf.TensorSpec([None, 1], tf.float32)),
    )


def drawing_in_each_step():
    """Linear in its weight, with numbers that each step draws anew: the gradient times the weight is the output."""

    def predict(model_weights, x, training):
        (weight,), _ = model_weights

        def step(state, x_t):
            drawn = tf.random.uniform(tf.shape(x_t)) + tf.random.normal(tf.shape(x_t))
            return state + tf.reduce_sum(weight * drawn, 1, keepdims=True)

        time_major = tf.transpose(x, [1, 0, 2])
        return tf.foldl(step, time_major, tf.zeros_like(x[:, 0, :1]))

    return _of_one_weight(predict)


def branching_at_a_singularity():
    """Takes the logarithm of its input in a branch that it does not take at zero."""

    def predict(model_weights, x, training):
        (weight,), _ = model_weights
        z = tf.reduce_sum(x * weight)
        value = tf.cond(z > 0.0, lambda: tf.math.log(z), lambda: 3.0 * z)
        return x[:, 0, :1] * 0.0 + value

    return _of_one_weight(predict)


def steps_that_depend_on_data():
    def predict(model_weights, x, training):
        (weight,), _ = model_weights
        steps = tf.cast(tf.reduce_max(tf.abs(x)), tf.int32)
        _, value = tf.while_loop(lambda i, _: i < steps, lambda i, v: (i + 1, v * tf.reduce_sum(weight)), [0, x[:, 0, :1]])
        return value

    return _of_one_weight(predict)


def asserting_of_its_data():
    def predict(model_weights, x, training):
        (weight,), _ = model_weights
        with tf.control_dependencies([tf.debugging.assert_less(x, 1e3)]):
            return tf.reduce_sum(x * weight, [1, 2])[:, tf.newaxis]

    return _of_one_weight(predict)


def without_loops():
    return _of_one_weight(lambda model_weights, x, training: tf.reduce_sum(x * model_weights[0][0], [1, 2])[:, tf.newaxis])


@functools.cache
def examples(size: int, features: tf.TensorSpec, label: tf.TensorSpec) -> tuple[np.ndarray, np.ndarray]:
    """Random examples for an input spec; labels that are not tokens are 0 or 1."""
    rng = np.random.default_rng(size)

    def values(spec: tf.TensorSpec) -> np.ndarray:
        shape = (size, *spec.shape[1:])
        return rng.integers(0, TOKENS, shape) if spec.dtype.is_integer else rng.normal(size=shape).astype(np.float32)

    return values(features), values(label) if label.dtype.is_integer else (values(label) > 0).astype(np.float32)


@functools.cache
def loaded(make) -> tuple[LoadedModel, LoadedModel, tuple[RetracedLoop, ...]]:
    """The model that a function makes, saved and loaded, and the same traced again, with what was traced."""
    with tempfile.TemporaryDirectory() as directory:
        tff.learning.models.save_functional_model(make(), directory)
        return load_model(directory), *retrace_model(load_model(directory))
