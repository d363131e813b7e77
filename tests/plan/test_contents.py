"""What is in the artifacts of every kind of task: names that others rely on (spec: plan.md, section 3.4), and ops that phones have."""

from __future__ import annotations

import dataclasses
import re

from matrix_cells import for_each_aggregator, for_each_algorithm, for_each_form, matrix_task, optimizers_task
from plan_execution import read_checkpoint

from odp_taskbuilder.config.spec import DpAggregator, LearningAlgorithm, OptimizerKind
from odp_taskbuilder.ops.report import OpsReport, check_ops
from odp_taskbuilder.ops.tflite import OpKind

# Flex ops of the published client plans (spec: flex_ops.md, section 5) but for L2Loss.
PUBLISHED_OPS = {
    "BatchDatasetV2",
    "BroadcastGradientArgs",
    "ExternalDataset",
    "MapDataset",
    "ParseExampleV2",
    "ReduceDataset",
    "ReluGrad",
    "RestoreV2",
    "SaveSlices",
    "StridedSliceGrad",
    "TakeDataset",
}
# A published evaluation plan loops over batches with five iterator ops in place of the reduction.
EVALUATION_OPS = PUBLISHED_OPS - {"BroadcastGradientArgs", "ReluGrad", "StridedSliceGrad"}


@dataclasses.dataclass(frozen=True)
class Names:
    """Names that depend on the aggregator, as patterns for `expand`; `state` below `server/aggregator/`, `metrics` in order."""

    state: tuple[str, ...]
    broadcast: tuple[str, ...]
    update: tuple[str, ...]
    metrics: tuple[str, ...] = ()


_LOCAL_METRICS = "{binary_accuracy,loss}/{0,1}"
_DP_EVENT = "dp_event/{module_name,class_name}"
_EVENTS = "dp_event/events/{0,1}/{module_name,class_name}"
_ESTIMATE = "quantile_estimator_state/{current_estimate,target_quantile,learning_rate,below_estimate_state/denominator}"
_ESTIMATE_SENT = "quantile_estimator_params/{current_estimate,below_estimate_params}"
_TREE = "tree_state/{level_buffer_idx,value_generator_state/{seeds,stddev}}"

NAMES = {
    None: Names(state=(), broadcast=(), update=("update/0", f"update/1/{_LOCAL_METRICS}", "update/2/{0,1,2,3,4}")),
    DpAggregator.FIXED_GAUSSIAN: Names(
        state=(
            "query_state/{numerator_state/{l2_norm_clip,stddev},denominator}",
            "dp_event/{module_name,class_name,noise_multiplier}",
            "is_init_state",
        ),
        broadcast=("client/1",),
        update=(f"update/0/{_LOCAL_METRICS}", "update/1/{0,1,2,3,4}"),
    ),
    DpAggregator.ADAPTIVE_GAUSSIAN: Names(
        state=(
            "query_state/numerator_state/{noise_multiplier,sum_state/{l2_norm_clip,stddev}}",
            f"query_state/numerator_state/{_ESTIMATE}",
            "query_state/numerator_state/quantile_estimator_state/below_estimate_state/numerator_state/{l2_norm_clip,stddev}",
            "query_state/denominator",
            _DP_EVENT,
            _EVENTS,
            "dp_event/events/{0,1}/noise_multiplier",
            "is_init_state",
        ),
        broadcast=("client/1/sum_params", f"client/1/{_ESTIMATE_SENT}"),
        update=(f"update/0/{_LOCAL_METRICS}", "update/1/{sum_state/{0,1,2,3,4},quantile_estimator_state}"),
        metrics=("server/aggregator/dp_query_metrics/clip",),
    ),
    DpAggregator.TREE_AGGREGATION: Names(
        state=(
            f"inner_agg/query_state/numerator_state/{{{_TREE},clip_value}}",
            "inner_agg/query_state/numerator_state/{tree_state/level_buffer,previous_tree_noise}/{0,1,2,3,4}",
            "inner_agg/query_state/denominator",
            f"inner_agg/{_DP_EVENT}",
            "inner_agg/is_init_state",
        ),
        broadcast=("client/1", "client/2"),
        update=(f"update/0/{_LOCAL_METRICS}", "update/1/{0,1,2,3,4}", "update/2"),
        metrics=(
            "server/aggregator/zeroing/dp_query_metrics/tree_agg_dpftrl_clip",
            "server/aggregator/zeroing_norm",
            "server/aggregator/zeroed_count",
        ),
    ),
    DpAggregator.ADAPTIVE_TREE: Names(
        state=(
            "inner_agg/query_state/numerator_state/{indicator_state,inner_query_state/noise_multiplier}",
            f"inner_agg/query_state/numerator_state/inner_query_state/sum_state/{{{_TREE},clip_value}}",
            "inner_agg/query_state/numerator_state/inner_query_state/sum_state/{tree_state/level_buffer,previous_tree_noise}/{0,1,2,3,4}",
            f"inner_agg/query_state/numerator_state/inner_query_state/{_ESTIMATE}",
            "inner_agg/query_state/numerator_state/inner_query_state/quantile_estimator_state/below_estimate_state/numerator_state/"
            f"{{{_TREE},tree_state/level_buffer,clip_value,previous_tree_noise}}",
            "inner_agg/query_state/denominator",
            f"inner_agg/{_DP_EVENT}",
            f"inner_agg/{_EVENTS}",
            "inner_agg/is_init_state",
        ),
        broadcast=("client/1", "client/2/sum_params", f"client/2/{_ESTIMATE_SENT}"),
        update=(f"update/0/{_LOCAL_METRICS}", "update/1/{sum_state/{0,1,2,3,4},quantile_estimator_state}", "update/2"),
        metrics=(
            "server/aggregator/zeroing/dp_query_metrics/current_clip",
            "server/aggregator/zeroing/dp_query_metrics/estimate_clip",
            "server/aggregator/zeroing_norm",
            "server/aggregator/zeroed_count",
        ),
    ),
}
# Without an aggregator FED_SGD weights the clients' gradients, and needs no count of clients.
_WEIGHTED_UPDATE = (f"update/0/{_LOCAL_METRICS}", "update/1/{0,1,2,3,4}", "update/2")


