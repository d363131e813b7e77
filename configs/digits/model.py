"""The digits model for `odp-task proxy --model_function configs/digits/model.py:make_model`: as configs/digits/saved_model at width 1."""

import tensorflow as tf


def make_model(width):
    """Returns (Keras model, loss, input_spec) with 32 * width hidden units."""
    model = tf.keras.Sequential(
        [
            tf.keras.layers.InputLayer([64]),
            tf.keras.layers.Dense(max(1, round(32 * width)), activation="relu"),
            tf.keras.layers.Dense(10),
        ]
    )
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return model, loss, (tf.TensorSpec([None, 64], tf.float32), tf.TensorSpec([None, 1], tf.int64))
