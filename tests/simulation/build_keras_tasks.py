"""Builds tasks of models that save_keras_model saved: `python build_keras_tasks.py DIRECTORY`."""

import pathlib
import sys

import tensorflow as tf

from odp_taskbuilder import build, save_keras_model
from odp_taskbuilder.config.spec import ResolveOptions

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs" / "digits" / "try_out.pbtxt"
LOSS = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
layers = tf.keras.layers


def main(directory: pathlib.Path) -> None:
    config = CONFIG.read_text().replace("mode: TRAINING_AND_EVAL", "mode: TRAINING_ONLY")
    tf.keras.utils.set_random_seed(8)
    for name, make in {"drawing": drawing_model, "named": model_of_named_features}.items():
        save_keras_model(make(), directory / f"{name}_model", loss=LOSS)
        (directory / f"{name}.pbtxt").write_text(f'{config}label_name: "digit"\n')
        options = build.BuildOptions(resolve=ResolveOptions(skip_dp_aggregator=True))
        build.build(directory / f"{name}_model", directory / f"{name}.pbtxt", directory / name, options)


def drawing_model() -> tf.keras.Model:
    """Draws uniformly and normally, with seeds that TensorFlow puts into its graph: phones would draw the same for ever."""
    stack = [layers.Dense(16, "relu", input_shape=[64]), layers.Dropout(0.5), layers.GaussianNoise(0.1), layers.Dense(10)]
    return tf.keras.Sequential(stack)


def model_of_named_features() -> tf.keras.Model:
    """Features whose names are not in alphabetical order; one of them is boolean."""
    pixels, flag = tf.keras.Input([64], name="pixels"), tf.keras.Input([1], dtype=tf.bool, name="flag")
    hidden = layers.Dense(16, "tanh")(layers.Concatenate()([pixels, tf.cast(flag, tf.float32)]))
    return tf.keras.Model([pixels, flag], layers.Dense(10)(hidden))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
