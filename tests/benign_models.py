"""Models of the kinds that people train with federated learning. None of them may be refused."""

from __future__ import annotations

import collections
import pathlib

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

layers = tf.keras.layers
FunctionalModel = tff.learning.models.FunctionalModel


def _from_keras(keras_model, loss, x, y):
    return tff.learning.models.functional_model_from_keras(keras_model, loss, input_spec=(x, y))


def _spec(*shape, dtype=tf.float32):
    return tf.TensorSpec([None, *shape], dtype)


def dense():
    model = tf.keras.Sequential(
        [
            layers.Dense(8, "relu", input_shape=(20,)),
            layers.Dense(3, kernel_regularizer="l2"),
        ]
    )
    return _from_keras(
        model, tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True), _spec(20), _spec(1, dtype=tf.int64)
    )


def convolutional():
    model = tf.keras.Sequential(
        [
            layers.Rescaling(1 / 255, input_shape=(16, 16, 3)),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.GroupNormalization(2),
            layers.MaxPooling2D(),
            layers.DepthwiseConv2D(3, activation="gelu"),
            layers.SeparableConv2D(4, 3, activation=tf.nn.relu6),
            layers.ZeroPadding2D(2),
            layers.Conv2DTranspose(4, 3, strides=2),
            layers.UpSampling2D(interpolation="bilinear"),
            layers.AveragePooling2D(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, "softmax"),
        ]
    )
    return _from_keras(model, tf.keras.losses.CategoricalCrossentropy(label_smoothing=0.1), _spec(16, 16, 3), _spec(10))


def activations():
    inputs = tf.keras.Input((6, 2))
    x = layers.Conv1D(4, 2, padding="causal", activation="swish")(inputs)
    x = layers.LeakyReLU()(layers.Conv1D(4, 1, activation="elu")(x))
    x = layers.PReLU()(layers.Conv1D(4, 1, activation="selu")(x))
    x = layers.Flatten()(layers.MaxPooling1D()(layers.Dense(4, "softplus")(x)))
    y = layers.Concatenate()(
        [layers.Dense(3, name, input_shape=(12,))(x) for name in ("softsign", "hard_sigmoid", "exponential", "mish")]
    )
    model = tf.keras.Model(inputs, layers.Dense(1, "tanh")(layers.UnitNormalization()(y)))
    return _from_keras(model, tf.keras.losses.Huber(), _spec(6, 2), _spec(1))


def recurrent():
    inputs = tf.keras.Input((7,), dtype=tf.int64)
    x = layers.Embedding(50, 4, mask_zero=True)(inputs)
    x = layers.GRU(3, return_sequences=True)(x)
    x = layers.LSTM(3, return_sequences=True, go_backwards=True)(x)
    x = layers.TimeDistributed(layers.Dense(2))(x)
    model = tf.keras.Model(inputs, layers.Dense(1, "sigmoid")(layers.SimpleRNN(2)(x)))
    return _from_keras(model, tf.keras.losses.BinaryFocalCrossentropy(), _spec(7, dtype=tf.int64), _spec(1))


def transformer():
    inputs = tf.keras.Input((7,), dtype=tf.int32)
    x = layers.Embedding(50, 8)(inputs)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True))
    x = layers.LayerNormalization(epsilon=1e-6)(
        x + layers.EinsumDense("abc,cd->abd", output_shape=(None, 8), activation="gelu")(x)
    )
    x = layers.Attention()([x, x])
    model = tf.keras.Model(inputs, layers.Dense(4)(layers.GlobalMaxPooling1D()(x)))
    return _from_keras(model, tf.keras.losses.CosineSimilarity(), _spec(7, dtype=tf.int32), _spec(4))


def volumes():
    model = tf.keras.Sequential(
        [
            layers.Conv3D(2, 2, input_shape=(6, 6, 6, 1)),
            layers.AveragePooling3D(),
            layers.Conv3DTranspose(2, 2),
            layers.MaxPooling3D(),
            layers.Reshape((-1,)),
            layers.Dense(2),
        ]
    )
    return _from_keras(model, tf.keras.losses.KLDivergence(), _spec(6, 6, 6, 1), _spec(2))


def hashed_strings():
    """Categorical features as strings, of which no vocabulary exists: hashed, one-hot, embedded; features come as a dict."""

    @tf.function
    def predict(weights, x, training=True):
        (table, kernel), _ = weights
        words = tf.strings.split(tf.strings.regex_replace(tf.strings.lower(x["text"]), "[^a-z ]", "")).to_tensor("")
        ids = tf.strings.to_hash_bucket_fast(words, 32)
        embedded = tf.reduce_mean(tf.nn.embedding_lookup(table, ids), axis=1)
        app = tf.one_hot(tf.strings.to_hash_bucket_strong(x["app"], 8, key=[1, 2]), 8)
        number = tf.clip_by_value(tf.strings.to_number(x["count"]), 0, 10)[:, tf.newaxis]
        return tf.concat([embedded, app, tf.math.log1p(number)], axis=-1) @ kernel

    def loss(output, label, sample_weight=None):
        tf.debugging.assert_all_finite(output, "output")
        return tf.reduce_mean(tf.nn.weighted_cross_entropy_with_logits(label, output, pos_weight=2.0))

    spec = collections.OrderedDict((name, _spec(dtype=tf.string)) for name in ("text", "app", "count"))
    weights = ((np.ones((32, 4), np.float32), np.ones((13, 1), np.float32)), ())
    return FunctionalModel(initial_weights=weights, predict_on_batch_fn=predict, loss_fn=loss, input_spec=(spec, _spec(1)))


