"""Saves small models, writes first configs for them and builds these. A program, since it imports TensorFlow Federated.

`python starter_models.py DIRECTORY` makes DIRECTORY/models/<name>, DIRECTORY/<name>.pbtxt and DIRECTORY/built/<name>/.
"""

import collections
import os
import pathlib
import sys

import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder import build
from odp_taskbuilder.model import starter_config

layers = tf.keras.layers
losses = tf.keras.losses


def spec(*shape, dtype=tf.float32):
    return tf.TensorSpec([None, *shape], dtype)


def named():
    age, postcode = tf.keras.Input((4,)), tf.keras.Input((2,))
    output = layers.Dense(1, "sigmoid")(layers.Concatenate()([age, postcode]))
    model = tf.keras.Model({"age": age, "postcode": postcode}, output)
    features = collections.OrderedDict(postcode=spec(2), age=spec(4))
    return model, losses.BinaryCrossentropy(), features, spec(1, dtype=tf.int64)


def sparse():
    model = tf.keras.Sequential([layers.Flatten(input_shape=(8, 8)), layers.Dense(10)])
    return model, losses.SparseCategoricalCrossentropy(from_logits=True), spec(8, 8), spec(1, dtype=tf.int32)


def regression():
    return tf.keras.Sequential([layers.Dense(1, input_shape=(3,))]), losses.MeanSquaredError(), spec(3), spec(1)


def main(directory: pathlib.Path) -> None:
    for make in (named, sparse, regression):
        model, loss, features, label = make()
        path = directory / "models" / make.__name__
        functional_model = tff.learning.models.functional_model_from_keras(model, loss, input_spec=(features, label))
        tff.learning.models.save_functional_model(functional_model, str(path))
        written = starter_config.write_starter_configs(path, directory / f"{make.__name__}.pbtxt")
        build.build(path, str(written.config), directory / "built", build.BuildOptions(skip_flex_ops_check=True))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
    # TensorFlow Federated complains while the interpreter takes it down.
    os._exit(0)
