#!/usr/bin/env python3
"""Writes the model of the example in configs/digits: 64 pixels in, ten digits out, saved as a FunctionalModel.

Usage: .venv/bin/python configs/digits/make_model.py [DIRECTORY]
"""

import pathlib
import sys

import tensorflow as tf
import tensorflow_federated as tff


class OneHotCrossentropy(tf.keras.losses.Loss):
    """Sparse categorical cross-entropy, written with a one-hot label: Keras' own needs an op that phones lack."""

    def call(self, y_true, y_pred):
        label = tf.one_hot(tf.reshape(y_true, [-1]), 10)
        return tf.keras.losses.categorical_crossentropy(label, y_pred)


def main(directory: str) -> None:
    tf.keras.utils.set_random_seed(20)
    model = tff.learning.models.functional_model_from_keras(
        tf.keras.Sequential(
            [
                tf.keras.layers.InputLayer([64]),
                tf.keras.layers.Dense(32, activation="relu"),
                tf.keras.layers.Dense(10, activation="softmax"),
            ]
        ),
        OneHotCrossentropy(),
        input_spec=(tf.TensorSpec([None, 64], tf.float32), tf.TensorSpec([None, 1], tf.int64)),
    )
    tff.learning.models.save_functional_model(model, directory)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(pathlib.Path(__file__).with_name("saved_model")))
