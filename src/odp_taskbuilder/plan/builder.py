"""Assembling a Plan and the ClientOnlyPlan that devices download."""

from __future__ import annotations

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
    tflite_graph = tflite.convert(graph_def, phase.tensorflow_spec)
    plan.phase[0].client_phase.CopyFrom(phase)
    plan.client_tflite_graph_bytes = tflite_graph if keep_node_names else compaction.compact(tflite_graph)
    return plan


def client_only_plan(plan: plan_pb2.Plan) -> plan_pb2.ClientOnlyPlan:
    """The part of a plan that devices download (spec: plan.md, section 10)."""
    result = plan_pb2.ClientOnlyPlan(phase=plan.phase[0].client_phase, tflite_graph=plan.client_tflite_graph_bytes)
    if plan.HasField("tensorflow_config_proto"):
        result.tensorflow_config_proto.CopyFrom(plan.tensorflow_config_proto)
    return result
