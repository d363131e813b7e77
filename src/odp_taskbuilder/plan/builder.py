"""Assembling a Plan and the ClientOnlyPlan that devices download."""

from __future__ import annotations

import dataclasses
from typing import Optional

import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder import errors, replacement
from odp_taskbuilder.base.phone_limits import DOUBTFUL_RUNTIME
from odp_taskbuilder.config.spec import PlanForm
from odp_taskbuilder.ops.allowlist import Allowlist
from odp_taskbuilder.ops.report import OpKind, OpsReport, ReplacedOp, ops_report
from odp_taskbuilder.ops.runtimes import parse_runtime
from odp_taskbuilder.plan import client, compaction, distribute_aggregate, map_reduce, tflite
from odp_taskbuilder.plan.optimize import without_optimization
from odp_taskbuilder.proto import plan_pb2

# Builtin ops of TFLite that stand for one op of TensorFlow, and that phones may be too old for.
_TENSORFLOW_NAMES = {"SIGN": "Sign"}
# An equivalent may bring ops that are replaced in turn; none that is known brings such ones.
_MAX_PASSES = 3


@dataclasses.dataclass(frozen=True)
class BuiltPlan:
    """A plan, and what is known of its client graph.

    Attributes:
      ops: of the client graph, with what was replaced and why ops that phones lack were not.
      original_graph: the client's flatbuffer before anything was replaced in it, with the names of the graph's nodes.
    """

    plan: plan_pb2.Plan
    ops: OpsReport
    original_graph: bytes


def build_plan(
    next_computation: tff.Computation,
    source: client.DataSource,
    form: PlanForm,
    *,
    keep_ops: bool = False,
    allowlist: Optional[Allowlist] = None,
    keep_node_names: bool = False,
) -> BuiltPlan:
    """Builds the plan of a process.

    Args:
      next_computation: (state at the server, datasets at the clients) -> (state, metrics).
      source: how examples become the elements of the clients' datasets.
      keep_ops: leave ops that phones lack in the client graph.
      allowlist: which ops phones have; the built-in list unless given.
      keep_node_names: leave the names of the graph's nodes in the client's flatbuffer, for those who ask where its ops come from.

    Raises:
      errors.ModelError: the client graph cannot be converted, or the process needs what servers lack.
    """
    if form is PlanForm.MAP_REDUCE:
        components = tff.backends.mapreduce.get_map_reduce_form_for_computation(
            next_computation, grappler_config=without_optimization()
        )
        plan = map_reduce.server_plan(components)
        work, update_type = components.work, components.work.type_signature.result[0]
    else:
        components = tff.backends.mapreduce.get_distribute_aggregate_form_for_computation(next_computation)
        plan = distribute_aggregate.server_plan(components)
        work = distribute_aggregate.extract_tensorflow(components.client_work)
        update_type = work.type_signature.result
    graph_def, phase = client.client_graph(work, work.type_signature.parameter[1], update_type, source)
    if not keep_ops:
        _forget_seeds(graph_def)
    original_graph = tflite.convert(graph_def, phase.tensorflow_spec)
    plan.phase[0].client_phase.CopyFrom(phase)
    tflite_graph, ops = original_graph, ops_report(original_graph, allowlist=allowlist)
    if not keep_ops:
        tflite_graph, ops = _replaced(original_graph, ops, graph_def, phase.tensorflow_spec, allowlist)
    plan.client_tflite_graph_bytes = tflite_graph if keep_node_names else compaction.compact(tflite_graph)
    final = ops_report(plan.client_tflite_graph_bytes, allowlist=allowlist)
    return BuiltPlan(plan, dataclasses.replace(final, replaced=ops.replaced, kept=ops.kept), original_graph)


def _forget_seeds(graph_def: tf.compat.v1.GraphDef) -> None:
    """Has a graph draw anew every time: with a seed in it (`tf.random.set_seed`), all phones would draw the same in all batches of all rounds."""
    for node in (*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)):
        if "seed" in node.attr and "seed2" in node.attr:
            node.attr["seed"].i = node.attr["seed2"].i = 0


def _replaced(
    original_graph: bytes,
    original: OpsReport,
    graph_def: tf.compat.v1.GraphDef,
    spec: plan_pb2.TensorflowSpec,
    allowlist: Optional[Allowlist],
) -> tuple[bytes, OpsReport]:
    """The client's flatbuffer without ops that phones lack, as far as there are equivalents.

    Only the converter knows what becomes of a node: some ops it writes out in builtin ones or takes to be dead, in one graph and not in
    the next. So what it left to TensorFlow is replaced, and the graph converted again.
    """
    try:
        graph_def, numbers = replacement.replace_distorted(graph_def)
    except replacement.NoEquivalentError as error:
        raise errors.ModelError(f"The client graph cannot be converted. {error}.") from error
    tflite_graph, ops = original_graph, original
    if numbers:
        tflite_graph = tflite.convert(graph_def, spec)
        ops = ops_report(tflite_graph, allowlist=allowlist)
    kept: dict[str, str] = {}
    for _ in range(_MAX_PASSES):
        lacking = set(_lacking(ops)) - set(kept)
        if not lacking:
            break
        graph_def, reasons = replacement.replace_ops(graph_def, lacking)
        kept.update(reasons)
        tflite_graph = tflite.convert(graph_def, spec)
        ops = ops_report(tflite_graph, allowlist=allowlist)
    left = _lacking(ops)
    for op, count in _lacking(original).items():
        if op in replacement.EQUIVALENTS and count > left.get(op, 0):
            numbers[op] = numbers.get(op, 0) + count - left.get(op, 0)
    replaced = [ReplacedOp(op, number, replacement.EQUIVALENTS[op].by) for op, number in sorted(numbers.items())]
    return tflite_graph, dataclasses.replace(
        ops, replaced=tuple(replaced), kept={op: reason for op, reason in sorted(kept.items()) if op in left}
    )


def _lacking(ops: OpsReport) -> dict[str, int]:
    """TensorFlow's name of each op that phones lack, or that their TensorFlow Lite is too old for, and how many operators execute it."""
    late = ops.beyond_runtime(parse_runtime(DOUBTFUL_RUNTIME))
    found = {use.op: use.count for use in ops.unsupported() if use.kind is OpKind.FLEX}
    return {**found, **{_TENSORFLOW_NAMES[use.op]: use.count for use in late if use.op in _TENSORFLOW_NAMES}}


def client_only_plan(plan: plan_pb2.Plan) -> plan_pb2.ClientOnlyPlan:
    """The part of a plan that devices download (spec: plan.md, section 10)."""
    result = plan_pb2.ClientOnlyPlan(phase=plan.phase[0].client_phase, tflite_graph=plan.client_tflite_graph_bytes)
    if plan.HasField("tensorflow_config_proto"):
        result.tensorflow_config_proto.CopyFrom(plan.tensorflow_config_proto)
    return result
