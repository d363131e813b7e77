"""Assembling a Plan and the ClientOnlyPlan that devices download."""

from __future__ import annotations

import tensorflow_federated as tff

from odp_taskbuilder.config.spec import PlanForm
from odp_taskbuilder.plan import client, compaction, map_reduce, tflite
from odp_taskbuilder.proto import plan_pb2


def build_plan(next_computation: tff.Computation, source: client.DataSource, form: PlanForm) -> plan_pb2.Plan:
    """Builds the plan of a process.

    Args:
      next_computation: (state at the server, datasets at the clients) -> (state, metrics).
      source: how examples become the elements of the clients' datasets.

    Raises:
      errors.ModelError: the client graph cannot be converted, or the process needs what servers lack.
    """
    if form is PlanForm.DISTRIBUTE_AGGREGATE:
        raise NotImplementedError
    components = tff.backends.mapreduce.get_map_reduce_form_for_computation(next_computation)
    plan = map_reduce.server_plan(components)
    work_type = components.work.type_signature
    graph_def, phase = client.client_graph(components.work, work_type.parameter[1], work_type.result[0], source)
    plan.phase[0].client_phase.CopyFrom(phase)
    plan.client_tflite_graph_bytes = compaction.compact(tflite.convert(graph_def, phase.tensorflow_spec))
    return plan


def client_only_plan(plan: plan_pb2.Plan) -> plan_pb2.ClientOnlyPlan:
    """The part of a plan that devices download (spec: plan.md, section 10)."""
    result = plan_pb2.ClientOnlyPlan(phase=plan.phase[0].client_phase, tflite_graph=plan.client_tflite_graph_bytes)
    if plan.HasField("tensorflow_config_proto"):
        result.tensorflow_config_proto.CopyFrom(plan.tensorflow_config_proto)
    return result
