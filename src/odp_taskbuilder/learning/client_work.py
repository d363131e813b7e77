"""What a client computes in a training round, and the guard over what it sends.

TFF zeroes a client whose update is not finite: the update, its weight and its metrics. It tests that with tf.math.is_finite, which
TensorFlow Lite writes out as `x - x == 0`; there arithmetic clamps to +-3.4e38, on x86 NaN too, and the test always passes. An overflow in
the first of several steps leaves weights that look like any others after the last one (spec: phone.md, H10; privacy.md, section 8).

So training is composed here as TFF composes it, with a guard that is made of comparisons, which do not clamp and are false for NaN on every
platform. It looks at every gradient, when it is computed, at the update and at the metrics. A client that fails it sends zeros: it counts
as a report, which is what the DP analysis expects, and adds nothing to any sum.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable

import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder.base.elementwise import magnitude

if TYPE_CHECKING:
    from typing_extensions import TypeAlias

# The L1 norm of no gradient and no update is honestly as large as this. It is also about where TFF's own clip ends: at an L2 norm of 1.8e19
# the squares overflow, and it makes NaN of the whole update.
TRAINING_LIMIT = 1e18
# Metrics are sums over examples, of squares where the loss is a mean squared error; they are summed again over clients.
METRICS_LIMIT = 1e30

Model: TypeAlias = tff.learning.models.FunctionalModel
# (trainable weights, non-trainable weights, dataset) -> (update, weight of the update, metrics)
_Train = Callable[[tuple, tuple, tf.data.Dataset], tuple[tuple, tf.Tensor, Any]]


def within(tensors: Sequence[tf.Tensor], limit: float) -> tf.Tensor:
    """Whether the L1 norm of every tensor is at most `limit`, as a scalar: false where there is NaN or an infinity, in TFLite as well.

    Its SUM does not clamp, and magnitudes do not cancel: one that is NaN, infinite or too large stays so in the sum. A comparison of each element
    with the limit would take a phone three times as long.
    """
    norms = [tf.reduce_sum(magnitude(tensor)) for tensor in tensors]
    return norms[0] <= limit if len(norms) == 1 else tf.reduce_all(tf.stack(norms) <= limit)


def fed_avg_client_work(
    model: Model, optimizer: tff.learning.optimizers.Optimizer
) -> tff.learning.templates.ClientWorkProcess:
    """Training of the weights on a client's batches; the update is the weights before minus the weights after.

    Every client has weight 1, a guarded one 0.
    """

    @tf.function
    @tf.autograph.experimental.do_not_convert
    def train(trainable, non_trainable, dataset):
        def step(state, batch):
            weights, optimizer_state, metrics, sound = state
            gradients, metrics, _ = _batch(model, (weights, non_trainable), batch, metrics, tf.UnconnectedGradients.NONE)
            optimizer_state, weights = optimizer.next(optimizer_state, weights, gradients)
            return weights, optimizer_state, metrics, tf.logical_and(sound, _sound(gradients))

        optimizer_state = optimizer.initialize(tuple(tf.TensorSpec(weight.shape, weight.dtype) for weight in trainable))
        initial_state = trainable, optimizer_state, model.initialize_metrics_state(), tf.constant(True)
        weights, _, metrics, sound = dataset.reduce(initial_state, step)
        # The converter does not know the shapes of what is read from the checkpoint, and TFLite's select makes a scalar of a tensor of
        # one element where it has to find out.
        update = tuple(tf.reshape(before - after, after.shape) for before, after in zip(trainable, weights))
        return _guarded(model, update, tf.constant(1.0), metrics, sound)

    return _client_work(model, train)


def fed_sgd_client_work(model: Model) -> tff.learning.templates.ClientWorkProcess:
    """The mean gradient over a client's examples at the weights that it was sent; the update's weight is their number."""

    @tf.function
    @tf.autograph.experimental.do_not_convert
    def train(trainable, non_trainable, dataset):
        def step(state, batch):
            sums, num_examples, metrics, sound = state
            weights = trainable, non_trainable
            gradients, metrics, batch_size = _batch(model, weights, batch, metrics, tf.UnconnectedGradients.ZERO)
            size = tf.cast(batch_size, tf.float32)
            sums = tuple(total + size * gradient for total, gradient in zip(sums, gradients))
            return sums, num_examples + size, metrics, tf.logical_and(sound, _sound(gradients))

        zeros = tuple(tf.zeros_like(weight) for weight in trainable)
        initial_state = zeros, tf.constant(0.0), model.initialize_metrics_state(), tf.constant(True)
        sums, num_examples, metrics, sound = dataset.reduce(initial_state, step)
        # Without examples the sums are zero, and so is the mean.
        means = tuple(total / tf.maximum(num_examples, 1.0) for total in sums)
        return _guarded(model, means, num_examples, metrics, sound)

    return _client_work(model, train)


def guarded_metrics(model: Model, metrics: Any, sound: tf.Tensor) -> Any:
    """A client's metrics before finalization, or those of a client without examples where `sound`, a scalar, is false."""
    return tf.nest.map_structure(lambda value, initial: tf.where(sound, value, initial), metrics, model.initialize_metrics_state())


