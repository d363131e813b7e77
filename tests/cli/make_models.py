"""Saves the models of test_build.py below the directory that is given."""

import pathlib
import sys

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

directory = pathlib.Path(sys.argv[1])


def save(name, predict, weights, features, label=tf.TensorSpec([None, 1], tf.float32)):
    def loss(output, label, sample_weight=None):
        return tf.reduce_mean(tf.square(output - tf.cast(label, tf.float32)))

    model = tff.learning.models.FunctionalModel(
        initial_weights=(weights, ()), predict_on_batch_fn=tf.function(predict), loss_fn=loss, input_spec=(features, label)
    )
    tff.learning.models.save_functional_model(model, str(directory / name))


def with_cholesky(model_weights, x, training):
    (weight,), _ = model_weights
    factor = tf.linalg.cholesky(tf.matmul(weight, weight, transpose_a=True) + tf.eye(2))
    return tf.reduce_sum(tf.matmul(x, factor), axis=1, keepdims=True)


save("unsupported", with_cholesky, (np.ones([2, 2], np.float32),), tf.TensorSpec([None, 2], tf.float32))


def of_named_features(model_weights, x, training):
    (weight,), _ = model_weights
    # `zip` comes after `age` in no order but this one.
    columns = [tf.cast(x["zip"], tf.float32), tf.cast(x["age"], tf.float32)]
    return tf.matmul(tf.concat(columns, axis=1), weight)


save(
    "dictionary",
    of_named_features,
    (np.zeros([2, 1], np.float32),),
    {"zip": tf.TensorSpec([None, 1], tf.int64), "age": tf.TensorSpec([None, 1], tf.int32)},
    tf.TensorSpec([None, 1], tf.int32),
)
save(
    "float16",
    lambda model_weights, x, training: tf.matmul(tf.cast(x, tf.float32), model_weights[0][0]),
    (np.zeros([2, 1], np.float32),),
    tf.TensorSpec([None, 2], tf.float16),
)


def with_shift(model_weights, x, training):
    (weight,), _ = model_weights
    return tf.matmul(tf.cast(tf.bitwise.right_shift(tf.cast(x, tf.int32), 1), tf.float32), weight)


save("shift", with_shift, (np.ones([2, 1], np.float32),), tf.TensorSpec([None, 2], tf.float32))
# 13 million parameters, and examples of 52 KB.
save(
    "large",
    lambda model_weights, x, training: tf.matmul(tf.matmul(x, model_weights[0][0]), model_weights[0][1]),
    (np.zeros([13_000, 1_000], np.float32), np.zeros([1_000, 1], np.float32)),
    tf.TensorSpec([None, 13_000], tf.float32),
)


class Foreign(tf.Module):
    def __init__(self):
        self.weight = tf.Variable(1.0)

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def __call__(self, x):
        return self.weight * x


tf.saved_model.save(Foreign(), str(directory / "foreign"))
