"""The metrics a task reports: the configured Keras metrics and the loss (spec: metrics.md).

TFF keeps the state of metrics as plain tensors that are summed over the clients and finalized once, on the server. The state here is an
ordered map from metric name to the tuple of that metric's Keras variables, followed by `loss` with the pair (sum of loss times examples,
number of examples). Its order decides what devices upload.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Sequence
from typing import Any, Callable

import tensorflow as tf
import tensorflow_federated as tff

_METRICS: dict[str, Callable[..., tf.keras.metrics.Metric]] = {
    "auc-roc": tf.keras.metrics.AUC,
    "auc-pr": functools.partial(tf.keras.metrics.AUC, curve="PR"),
    "accuracy": tf.keras.metrics.Accuracy,
    "binary_accuracy": tf.keras.metrics.BinaryAccuracy,
    "binary_crossentropy": functools.partial(tf.keras.metrics.BinaryCrossentropy, from_logits=False),
    "binary_crossentropy_from_logits": functools.partial(tf.keras.metrics.BinaryCrossentropy, from_logits=True),
    "categorical_accuracy": tf.keras.metrics.CategoricalAccuracy,
    "categorical_crossentropy": functools.partial(tf.keras.metrics.CategoricalCrossentropy, from_logits=False),
    "categorical_crossentropy_from_logits": functools.partial(tf.keras.metrics.CategoricalCrossentropy, from_logits=True),
    "mean_absolute_error": tf.keras.metrics.MeanAbsoluteError,
    "mean_absolute_percentage_error": tf.keras.metrics.MeanAbsolutePercentageError,
    "mean_squared_error": tf.keras.metrics.MeanSquaredError,
    "mean_squared_logarithmic_error": tf.keras.metrics.MeanSquaredLogarithmicError,
    "precision": tf.keras.metrics.Precision,
    "recall": tf.keras.metrics.Recall,
    "root_mean_squared_error": tf.keras.metrics.RootMeanSquaredError,
    "sparse_categorical_accuracy": tf.keras.metrics.SparseCategoricalAccuracy,
    "sparse_categorical_crossentropy": functools.partial(tf.keras.metrics.SparseCategoricalCrossentropy, from_logits=False),
    "sparse_categorical_crossentropy_from_logits": functools.partial(
        tf.keras.metrics.SparseCategoricalCrossentropy, from_logits=True
    ),
}

LOSS = "loss"


def metric_functions(names: Sequence[str]) -> tuple[Callable[[], Any], Callable[..., Any], Callable[[Any], Any]]:
    """The functions (initialize, update, finalize) that a FunctionalModel takes as `metrics_fns`.

    Args:
      names: metrics of the allow list, without `loss`, which is always added last.
    """
    # The constructors get an explicit name: Keras numbers repeated classes, and plans need stable names.
    initialize_keras, update_keras, finalize_keras = tff.learning.metrics.create_functional_metric_fns(
        lambda: collections.OrderedDict((name, _METRICS[name](name=name)) for name in names)
    )

    @tf.function
    def initialize():
        state = collections.OrderedDict(initialize_keras())
        state[LOSS] = (tf.zeros([], tf.float32), tf.zeros([], tf.float32))
        return state

    @tf.function
    def update(state, labels, batch_output, sample_weight=None):
        keras_state, (loss_sum, num_examples_sum) = _split(state)
        predictions = batch_output.predictions
        # Three outputs are read as (predictions, ..., logits): metrics look at the last (spec: metrics.md, section 3).
        if isinstance(predictions, tuple) and len(predictions) == 3:
            batch_output = tff.learning.models.BatchOutput(
                loss=batch_output.loss, predictions=predictions[2], num_examples=batch_output.num_examples
            )
        new_state = collections.OrderedDict(update_keras(keras_state, labels, batch_output, sample_weight))
        num_examples = tf.cast(batch_output.num_examples, tf.float32)
        new_state[LOSS] = (loss_sum + batch_output.loss * num_examples, num_examples_sum + num_examples)
        return new_state

    @tf.function
    def finalize(state):
        keras_state, (loss_sum, num_examples_sum) = _split(state)
        values = collections.OrderedDict(finalize_keras(keras_state))
        values[LOSS] = loss_sum / num_examples_sum
        return values

    return initialize, update, finalize


def _split(state: Any) -> tuple[Any, Any]:
    keras_state = collections.OrderedDict((name, value) for name, value in state.items() if name != LOSS)
    return keras_state, state[LOSS]
