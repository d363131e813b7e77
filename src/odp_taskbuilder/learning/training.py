"""The training process: FedAvg (https://arxiv.org/abs/1602.05629) or federated SGD, with the configured aggregator."""

from __future__ import annotations

from typing import Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder.config.compression import Compression
from odp_taskbuilder.config.spec import LearningAlgorithm, LearningSpec, OptimizerKind, OptimizerSpec, PlanForm, TaskSpec
from odp_taskbuilder.learning import aggregators, client_work, metrics, model_checks
from odp_taskbuilder.learning.compression import CodedSumFactory, GridSumFactory, model_distribution
from odp_taskbuilder.model.load import LoadedModel
from odp_taskbuilder.privacy import PrivacyBudget


def with_metrics(model: LoadedModel, names: tuple[str, ...]) -> tff.learning.models.FunctionalModel:
    """The model with metric functions; those that a saved model may carry are replaced."""
    functional_model = model.functional_model
    return tff.learning.models.FunctionalModel(
        initial_weights=functional_model.initial_weights,
        predict_on_batch_fn=functional_model.predict_on_batch,
        loss_fn=functional_model.loss,
        metrics_fns=metrics.metric_functions(names),
        input_spec=functional_model.input_spec,
    )


def training_process(
    model: tff.learning.models.FunctionalModel,
    spec: TaskSpec,
    budget: PrivacyBudget,
    compression: Compression = Compression(),
    *,
    work: Optional[tff.learning.templates.ClientWorkProcess] = None,
) -> tff.learning.templates.LearningProcess:
    """Composes the learning process that `spec` describes.

    Under FED_AVG every client counts once. Under FED_SGD clients count by their examples, unless a DP aggregator is in use: DP
    needs each client to count once, so the weight is then ignored.

    Args:
      model: from `with_metrics`. Its weights are stand-ins: `initialize` of the result yields zeros for them.
      budget: noise and clip of the aggregator.
      compression: of what travels. Its codes come after the clip, and `initialize` is the same with any.
      work: `client_work_process` of this model and `spec.learning`, where there is one.

    Raises:
      errors.ModelError: TensorFlow or TFF cannot compose one from the model.
    """
    work = work or client_work_process(model, spec.learning)
    with model_checks.composing("the training process"):
        return _training_process(model, spec, budget, compression, work)


def client_work_process(
    model: tff.learning.models.FunctionalModel, learning: LearningSpec
) -> tff.learning.templates.ClientWorkProcess:
    """What clients compute. Raises errors.ModelError as `training_process`."""
    with model_checks.composing("the training process"):
        if learning.algorithm is LearningAlgorithm.FED_AVG:
            return client_work.fed_avg_client_work(model, _optimizer(learning.client_optimizer))
        return client_work.fed_sgd_client_work(model)


def _training_process(
    model: tff.learning.models.FunctionalModel,
    spec: TaskSpec,
    budget: PrivacyBudget,
    compression: Compression,
    work: tff.learning.templates.ClientWorkProcess,
) -> tff.learning.templates.LearningProcess:
    value_sum = _coded_sum(spec, compression)
    factory = aggregators.dp_aggregator(
        None if spec.privacy.skip_aggregator else spec.privacy.aggregator,
        noise_multiplier=budget.noise_multiplier,
        report_goal=spec.privacy.report_goal,
        clip_norm=spec.privacy.clip_norm,
        trainable=model.initial_weights[0],
        record_sum=value_sum,
    )
    if spec.learning.algorithm is LearningAlgorithm.FED_AVG:
        factory = tff.aggregators.as_weighted_aggregator(factory or tff.aggregators.UnweightedMeanFactory(value_sum))
    else:
        factory = tff.aggregators.MeanFactory(value_sum) if factory is None else tff.aggregators.as_weighted_aggregator(factory)

    @tff.tensorflow.computation
    def initial_weights():
        return tff.learning.models.ModelWeights(*(tuple(map(tf.convert_to_tensor, group)) for group in model.initial_weights))

    weights_type = initial_weights.type_signature.result
    if compression.model_bits is None:
        distribution = tff.learning.templates.build_broadcast_process(weights_type)
    else:
        distribution = model_distribution(weights_type, compression)
    return tff.learning.templates.compose_learning_process(
        initial_weights,
        distribution,
        work,
        factory.create(weights_type.trainable, tff.TensorType(np.float32)),
        tff.learning.templates.build_apply_optimizer_finalizer(_optimizer(spec.learning.server_optimizer), weights_type),
    )


def _coded_sum(spec: TaskSpec, compression: Compression) -> Optional[tff.aggregators.UnweightedAggregationFactory]:
    """How updates are summed; None for as they are."""
    if compression.update_bits is None:
        return None
    return (GridSumFactory if spec.form is PlanForm.DISTRIBUTE_AGGREGATE else CodedSumFactory)(compression)


def _optimizer(spec: OptimizerSpec) -> tff.learning.optimizers.Optimizer:
    if spec.kind is OptimizerKind.ADAM:
        return tff.learning.optimizers.build_adam(spec.learning_rate)
    return tff.learning.optimizers.build_sgdm(spec.learning_rate)