def control_flow():
    """Loops, branches, custom gradients and random numbers written by hand."""

    @tf.custom_gradient
    def clipped(x):
        return tf.identity(x), lambda upstream: tf.clip_by_norm(upstream, 1.0)

    @tf.function
    def predict(weights, x, training=True):
        (kernel,), (steps,) = weights
        x = clipped(x)
        if training:
            x = (
                tf.nn.dropout(x, 0.1)
                + tf.random.stateless_normal(tf.shape(x), seed=[1, 2])
                + tf.random.normal(tf.shape(x)) * 1e-3
            )
        y = tf.while_loop(lambda i, _: i < steps, lambda i, y: (i + 1, tf.nn.relu(y @ kernel)), [0, x])[1]
        y = tf.map_fn(lambda row: tf.cumsum(row) + tf.sort(row), y)
        y = tf.cond(tf.reduce_sum(y) > 0, lambda: y, lambda: -y)
        y = tf.switch_case(tf.rank(y) - 2, [lambda: y, lambda: y * 2])
        return tf.linalg.l2_normalize(tf.scan(lambda a, row: a * 0.5 + row, y), axis=-1)

    def loss(output, label, sample_weight=None):
        tf.debugging.assert_equal(tf.shape(output)[0], tf.shape(label)[0])
        return tf.reduce_mean(tf.math.squared_difference(output, label))

    weights = ((np.eye(4, dtype=np.float32),), (np.int32(3),))
    return FunctionalModel(initial_weights=weights, predict_on_batch_fn=predict, loss_fn=loss, input_spec=(_spec(4), _spec(4)))


def recommender():
    """Factorisation of two id spaces, normalised with moving statistics that are given as weights."""

    @tf.function
    def predict(weights, x, training=True):
        (users, items), (mean, variance) = weights
        u = tf.gather(users, x["user"])
        v = tf.nn.safe_embedding_lookup_sparse(items, tf.sparse.from_dense(x["items"]), combiner="sqrtn")
        z = tf.einsum("bi,bi->bi", u, v)
        z = tf.nn.batch_normalization(z, mean, variance, None, None, 1e-3)
        top, _ = tf.math.top_k(z, 2)
        return tf.reduce_sum(z, -1, keepdims=True) + tf.reduce_logsumexp(top, -1, keepdims=True)

    weights = (
        (np.ones((9, 4), np.float32), np.ones((11, 4), np.float32)),
        (np.zeros(4, np.float32), np.ones(4, np.float32)),
    )
    spec = collections.OrderedDict(user=_spec(dtype=tf.int64), items=_spec(5, dtype=tf.int64))
    return FunctionalModel(
        initial_weights=weights,
        predict_on_batch_fn=predict,
        loss_fn=lambda output, label, sample_weight=None: tf.reduce_mean(tf.math.abs(output - label)),
        input_spec=(spec, _spec(1)),
    )


def images():
    """Image preparation inside the model."""

    @tf.function
    def predict(weights, x, training=True):
        ((kernel, offset),), _ = weights
        x = tf.image.convert_image_dtype(x, tf.float32)
        x = tf.image.per_image_standardization(tf.image.resize(x, [8, 8]))
        x = tf.image.adjust_contrast(tf.image.random_flip_left_right(x) if training else x, 1.1)
        x = tf.compat.v1.nn.fused_batch_norm(x, tf.ones(1), tf.zeros(1), epsilon=1e-3)[0]
        x = tf.nn.max_pool2d(tf.nn.space_to_depth(x, 2), 2, 2, "SAME")
        return tf.nn.log_softmax(tf.nn.bias_add(tf.reshape(x, [-1, 16]) @ kernel, offset))

    weights = (((np.ones((16, 2), np.float32), np.zeros(2, np.float32)),), ())
    return FunctionalModel(
        initial_weights=weights,
        predict_on_batch_fn=predict,
        loss_fn=lambda output, label, sample_weight=None: -tf.reduce_mean(tf.gather(output, label, batch_dims=1)),
        input_spec=(_spec(12, 12, 1, dtype=tf.uint8), _spec(1, dtype=tf.int32)),
    )


MODELS = (dense, convolutional, activations, recurrent, transformer, volumes, hashed_strings, control_flow, recommender, images)


def write_all(directory: pathlib.Path) -> None:
    """Saves each model below `directory`, under its name."""
    for build in MODELS:
        tff.learning.models.save_functional_model(build(), str(directory / build.__name__))