def sound_metrics(metrics: Any) -> tf.Tensor:
    """Whether sums over clients stay finite with these metrics, as a scalar."""
    values = [value for value in tf.nest.flatten(metrics) if value.dtype.is_floating]
    # The loss is a pair of scalars. They are stacked and others looked at one by one: every op travels to every phone.
    scalars = tf.stack([value for value in values if value.shape.rank == 0])
    return within([scalars, *(value for value in values if value.shape.rank)], METRICS_LIMIT)


def weights_type_of(model: Model) -> tff.Type:
    """Of the weights that a client is sent."""
    specs = (tuple(tf.TensorSpec(weight.shape, weight.dtype) for weight in group) for group in model.initial_weights)
    return tff.types.tensorflow_to_type(tff.learning.models.ModelWeights(*specs))


def _batch(
    model: Model, weights: tuple, batch: Any, metrics: Any, unconnected: tf.UnconnectedGradients
) -> tuple[tuple, Any, tf.Tensor]:
    """The gradients of a batch's loss, the metrics with the batch in them, and the batch's size."""
    features, label = batch
    trainable, _ = weights
    with tf.GradientTape() as tape:
        tape.watch(trainable)
        output = model.predict_on_batch(weights, features, training=True)
        loss = model.loss(output=output, label=label)
    gradients = tape.gradient(loss, trainable, unconnected_gradients=unconnected)
    gradients = tuple(tf.convert_to_tensor(each) if isinstance(each, tf.IndexedSlices) else each for each in gradients)
    batch_size = tf.shape(tf.nest.flatten(output)[0])[0]
    batch_output = tff.learning.models.BatchOutput(loss=loss, predictions=output, num_examples=batch_size)
    return gradients, model.update_metrics_state(metrics, labels=label, batch_output=batch_output), batch_size


def _guarded(model: Model, update: tuple, weight: tf.Tensor, metrics: Any, sound: tf.Tensor) -> tuple[tuple, tf.Tensor, Any]:
    sound = tf.reduce_all(tf.stack([sound, within(update, TRAINING_LIMIT), sound_metrics(metrics)]))
    kept = tuple(_kept_if(sound, tensor) for tensor in update)
    return kept, tf.where(sound, weight, 0.0), guarded_metrics(model, metrics, sound)


def _kept_if(sound: tf.Tensor, tensor: tf.Tensor) -> tf.Tensor:
    """The tensor where a scalar is true, else zeros."""
    # tf.where would go through the elements one by one on a phone, in four dimensions at most; this one copies either of the two.
    return tf.raw_ops.Select(condition=sound, x=tensor, y=tf.zeros_like(tensor))


def _sound(gradients: Sequence[Any]) -> tf.Tensor:
    return within([gradient for gradient in gradients if gradient is not None], TRAINING_LIMIT)


def _client_work(model: Model, train: _Train) -> tff.learning.templates.ClientWorkProcess:
    """A process without state around a training function."""
    weights_type = weights_type_of(model)
    data_type = tff.SequenceType(tff.types.tensorflow_to_type(model.input_spec))

    @tff.tensorflow.computation(weights_type, data_type)
    def client_update(weights, dataset):
        update, weight, metrics = train(tuple(weights.trainable), tuple(weights.non_trainable), dataset)
        return tff.learning.templates.ClientResult(update=update, update_weight=weight), metrics

    sum_then_finalize = tff.learning.metrics.sum_then_finalize(model.finalize_metrics, client_update.type_signature.result[1])

    @tff.federated_computation
    def initialize():
        return tff.federated_value((), tff.SERVER)

    @tff.federated_computation(
        initialize.type_signature.result,
        tff.FederatedType(weights_type, tff.CLIENTS),
        tff.FederatedType(data_type, tff.CLIENTS),
    )
    def next_(state, weights, datasets):
        result, metrics = tff.federated_map(client_update, (weights, datasets))
        measurements = tff.federated_zip(collections.OrderedDict(train=sum_then_finalize(metrics)))
        return tff.templates.MeasuredProcessOutput(state, result, measurements)

    return tff.learning.templates.ClientWorkProcess(initialize, next_)
