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

from odp_taskbuilder import errors
from odp_taskbuilder.config import LoadedConfig
from odp_taskbuilder.learning import model_checks

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


def metric_functions(names: Sequence[str]) -> tuple[Any, Any, Any]:
    """The tf.functions (initialize, update, finalize) that a FunctionalModel takes as `metrics_fns`.

    Args:
      names: metrics of the allow list, without `loss`, which is always added last.
    """
    # The constructors get an explicit name: Keras numbers repeated classes, and plans need stable names.
    initialize_keras, update_keras, finalize_keras = tff.learning.metrics.create_functional_metric_fns(
        lambda: collections.OrderedDict((name, _METRICS[name](name=name)) for name in names)
    )

    @tf.function
    @tf.autograph.experimental.do_not_convert
    def initialize():
        state = collections.OrderedDict(initialize_keras())
        state[LOSS] = (tf.zeros([], tf.float32), tf.zeros([], tf.float32))
        return state

    @tf.function
    @tf.autograph.experimental.do_not_convert
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
    @tf.autograph.experimental.do_not_convert
    def finalize(state):
        keras_state, (loss_sum, num_examples_sum) = _split(state)
        values = collections.OrderedDict(finalize_keras(keras_state))
        values[LOSS] = loss_sum / num_examples_sum
        return values

    return initialize, update, finalize


def check_fit(model: tff.learning.models.FunctionalModel, names: Sequence[str], config: LoadedConfig) -> None:
    """Traces every metric, alone, on what the model puts out and on the label. Nothing is computed.

    What depends on the size of a batch, or on values, can still fail on a device.

    Args:
      names: metrics of the allow list, none of them twice.
      config: the config that names them.

    Raises:
      errors.ConfigError: names every metric that does not fit, with the shapes.
      errors.ModelError: the forward pass cannot be traced.
    """
    features, label = model.input_spec
    weights = tf.nest.map_structure(lambda weight: tf.TensorSpec(weight.shape, weight.dtype), model.initial_weights)
    predict = tf.function(lambda weights, x: model.predict_on_batch(weights, x, training=False))
    with model_checks.composing("the forward pass"):
        output = _specs(predict.get_concrete_function(weights, features).structured_outputs)
    batch_output = tff.learning.models.BatchOutput(
        loss=tf.TensorSpec([], tf.float32), predictions=output, num_examples=tf.TensorSpec([], tf.int32)
    )
    listed = [metric.name for metric in config.config.federated_learning.learning_process.metrics]
    problems = []
    for name in names:
        initialize, update, _ = metric_functions([name])
        state = _specs(initialize.get_concrete_function().structured_outputs)
        try:
            update.get_concrete_function(state, label, batch_output)
        except Exception as error:  # noqa: BLE001 - Keras and TensorFlow raise whatever the shapes make them stumble over.
            path = f"federated_learning.learning_process.metrics[{listed.index(name)}]"
            message = (
                f"The metric '{name}' does not fit the model: the model's output is {_describe(output)}, the label {_describe(label)}. "
                f"TensorFlow says: {model_checks.last_line(error)}"
            )
            problems.append(
                config.problem(path, message, "Remove the metric, or name one that compares tensors of these shapes.")
            )
    if problems:
        raise errors.ConfigError(problems, source=config.source)


def _specs(structure: Any) -> Any:
    return tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), structure)


def _describe(structure: Any) -> str:
    return " and ".join(f"{spec.dtype.name} {_shape(spec.shape)}" for spec in tf.nest.flatten(structure))


def _shape(shape: tf.TensorShape) -> str:
    return "of unknown rank" if shape.rank is None else f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _split(state: Any) -> tuple[Any, Any]:
    keras_state = collections.OrderedDict((name, value) for name, value in state.items() if name != LOSS)
    return keras_state, state[LOSS]
