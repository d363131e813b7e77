"""The bytes that travel between the server and one device in one round."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Optional, Union

from odp_taskbuilder.artifacts.coded_tensors import uncoded
from odp_taskbuilder.artifacts.tensors import TensorSpec, checkpoint_bytes
from odp_taskbuilder.inspection.checkpoint_facts import TensorFacts
from odp_taskbuilder.inspection.plan_facts import DistributeAggregateServer, MapReduceServer, PlanFacts

# Both have a name, a shape and a dtype.
_Tensor = Union[TensorSpec, TensorFacts]


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What one device transfers in one round, before compression and encryption.

    Attributes:
      plan_bytes: the ClientOnlyPlan.
      download: tensors of the checkpoint that the device downloads, whose file has `download_bytes`.
      upload: tensors of its update, whose file has `upload_bytes`.

      plain_download_bytes, plain_upload_bytes: what the files would have without codes; the same where there are none.

    A size is None where the files at hand leave a tensor's shape open.
    """

    plan_bytes: int
    download: tuple[TensorSpec, ...]
    download_bytes: Optional[int]
    upload: tuple[TensorSpec, ...]
    upload_bytes: Optional[int]
    plain_download_bytes: Optional[int]
    plain_upload_bytes: Optional[int]


def traffic_of(plan: PlanFacts, state: Iterable[_Tensor] = ()) -> Traffic:
    """What devices transfer that run a plan.

    Args:
      plan: a Plan, or a ClientOnlyPlan, whose flatbuffer knows fewer shapes.
      state: tensors of a server checkpoint of the task; in DistributeAggregate form only they tell the shape of what is broadcast.
    """
    shapes = _server_shapes(plan, {tensor.name: tensor for tensor in state})
    graph = plan.client.graph
    download = tuple(_with_shape(tensor, shapes) for tensor in graph.reads)
    upload = tuple(_with_shape(tensor, shapes) for tensor in graph.writes)
    sizes = {name: checkpoint_bytes(tensors) for name, tensors in (("download_bytes", download), ("upload_bytes", upload))}
    for name, tensors in (("download_bytes", download), ("upload_bytes", upload)):
        plain = uncoded(tensors)
        sizes[f"plain_{name}"] = sizes[name] if len(plain) == len(tensors) else checkpoint_bytes(plain)
    return Traffic(plan_bytes=plan.client_only_plan_bytes, download=download, upload=upload, **sizes)


def _server_shapes(plan: PlanFacts, state: Mapping[str, _Tensor]) -> Mapping[str, _Tensor]:
    """What the server's side says about the tensors that it exchanges with devices, by name."""
    server = plan.server
    if isinstance(server, MapReduceServer) and server.graph is not None:
        return {tensor.name: tensor for tensor in server.graph.variables}
    if isinstance(server, DistributeAggregateServer):
        known: dict[str, _Tensor] = {tensor.name: tensor for aggregation in server.aggregations for tensor in aggregation.inputs}
        if server.prepare_graph is not None:
            known.update({tensor.name: tensor for tensors in server.prepare_graph.saves.values() for tensor in tensors})
            known.update({name: state[origin] for name, origin in server.prepare_graph.copies.items() if origin in state})
        return known
    return {}


def _with_shape(tensor: TensorSpec, shapes: Mapping[str, _Tensor]) -> TensorSpec:
    if tensor.num_bytes is None and tensor.name in shapes:
        return dataclasses.replace(tensor, shape=shapes[tensor.name].shape)
    return tensor
