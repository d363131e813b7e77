"""The ops of the client graphs that a model and a task config lead to, and where each comes from."""

from __future__ import annotations

import dataclasses
import os
from typing import Optional, Union

from odp_taskbuilder.base.stages import Stage, unannounced
from odp_taskbuilder.build import build_tasks
from odp_taskbuilder.config.build_options import BuildOptions
from odp_taskbuilder.config.spec import ResolveOptions
from odp_taskbuilder.inspection.client_ops import ClientOps
from odp_taskbuilder.ops import provenance
from odp_taskbuilder.ops.allowlist import Allowlist
from odp_taskbuilder.ops.report import ops_of, with_kernels
from odp_taskbuilder.ops.tflite import OpKind, read_tflite
from odp_taskbuilder.proto import plan_pb2
from odp_taskbuilder.stores import inputs
from odp_taskbuilder.transport import deadline as deadlines


def model_ops(
    saved_model: Union[str, os.PathLike],
    task_config: Union[str, os.PathLike],
    *,
    allowlist: Optional[Allowlist] = None,
    trust_model: bool = False,
    keep_ops: bool = False,
    stage: Stage = unannounced,
    network: deadlines.Network = deadlines.Network(),
) -> list[ClientOps]:
    """Builds the client graphs of a model and a task config, and tells where their flex ops come from. Takes as long as a build.

    Arguments and errors are those of `build.build`; privacy budget and ops do not stop it.
    """
    options = BuildOptions(
        resolve=ResolveOptions(skip_dp_check=True),
        skip_flex_ops_check=True,
        trust_model=trust_model,
        keep_ops=keep_ops,
        keep_node_names=True,
        max_client_checkpoint_bytes=None,
        allow_runtime=None,
    )
    loaded = inputs.read_config(task_config, network)
    with inputs.local_model(saved_model, stage, network) as model:
        built = build_tasks(model, loaded, options, allowlist=allowlist, stage=stage)
        nodes = provenance.model_nodes(model)
    result = []
    for prefix, task in built.artifacts.tasks():
        graph = read_tflite(plan_pb2.ClientOnlyPlan.FromString(task.client_only_plan).tflite_graph)
        ops = with_kernels(dataclasses.replace(ops_of(graph, allowlist=allowlist), replaced=built.ops[prefix].replaced))
        flex = [use.op for use in ops.ops if use.kind is OpKind.FLEX]
        found = {op: provenance.origins(graph, op, nodes, built.spec.learning.metrics) for op in flex}
        original = read_tflite(built.original_graphs[prefix])
        for replaced in ops.replaced:
            found[replaced.op] = provenance.origins(original, replaced.op, nodes, built.spec.learning.metrics)
        result.append(ClientOps("evaluation" if prefix else "training", ops, found))
    return result
