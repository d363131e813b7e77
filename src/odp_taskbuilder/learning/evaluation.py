"""The evaluation process: the metrics of the current weights on the clients' examples (spec: plan.md, section 9).

Its state is the training process's, handed through unchanged, so that a server can feed it training checkpoints. (TFF's `build_fed_eval`
has a state of its own and reports under other names.)
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder.config.compression import Compression
from odp_taskbuilder.learning import client_work, model_checks
from odp_taskbuilder.learning.compression import broadcast_codes


def evaluation_computation(
    model: tff.learning.models.FunctionalModel, state_type: tff.Type, compression: Compression = Compression()
) -> tff.Computation:
    """Builds (state at the server, datasets at the clients) -> (state, {"eval": metrics}).

    Args:
      model: from `training.with_metrics`.
      state_type: the training process's, with `global_model_weights`.
      compression: with `evaluation`, clients get the weights as codes.

    Raises:
      errors.ModelError: TensorFlow or TFF cannot compose it from the model.
    """
    with model_checks.composing("the evaluation"):
        return _evaluation_computation(model, state_type, compression)


def _evaluation_computation(
    model: tff.learning.models.FunctionalModel, state_type: tff.Type, compression: Compression
) -> tff.Computation:
    weights_type = tff.types.tensorflow_to_type(
        tuple(tuple(tf.TensorSpec(weight.shape, weight.dtype) for weight in group) for group in model.initial_weights)
    )
    batch_type = tff.types.tensorflow_to_type(model.input_spec)

    @tff.tensorflow.computation(state_type)
    def weights_of(state):
        return tuple(state.global_model_weights.trainable), tuple(state.global_model_weights.non_trainable)

    @tff.tensorflow.computation(weights_type, tff.SequenceType(batch_type))
    def evaluate(weights, dataset):
        return _evaluate(model, _as_tuples(weights), dataset)

    sum_then_finalize = tff.learning.metrics.sum_then_finalize(model.finalize_metrics, evaluate.type_signature.result)

    @tff.federated_computation(
        tff.FederatedType(state_type, tff.SERVER), tff.FederatedType(tff.SequenceType(batch_type), tff.CLIENTS)
    )
    def next_evaluation(state, datasets):
        weights = tff.federated_map(weights_of, state)
        weights = broadcast_codes(weights_type, compression, weights) if compression.evaluation else tff.federated_broadcast(weights)
        local_metrics = tff.federated_map(evaluate, (weights, datasets))
        metrics = tff.federated_zip(collections.OrderedDict(eval=sum_then_finalize(local_metrics)))
        return state, metrics

    return next_evaluation


def _as_tuples(weights: Iterable) -> tuple:
    return tuple(tuple(group) for group in weights)


def _evaluate(model: tff.learning.models.FunctionalModel, weights: tuple, dataset: tf.data.Dataset) -> Any:
    # A reduction instead of an iterator: one op on the device, and a flatbuffer less than half the size.
    @tf.function
    @tf.autograph.experimental.do_not_convert
    def update(state, batch):
        features, label = batch
        output = model.predict_on_batch(weights, features, training=False)
        batch_output = tff.learning.models.BatchOutput(
            loss=model.loss(output=output, label=label),
            predictions=output,
            num_examples=tf.shape(tf.nest.flatten(output)[0])[0],
        )
        return model.update_metrics_state(state, labels=label, batch_output=batch_output)

    metrics = dataset.reduce(model.initialize_metrics_state(), update)
    return client_work.guarded_metrics(model, metrics, client_work.sound_metrics(metrics))
