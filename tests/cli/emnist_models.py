"""Run by test_ops.py: saves an EMNIST CNN, and prints as JSON the ops of a recurrent network, replaced and kept.

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
    _save_recurrent(f"{folder}/recurrent")
    documents = {
        name: client_ops_document(model_ops(f"{folder}/recurrent", config, keep_ops=name == "kept"), None) for name in ("replaced", "kept")
    }
    print(json.dumps(documents))
    sys.stdout.flush()
    # TFF complains while the interpreter goes down.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
