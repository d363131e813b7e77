"""The kinds of task: algorithm x aggregator x form, and optimizers x form."""

from __future__ import annotations

from typing import Optional

import pytest
import tiny_models
from plan_execution import Task

from odp_taskbuilder.config.spec import DpAggregator, LearningAlgorithm, OptimizerKind, PlanForm

for_each_algorithm = pytest.mark.parametrize("algorithm", LearningAlgorithm, ids=lambda algorithm: algorithm.value)
for_each_aggregator = pytest.mark.parametrize(
    "aggregator", [None, *DpAggregator], ids=lambda aggregator: "NONE" if aggregator is None else aggregator.value
)
for_each_dp_aggregator = pytest.mark.parametrize("aggregator", DpAggregator, ids=lambda aggregator: aggregator.value)
for_each_form = pytest.mark.parametrize("form", PlanForm, ids=lambda form: form.value)
# SGD on both sides is what the cells of algorithm x aggregator have.
for_each_optimizers = pytest.mark.parametrize(
    ("client_optimizer", "server_optimizer"),
    [
        (OptimizerKind.SGD, OptimizerKind.ADAM),
        (OptimizerKind.ADAM, OptimizerKind.SGD),
        (OptimizerKind.ADAM, OptimizerKind.ADAM),
    ],
    ids=lambda kind: kind.value,
)


def matrix_task(algorithm: LearningAlgorithm, aggregator: Optional[DpAggregator]) -> Task:
    return Task(tiny_models.DENSE, algorithm, aggregator)


def optimizers_task(client_optimizer: OptimizerKind, server_optimizer: OptimizerKind) -> Task:
    """Of a model with features by name and with weights that are not trained; two metrics."""
    return Task(
        tiny_models.NAMED,
        client_optimizer=client_optimizer,
        server_optimizer=server_optimizer,
        client_learning_rate=0.1,
        server_learning_rate=0.5,
        metrics=("auc-roc", "binary_accuracy"),
    )
