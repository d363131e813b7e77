"""Run by test_ops.py: saves an EMNIST CNN, and prints as JSON the ops of the same network written as `odp-task ops` advises and of a
recurrent one.

The latter happens here rather than through the command because TensorFlow is loaded already.
"""

import json
import os
import sys

import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder.inspection.document import client_ops_document
from odp_taskbuilder.inspection.model_ops import model_ops

layers = tf.keras.layers


class ShiftedConvolution(layers.Layer):
    """A 3 x 3 convolution as slices and a dense layer."""

    def __init__(self, filters, **options):
        super().__init__(**options)
        self.filters = filters
        self.dense = layers.Dense(filters, activation="relu")

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}

    def call(self, x):
        height, width = x.shape[1] - 2, x.shape[2] - 2
        return self.dense(tf.concat([x[:, i : i + height, j : j + width, :] for i in range(3) for j in range(3)], -1))


class BlockMaximum(layers.Layer):
    """Max pooling as a maximum over blocks."""

    def call(self, x):
        height, width, channels = x.shape[1] // 2, x.shape[2] // 2, x.shape[3]
        blocks = tf.reshape(x[:, : 2 * height, : 2 * width, :], [-1, height, 2, width, 2, channels])
        return tf.reduce_max(blocks, axis=[2, 4])


class OneHotCrossentropy(tf.keras.losses.Loss):
    def call(self, y_true, y_pred):
        return tf.keras.losses.categorical_crossentropy(tf.one_hot(tf.reshape(y_true, [-1]), 10), y_pred)


def _save(folder, first, first_pool, second, second_pool, loss):
    model = tf.keras.Sequential(
        [
            layers.InputLayer([28, 28, 1]),
            *(first, first_pool, second, second_pool),
            *(layers.Flatten(), layers.Dense(32, activation="relu"), layers.Dense(10, activation="softmax")),
        ]
    )
    spec = (tf.TensorSpec([None, 28, 28, 1], tf.float32), tf.TensorSpec([None, 1], tf.int64))
    tff.learning.models.save_functional_model(
        tff.learning.models.functional_model_from_keras(model, loss, input_spec=spec), folder
    )


def _save_recurrent(folder):
    """Loops and branches, whose bodies are functions of their own: an LSTM's, and that of the hinge loss."""
    model = tf.keras.Sequential([layers.InputLayer([6, 4]), layers.LSTM(3, name="memory"), layers.Dense(1)], name="reader")
    spec = (tf.TensorSpec([None, 6, 4], tf.float32), tf.TensorSpec([None, 1], tf.float32))
    tff.learning.models.save_functional_model(
        tff.learning.models.functional_model_from_keras(model, tf.keras.losses.Hinge(), input_spec=spec), folder
    )


def main(folder, config):
    _save(
        f"{folder}/cnn",
        layers.Conv2D(8, 3, activation="relu", name="strokes"),
        layers.MaxPool2D(name="halve"),
        layers.Conv2D(8, 3, activation="relu", name="shapes"),
        layers.MaxPool2D(name="halve_again"),
        tf.keras.losses.SparseCategoricalCrossentropy(),
    )
    _save(
        f"{folder}/advised",
        ShiftedConvolution(8, name="strokes"),
        BlockMaximum(name="halve"),
        ShiftedConvolution(8, name="shapes"),
        BlockMaximum(name="halve_again"),
        OneHotCrossentropy(),
    )
    _save_recurrent(f"{folder}/recurrent")
    documents = {name: client_ops_document(model_ops(f"{folder}/{name}", config), None) for name in ("advised", "recurrent")}
    documents["kept"] = client_ops_document(model_ops(f"{folder}/recurrent", config, keep_ops=True), None)
    print(json.dumps(documents))
    sys.stdout.flush()
    # TFF complains while the interpreter goes down.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
