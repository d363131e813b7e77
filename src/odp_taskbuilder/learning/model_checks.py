"""What a model must be like for a learning process to be composed from it, told in words of the model.

TensorFlow Federated finds most of this out too, deep inside of its own computations and in terms of those.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder import errors
from odp_taskbuilder.model.load import LoadedModel, WeightSpec


def check_weights(model: LoadedModel) -> None:
    """Refuses weights that cannot be trained or sent. Reads every value once; needs a quarter of the largest weight's memory.

    Raises:
      errors.ModelError: a trainable weight is not float32, or a weight is empty, NaN or infinite.
    """
    trainable, non_trainable = model.functional_model.initial_weights
    for index, spec in enumerate(trainable):
        if np.dtype(spec.dtype) != np.float32:
            raise errors.ModelError(
                f"Trainable weight {index} of the model is {describe(spec)}; the learning algorithms train float32 only.",
                next_step="Save the weight as float32 and cast inside the model, or make it non-trainable.",
            )
    named = {f"Trainable weight {index}": pair for index, pair in enumerate(zip(trainable, model.trainable))}
    named.update({f"Non-trainable weight {index}": pair for index, pair in enumerate(zip(non_trainable, model.non_trainable))})
    for name, (spec, variable) in named.items():
        if 0 in spec.shape:
            raise errors.ModelError(
                f"{name} of the model is {describe(spec)}: it has no elements, and checkpoints cannot hold it.",
                next_step="Leave it out.",
            )
        if variable.dtype.is_floating and not tf.reduce_all(tf.math.is_finite(variable)):
            raise errors.ModelError(
                f"{name} of the model, {describe(spec)}, holds NaN or infinity.",
                next_step="Save the model with finite weights.",
            )


def check_loss(model: tff.learning.models.FunctionalModel) -> None:
    """Traces the forward pass and the loss. Nothing is computed.

    Raises:
      errors.ModelError: they do not fit each other or the input spec, or the loss is not one float32.
    """
    features, label = model.input_spec
    weights = tf.nest.map_structure(lambda weight: tf.TensorSpec(weight.shape, weight.dtype), model.initial_weights)

    @tf.function
    @tf.autograph.experimental.do_not_convert
    def loss(weights, x, y):
        return model.loss(model.predict_on_batch(weights, x, training=True), y)

    with composing("the loss of a batch"):
        result = loss.get_concrete_function(weights, features, label).structured_outputs
    # Of a loss that ends in a branch the shape may be unknown.
    if result.dtype != tf.float32 or result.shape.rank not in (0, None):
        raise errors.ModelError(
            f"The loss of the model has dtype {result.dtype.name} and shape {result.shape}; "
            "it must be one float32, the mean over a batch.",
            next_step="Return tf.reduce_mean of the losses of the examples, cast to float32.",
        )


@contextlib.contextmanager
def composing(what: str) -> Iterator[None]:
    """Makes a ModelError of whatever TensorFlow and TFF raise in the block, which traces a user's model to compose `what`."""
    try:
        yield
    except errors.OdpTaskError:
        raise
    except Exception as error:  # noqa: BLE001 - tracing a model raises whatever the model makes it stumble over.
        raise errors.ModelError(f"{what[0].upper()}{what[1:]} cannot be composed from this model: {last_line(error)}") from error


def last_line(error: Exception) -> str:
    """What went wrong inside a traced function stands below where it did."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()


def describe(weight: WeightSpec) -> str:
    """Dtype and shape, as in float32[784, 10]."""
    return f"{np.dtype(weight.dtype).name}{list(weight.shape)}"