def expand(*patterns: str) -> set[str]:
    """The names that patterns with alternatives in braces stand for, as a shell reads them."""
    names = set()
    for pattern in patterns:
        innermost = re.search(r"\{([^{}]*)\}", pattern)
        if innermost is None:
            names.add(pattern)
        else:
            before, after = pattern[: innermost.start()], pattern[innermost.end() :]
            names |= expand(*(before + alternative + after for alternative in innermost[1].split(",")))
    return names


def flex_ops(report: OpsReport) -> dict[str, int]:
    """Flex op -> how often it occurs."""
    assert not [use for use in report.ops if use.kind is OpKind.CUSTOM]
    return {use.op: use.count for use in report.ops if use.kind is OpKind.FLEX}


@for_each_algorithm
@for_each_aggregator
@for_each_form
def test_training_plans_need_the_ops_of_the_published_ones(built, algorithm, aggregator, form):
    report = built(matrix_task(algorithm, aggregator)).deployment(form).ops
    flex = flex_ops(report)
    # Norms are taken with builtin ops; TensorFlow's L2Loss would need a newer module.
    assert flex.keys() <= PUBLISHED_OPS
    assert check_ops(report) == "341812000"
    # ABS would take a phone longer than all others together. TFF's zeroing, before trees, looks at each weight of an update with it, once.
    builtin = {use.op: use.count for use in report.ops if use.kind is OpKind.BUILTIN}
    weights = 5
    assert builtin["NEG"] >= weights and builtin.get("ABS", 0) == (weights if aggregator and aggregator.is_tree else 0)


@for_each_aggregator
@for_each_form
def test_evaluation_plans_need_no_iterator(built, aggregator, form):
    report = built(matrix_task(LearningAlgorithm.FED_AVG, aggregator)).deployment(form, evaluates=True).ops
    assert flex_ops(report).keys() <= EVALUATION_OPS
    assert check_ops(report) == "341812000"


@for_each_algorithm
@for_each_aggregator
@for_each_form
def test_training_names(built, algorithm, aggregator, form):
    last = built(matrix_task(algorithm, aggregator)).artifact_rounds(form)[-1]
    names = NAMES[aggregator]
    state = expand("server/finalizer/learning_rate", "server/global_model_weights/trainable/{0,1,2,3,4}")
    state |= {f"server/aggregator/{name}" for name in expand(*names.state)}
    local_metrics = ["server/client_work/train/binary_accuracy", "server/client_work/train/loss"]
    metrics = [*local_metrics, *names.metrics, "server/finalizer/update_non_finite"]
    weighted = algorithm is LearningAlgorithm.FED_SGD and aggregator is None
    assert set(last.state) == state
    assert list(last.metrics) == metrics
    assert set(read_checkpoint(last.checkpoint)) == state | {re.sub("^server", "metrics", name) for name in metrics}
    assert set(read_checkpoint(last.client_checkpoint)) == expand("client/0/trainable/{0,1,2,3,4}", *names.broadcast)
    assert set(read_checkpoint(last.updates[0])) == expand(*(_WEIGHTED_UPDATE if weighted else names.update))


@for_each_aggregator
@for_each_form
def test_evaluation_names(built, aggregator, form):
    task = built(matrix_task(LearningAlgorithm.FED_AVG, aggregator))
    trained = task.artifact_rounds(form)[-1]
    evaluated = task.deployment(form, evaluates=True).round(trained.checkpoint, 2)
    assert list(evaluated.metrics) == ["server/eval/binary_accuracy", "server/eval/loss"]
    metrics = expand("metrics/eval/{binary_accuracy,loss}")
    assert set(read_checkpoint(evaluated.checkpoint)) == set(trained.state) | metrics
    assert set(read_checkpoint(evaluated.client_checkpoint)) == expand("client/0/0/{0,1,2,3,4}")
    assert set(read_checkpoint(evaluated.updates[0])) == expand(f"update/0/{_LOCAL_METRICS}")


@for_each_form
def test_names_of_weights_that_are_not_trained(built, form):
    task = built(optimizers_task(OptimizerKind.ADAM, OptimizerKind.ADAM))
    trained = task.artifact_rounds(form)[-1]
    evaluated = task.deployment(form, evaluates=True).round(trained.checkpoint, 2)
    assert expand("server/global_model_weights/{trainable/{0,1,2},non_trainable/{0,1}}") <= set(trained.state)
    # The state of ADAM on the server.
    assert expand("server/finalizer/{learning_rate,step,accumulator/{0,1,2},preconditioner/{0,1,2}}") <= set(trained.state)
    sent = expand("client/0/{trainable/{0,1,2},non_trainable/{0,1}}", "client/1")
    assert set(read_checkpoint(trained.client_checkpoint)) == sent
    assert set(read_checkpoint(evaluated.client_checkpoint)) == expand("client/0/{0/{0,1,2},1/{0,1}}")
