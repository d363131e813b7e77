"""Assembling a Plan and the ClientOnlyPlan that devices download."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder.config.spec import PlanForm
from odp_taskbuilder.plan import client, compaction, distribute_aggregate, map_reduce, tflite
from odp_taskbuilder.plan.optimize import without_optimization
from odp_taskbuilder.proto import plan_pb2


def build_plan(
    next_computation: tff.Computation, source: client.DataSource, form: PlanForm, *, keep_node_names: bool = False
) -> plan_pb2.Plan:
    """Builds the plan of a process.

    Args:
      next_computation: (state at the server, datasets at the clients) -> (state, metrics).
      source: how examples become the elements of the clients' datasets.
      keep_node_names: leave the names of the graph's nodes in the client's flatbuffer, for those who ask where its ops come from.

    Raises:
      errors.ModelError: the client graph cannot be converted, or the process needs what servers lack.
    """
    if form is PlanForm.MAP_REDUCE:
        plan, graph_def, phase = _map_reduce(next_computation, source)
    else:
        plan, graph_def, phase = _distribute_aggregate(next_computation, source)
    plan.phase[0].client_phase.CopyFrom(phase)
    tflite_graph = tflite.convert(graph_def, phase.tensorflow_spec)
    plan.client_tflite_graph_bytes = tflite_graph if keep_node_names else compaction.compact(tflite_graph)
    return plan


def _map_reduce(
    next_computation: tff.Computation, source: client.DataSource
) -> tuple[plan_pb2.Plan, tf.compat.v1.GraphDef, plan_pb2.ClientPhase]:
    components = tff.backends.mapreduce.get_map_reduce_form_for_computation(
        next_computation, grappler_config=without_optimization()
    )
    work_type = components.work.type_signature
    # Published plans of this form keep TensorFlow's L2Loss, which is accurate and needs module version 341912000.
    graph_def, phase = client.client_graph(
        components.work, work_type.parameter[1], work_type.result[0], source, accurate_norms=False
    )
    return map_reduce.server_plan(components), graph_def, phase


def _distribute_aggregate(
    next_computation: tff.Computation, source: client.DataSource
) -> tuple[plan_pb2.Plan, tf.compat.v1.GraphDef, plan_pb2.ClientPhase]:
    components = tff.backends.mapreduce.get_distribute_aggregate_form_for_computation(next_computation)
    work = distribute_aggregate.extract_tensorflow(components.client_work)
    work_type = work.type_signature
    graph_def, phase = client.client_graph(work, work_type.parameter[1], work_type.result, source, accurate_norms=True)
    return distribute_aggregate.server_plan(components), graph_def, phase


def client_only_plan(plan: plan_pb2.Plan) -> plan_pb2.ClientOnlyPlan:
    """The part of a plan that devices download (spec: plan.md, section 10)."""
    result = plan_pb2.ClientOnlyPlan(phase=plan.phase[0].client_phase, tflite_graph=plan.client_tflite_graph_bytes)
    if plan.HasField("tensorflow_config_proto"):
        result.tensorflow_config_proto.CopyFrom(plan.tensorflow_config_proto)
    return result
