#!/usr/bin/env python3
"""Writes the model of the example in configs/emnist_cnn: the convolutional network of McMahan et al., "Communication-Efficient Learning
of Deep Networks from Decentralized Data" (2017), section 3, for the ten digits of EMNIST. 1,663,370 weights, random ones.

Usage: .venv/bin/python configs/emnist_cnn/make_model.py [DIRECTORY]

The model takes 6.7 MB, so the repository holds this program in its place.
"""

import pathlib
import sys

import tensorflow as tf

from odp_taskbuilder import save_keras_model


def main(directory: pathlib.Path) -> None:
    tf.keras.utils.set_random_seed(20)
    layers = tf.keras.layers
    keras_model = tf.keras.Sequential(
        [
            layers.InputLayer([28, 28, 1]),
            layers.Conv2D(32, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    save_keras_model(keras_model, directory, loss=tf.keras.losses.SparseCategoricalCrossentropy(), overwrite=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).with_name("saved_model"))
