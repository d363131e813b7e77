"""Small models, and clients for them."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder.data import examples, tfrecord

# One client's data: batched features and labels as arrays, under the keys of an example.
Client = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class TinyModel:
    """A model, and how its clients' examples look.

    Attributes:
      make: returns the FunctionalModel.
      clients: of unequal size, so that weighting by examples, remainder batches and plain means can be told apart.
      to_batch: from the arrays of a batch to what the model takes, (features, label).
      label_name: for the task config.
    """

    make: Callable[[], tff.learning.models.FunctionalModel]
    clients: tuple[Client, ...]
    to_batch: Callable[[dict[str, Any]], tuple[Any, Any]]
    label_name: Optional[str] = None

    def dataset(self, client: Client, batch_size: int) -> tf.data.Dataset:
        """A client's batches as TFF takes them."""
        return tf.data.Dataset.from_tensor_slices(client).batch(batch_size).map(self.to_batch)


def write_client(client: Client, path: pathlib.Path) -> None:
    """Writes a client's examples as a TFRecord file of serialized `tf.train.Example`s."""
    size = len(next(iter(client.values())))
    tfrecord.write_records(
        path, [examples.encode({key: values[i].ravel() for key, values in client.items()}) for i in range(size)]
    )


def _binary_crossentropy(output, label, sample_weight=None):
    label = tf.cast(label, tf.float32)
    output = tf.clip_by_value(output, 1e-6, 1 - 1e-6)
    return -tf.reduce_mean(label * tf.math.log(output) + (1.0 - label) * tf.math.log(1.0 - output))


# Sides of the dense model's large weight.
_SIDE = 448


def _dense() -> tff.learning.models.FunctionalModel:
    rng = np.random.default_rng(7)
    trainable = [rng.normal(size=shape).astype(np.float32) for shape in [(3, 4), (4,), (4, 1), (1,)]]
    trainable.append(rng.normal(scale=0.01, size=(_SIDE, _SIDE)).astype(np.float32))
    # No element's gradient is close to zero, which would make relative errors meaningless.
    rows, columns = np.linspace(0.5, 1.5, 2 * _SIDE, dtype=np.float32).reshape(2, _SIDE, 1) / _SIDE**0.5

    @tf.function
    def predict(weights, x, training):
        (kernel, bias, kernel_2, bias_2, large), _ = weights
        hidden = tf.nn.relu(tf.matmul(x, kernel) + bias)
        linear = tf.matmul(tf.matmul(tf.matmul(x[:, :1], rows.T), large), columns)
        return tf.sigmoid(tf.matmul(hidden, kernel_2) + bias_2 + linear)

    return tff.learning.models.FunctionalModel(
        initial_weights=(tuple(trainable), ()),
        predict_on_batch_fn=predict,
        loss_fn=_binary_crossentropy,
        input_spec=(tf.TensorSpec([None, 3], tf.float32), tf.TensorSpec([None, 1], tf.int64)),
    )


def _dense_clients() -> tuple[Client, ...]:
    rng = np.random.default_rng(11)
    return tuple(
        {"x": rng.normal(scale=scale, size=(size, 3)).astype(np.float32), "y": rng.integers(0, 2, (size, 1))}
        for size, scale in [(1, 1e-3), (4, 1.0), (7, 2.0)]
    )


DENSE = TinyModel(_dense, _dense_clients(), lambda batch: (batch["x"], batch["y"]))


def _named() -> tff.learning.models.FunctionalModel:
    rng = np.random.default_rng(8)
    trainable = tuple(rng.normal(size=shape).astype(np.float32) for shape in [(2, 1), (5, 1), (1,)])
    non_trainable = (np.array([0.5, -2.0], np.float32), np.array(3, np.int32))

    @tf.function
    def predict(weights, x, training):
        (width_kernel, shade_kernel, bias), (scale, num_shades) = weights
        # Indices beyond those that the model knows share the last row.
        shade = tf.one_hot(tf.minimum(x["shade"], num_shades), 5)
        return tf.sigmoid(tf.matmul(x["width"] * scale, width_kernel) + tf.matmul(shade, shade_kernel) + bias)

    return tff.learning.models.FunctionalModel(
        initial_weights=(trainable, non_trainable),
        predict_on_batch_fn=predict,
        loss_fn=_binary_crossentropy,
        # Not in alphabetical order, as a user may write it.
        input_spec=(
            collections.OrderedDict(width=tf.TensorSpec([None, 2], tf.float32), shade=tf.TensorSpec([None], tf.int32)),
            tf.TensorSpec([None, 1], tf.int64),
        ),
    )


def _named_clients() -> tuple[Client, ...]:
    rng = np.random.default_rng(12)
    return tuple(
        {
            "width": rng.normal(size=(size, 2)).astype(np.float32),
            "shade": rng.integers(0, 5, size),
            "clicked": rng.integers(0, 2, (size, 1)),
        }
        for size in (2, 5, 8)
    )


NAMED = TinyModel(
    _named,
    _named_clients(),
    lambda batch: (
        collections.OrderedDict(width=batch["width"], shade=tf.cast(batch["shade"], tf.int32)),
        batch["clicked"],
    ),
    label_name="clicked",
)


def stack(*shapes: tuple[int, int]) -> TinyModel:
    """Dense layers without biases, from 784 features to one output, and one client."""

    def make() -> tff.learning.models.FunctionalModel:
        rng = np.random.default_rng(9)

        @tf.function
        def predict(weights, x, training):
            (*hidden, last), _ = weights
            for kernel in hidden:
                x = tf.nn.relu(tf.matmul(x, kernel))
            return tf.sigmoid(tf.matmul(x, last))

        return tff.learning.models.FunctionalModel(
            # Scaled so that activations keep their size from layer to layer.
            initial_weights=(
                tuple(rng.standard_normal(shape, np.float32) * np.float32((2 / shape[0]) ** 0.5) for shape in shapes),
                (),
            ),
            predict_on_batch_fn=predict,
            loss_fn=_binary_crossentropy,
            input_spec=(tf.TensorSpec([None, 784], tf.float32), tf.TensorSpec([None, 1], tf.int64)),
        )

    rng = np.random.default_rng(13)
    client = {"x": rng.random((3, 784), np.float32), "y": np.array([[0], [1], [0]])}
    return TinyModel(make, (client,), lambda batch: (batch["x"], batch["y"]))


def uniform(size: int) -> TinyModel:
    """One weight of `size` elements that all get the same gradient, and one client."""

    def make() -> tff.learning.models.FunctionalModel:
        @tf.function
        def predict(weights, x, training):
            ((weight,), _) = weights
            return tf.sigmoid(x * tf.reduce_sum(weight) * size**-0.5)

        return tff.learning.models.FunctionalModel(
            initial_weights=((np.zeros(size, np.float32),), ()),
            predict_on_batch_fn=predict,
            loss_fn=_binary_crossentropy,
            input_spec=(tf.TensorSpec([None, 1], tf.float32), tf.TensorSpec([None, 1], tf.int64)),
        )

    client = {"x": np.array([[1.0], [2.0], [0.5]], np.float32), "y": np.array([[0], [1], [0]])}
    return TinyModel(make, (client,), lambda batch: (batch["x"], batch["y"]))
