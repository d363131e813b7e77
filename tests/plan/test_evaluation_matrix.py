"""Every kind of evaluation task: its artifacts, executed on a training task's checkpoint, give the metrics that TFF and Keras give."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tiny_models
from matrix_cells import for_each_aggregator, for_each_form, matrix_task, optimizers_task
from plan_execution import (
    BATCH_SIZE,
    BuiltTask,
    assert_close,
    flatten_metrics,
    pack,
)

from odp_taskbuilder.config.spec import LearningAlgorithm, OptimizerKind, PlanForm

NAMED_TASK = optimizers_task(OptimizerKind.ADAM, OptimizerKind.ADAM)


def assert_evaluates_as_tff(task: BuiltTask, form: PlanForm) -> None:
    trained = task.artifact_rounds(form)[-1]
    evaluated = task.deployment(form, evaluates=True).round(trained.checkpoint, 0)
    datasets = [task.task.model.dataset(client, BATCH_SIZE) for client in task.task.model.clients]
    _, metrics = task.evaluation(pack(task.state_type, trained.state), datasets)
    assert_close(evaluated.metrics, flatten_metrics(metrics))
    # The state goes through unchanged.
    assert_close(evaluated.state, trained.state)


@for_each_aggregator
@for_each_form
def test_evaluation_agrees_with_tff(built, aggregator, form):
    assert_evaluates_as_tff(built(matrix_task(LearningAlgorithm.FED_AVG, aggregator)), form)


@for_each_form
def test_evaluation_of_named_features_agrees_with_tff(built, form):
    assert_evaluates_as_tff(built(NAMED_TASK), form)


@for_each_form
def test_evaluation_agrees_with_numpy_and_keras(built, form):
    """The metrics of all examples, computed at once from the weights in the training task's checkpoint."""
    task = built(NAMED_TASK)
    trained = task.artifact_rounds(form)[-1]
    evaluated = task.deployment(form, evaluates=True).round(trained.checkpoint, 1)

    width_kernel, shade_kernel, bias = (trained.state[f"server/global_model_weights/trainable/{k}"] for k in range(3))
    scale, num_shades = (trained.state[f"server/global_model_weights/non_trainable/{k}"] for k in range(2))
    width, shade, clicked = (
        np.concatenate([client[key] for client in tiny_models.NAMED.clients]) for key in ("width", "shade", "clicked")
    )
    logits = (width * scale) @ width_kernel + shade_kernel[np.minimum(shade, num_shades)] + bias
    output = 1 / (1 + np.exp(-logits))
    loss = -np.mean(np.where(clicked, np.log(output), np.log(1 - output)))
    auc = tf.keras.metrics.AUC()
    auc.update_state(clicked, output)
    assert_close(
        evaluated.metrics,
        {
            "server/eval/auc-roc": auc.result().numpy(),
            "server/eval/binary_accuracy": np.mean((output > 0.5) == clicked),
            "server/eval/loss": loss,
        },
    )
