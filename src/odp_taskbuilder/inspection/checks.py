"""What must hold between the artifacts of one task, and between its training and its evaluation task.

Each check yields sentences about what does not hold. The rules are those of the consumers, servers and devices
(spec: plan.md, sections 1.4, 4.4, 4.7, 5 and 13).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Optional

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import phone_fit
from odp_taskbuilder.artifacts.tensors import TensorSpec, shape_text
from odp_taskbuilder.base.phone_limits import MAX_EXAMPLE_BYTES
from odp_taskbuilder.base.server_limits import MAX_TENSOR_BYTES
from odp_taskbuilder.inspection.checkpoint_facts import CheckpointFacts
from odp_taskbuilder.inspection.plan_facts import (
    Client,
    DistributeAggregateServer,
    MapReduceServer,
    PlanFacts,
    Session,
)
from odp_taskbuilder.inspection.server_graph import ServerGraph
from odp_taskbuilder.model.input_spec import TensorInfo
from odp_taskbuilder.ops import report
from odp_taskbuilder.ops.runtimes import runtime_text

# What the server's native aggregation knows.
_INTRINSICS = ("federated_sum", "federated_mean", "federated_weighted_mean")
# What its reader of devices' files knows: one tensor of another dtype anywhere, and it refuses the file (spec: phone.md, S4).
_READ_DTYPES = ("float32", "float64", "int32", "int64", "string")
_AGGREGATED_DTYPES = ("float32", "float64", "int32", "int64", "uint64")


def check_client(client: Client) -> Iterator[str]:
    """The checks that a device makes before it runs a plan."""
    session, graph = client.session, client.graph
    fed = [tensor.name for tensor in session.inputs]
    routed = list(session.files.values())
    if sorted(fed) != sorted(routed):
        yield f"the client spec feeds {sorted(fed)}, its router names {sorted(routed)}"
    expected = {session.token, *fed}
    taken = {tensor.name for tensor in graph.inputs}
    if taken != expected:
        yield f"the TFLite graph takes {sorted(taken)}, the client spec feeds {sorted(expected)}"
    for tensor in graph.inputs:
        if tensor.dtype != "string" or tensor.shape != ():
            yield f"the TFLite graph's input {tensor} is not a string scalar"
    if graph.input_indices != tuple(range(len(graph.input_indices))):
        yield (
            f"the TFLite graph's inputs are its tensors {list(graph.input_indices)}; devices take a tensor's index for its position among the "
            f"inputs, so that they must be 0 to {len(graph.input_indices) - 1} in this order"
        )
    if len(graph.outputs) != len(session.outputs):
        yield f"the TFLite graph has {len(graph.outputs)} outputs, the client spec {len(session.outputs)}"
    if client.secure_aggregations:
        yield f"secure aggregation of {', '.join(client.secure_aggregations)}: the task server does not run it"
    if session.example_selector_uri not in (None, graph.example_selector_uri or ""):
        yield (
            f"the client spec selects examples of {session.example_selector_uri!r}, the TFLite graph of {graph.example_selector_uri!r}"
        )


def check_ops(client: Client) -> Iterator[str]:
    """Whether phones have every op."""
    unsupported = client.ops.unsupported()
    if unsupported:
        yield f"no listed module version has the ops {', '.join(use.op for use in unsupported)}"


def check_runtime(client: Client, allow_runtime: Optional[str]) -> Iterator[str]:
    """Whether phones have the release of TensorFlow Lite that the graph needs."""
    try:
        report.check_runtime(client.ops, allow_runtime)
    except errors.UnsupportedOpsError as error:
        yield error.message


def check_client_checkpoint(num_bytes: Optional[int], limit: Optional[int]) -> Iterator[str]:
    """Whether devices take what they download."""
    if limit is not None and num_bytes is not None and num_bytes > limit:
        yield f"devices download a checkpoint of {num_bytes:,} bytes, uncompressed; phones drop one above {limit:,} bytes"


def doubts(client: Client) -> Iterator[str]:
    """What phones may refuse, depending on their data or their version."""
    yield from report.check_runtime(
        client.ops, None if client.ops.min_runtime is None else runtime_text(client.ops.min_runtime)
    )
    features = {feature.name: (feature.dtype, feature.shape) for feature in client.graph.features}
    num_bytes = phone_fit.example_bytes(
        {name: TensorInfo(dtype, (None, *(shape or ()))) for name, (dtype, shape) in features.items()}
    )
    if num_bytes > MAX_EXAMPLE_BYTES:
        yield f"An example may take {num_bytes:,} bytes, without those of strings; phones take none above {MAX_EXAMPLE_BYTES:,} bytes (50 KB)."


def check_client_plan(plan: PlanFacts, client_plan: PlanFacts) -> Iterator[str]:
    """Whether devices run what the server expects."""
    if plan.client.graph.sha256 != client_plan.client.graph.sha256:
        yield "its TFLite graph is not that of the plan"
    if (plan.client.session, plan.client.secure_aggregations) != (
        client_plan.client.session,
        client_plan.client.secure_aggregations,
    ):
        yield "its phase is not the client phase of the plan"


def check_server(plan: PlanFacts) -> Iterator[str]:
    """Whether a server can run its part of a plan, and exchanges with devices what they exchange with it."""
    if isinstance(plan.server, MapReduceServer):
        yield from _check_map_reduce(plan.server, plan.client)
    elif isinstance(plan.server, DistributeAggregateServer):
        yield from _check_distribute_aggregate(plan.server, plan.client)


def check_checkpoint(plan: PlanFacts, checkpoint: CheckpointFacts) -> Iterator[str]:
    """Whether a plan can start from a server checkpoint."""
    state = server_state(plan)
    stored = {tensor.name: TensorSpec(tensor.name, tensor.dtype, tensor.shape) for tensor in checkpoint.tensors}
    yield from _compare(state, stored, "the plan's server state has", "the checkpoint")
    # Checkpoints of later iterations also hold the metrics of their round.
    extra = [name for name in stored if name not in state and not name.startswith("metrics/")]
    if extra:
        yield f"it has tensors that are not in the plan's server state: {_some(extra)}"
    for tensor in checkpoint.tensors:
        if tensor.num_bytes is not None and tensor.num_bytes > MAX_TENSOR_BYTES:
            yield f"the tensor {tensor.name} has {tensor.num_bytes:,} bytes; the server restores none above {MAX_TENSOR_BYTES:,}"
        if tensor.statistics is not None and tensor.statistics.non_finite:
            yield f"the tensor {tensor.name} has {tensor.statistics.non_finite} elements that are not finite"


def check_pair(training: PlanFacts, evaluation: PlanFacts) -> Iterator[str]:
    """Whether an evaluation plan can read the server checkpoints of a training plan."""
    yield from _compare(
        server_state(evaluation), server_state(training), "the evaluation plan's server state has", "the training plan's"
    )
    if training.client.graph.features != evaluation.client.graph.features:
        yield "training and evaluation read different features from their examples"


def server_state(plan: PlanFacts) -> dict[str, TensorSpec]:
    """The tensors that a plan reads from a server checkpoint."""
    server = plan.server
    if isinstance(server, MapReduceServer) and server.graph is not None:
        return _under("server", server.graph.variables)
    if isinstance(server, DistributeAggregateServer) and server.prepare_graph is not None:
        return _under("server", (tensor for tensors in server.prepare_graph.restores.values() for tensor in tensors))
    return {}


def _check_map_reduce(server: MapReduceServer, client: Client) -> Iterator[str]:
    if server.graph is None:
        yield "it has no server graph"
        return
    for name in ("phase_init_op", "apply_aggregrated_updates_op", "intermediate_aggregate_into_accumulators_op"):
        if not server.ops.get(name):
            yield f"it names no {name}"
    for name in ("server_savepoint", "write_client_init", "write_intermediate_update", "read_intermediate_update"):
        if name not in server.checkpoints or server.checkpoints[name].version is None:
            yield f"it has no saver for {name}"
    named = dict(server.ops)
    for name, step in server.checkpoints.items():
        if step.version not in (None, "V1"):
            yield f"the saver of {name} writes checkpoints of version {step.version}; devices and servers read V1"
        for role in ("before_restore", "restore", "after_restore", "before_save", "save", "after_save", "filename_tensor"):
            named[f"{name}.{role}"] = getattr(step, role)
    named.update({f"metric {metric.name}": metric.tensor for metric in server.metrics})
    yield from _check_nodes(named, server.graph)
    yield from _check_metrics(metric.name for metric in server.metrics)
    variables = {tensor.name: tensor for tensor in server.graph.variables}
    yield from _compare(_by_name(client.graph.reads), variables, "the client graph reads", "the server graph")
    update = _under("update", server.graph.variables)
    yield from _compare(update, _by_name(client.graph.writes), "the server graph reads", "the client graph")


def _check_distribute_aggregate(server: DistributeAggregateServer, client: Client) -> Iterator[str]:
    for name, session, graph in (
        ("prepare", server.prepare, server.prepare_graph),
        ("result", server.result, server.result_graph),
    ):
        if session is None or graph is None:
            yield f"its {name} session or graph is missing"
        else:
            yield from _check_server_session(name, session, graph)
    yield from _check_metrics(metric.name for metric in server.metrics)
    for tensor in client.graph.writes:
        if tensor.dtype not in _READ_DTYPES:
            yield f"a device's update holds {tensor}; the server reads no update with a tensor other than {', '.join(_READ_DTYPES)}"
    if server.prepare_graph is not None:
        broadcast = _by_name(tensor for tensors in server.prepare_graph.saves.values() for tensor in tensors)
        yield from _compare(_by_name(client.graph.reads), broadcast, "the client graph reads", "the prepare graph")
    summed = _by_name(tensor for aggregation in server.aggregations for tensor in aggregation.inputs)
    yield from _compare(summed, _by_name(client.graph.writes), "the server aggregates", "the client graph")
    aggregates = _by_name(tensor for aggregation in server.aggregations for tensor in aggregation.outputs)
    if server.result_graph is not None:
        restored = _by_name(tensor for tensors in server.result_graph.restores.values() for tensor in tensors)
        yield from _compare(
            _under("intermediate_update", restored.values()), aggregates, "the result graph reads", "the aggregation"
        )
    for aggregation in server.aggregations:
        if aggregation.intrinsic not in _INTRINSICS or aggregation.state_inputs:
            yield f"the server's aggregation cannot run {aggregation.intrinsic} with {len(aggregation.state_inputs)} state tensors"
        for tensor in aggregation.inputs:
            if tensor.dtype not in _AGGREGATED_DTYPES:
                yield f"the server's aggregation cannot sum {tensor}"


def _check_server_session(name: str, session: Session, graph: ServerGraph) -> Iterator[str]:
    fed = sorted(tensor.name for tensor in session.inputs)
    if fed != sorted(session.files.values()):
        yield f"its {name} spec feeds {fed}, the router names {sorted(session.files.values())}"
    if not session.targets:
        yield f"its {name} spec runs nothing"
    names = [*session.targets, *session.files.values(), *(tensor.name for tensor in session.outputs)]
    yield from _check_nodes({f"{name} spec": node for node in names}, graph)


def _check_nodes(named: Mapping[str, str], graph: ServerGraph) -> Iterator[str]:
    for role, name in named.items():
        if name and name.partition(":")[0] not in graph.node_names:
            yield f"{role} names {name!r}, which is not in the graph"


def _check_metrics(names: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if not name.startswith("server/"):
            yield f"the metric {name!r} is not published under server/"
        if name in seen:
            yield f"the metric {name!r} is published twice"
        seen.add(name)


def _compare(wanted: Mapping[str, TensorSpec], found: Mapping[str, TensorSpec], who: str, where: str) -> Iterator[str]:
    """What `who` ("the client graph reads") wants and `where` ("the server graph") does not have, or has otherwise."""
    missing = [name for name in wanted if name not in found]
    if missing:
        yield f"{who} {_some(missing)}, which {where} does not have"
    for name in wanted.keys() & found.keys():
        ours, theirs = wanted[name], found[name]
        if ours.dtype != theirs.dtype or not _compatible(ours.shape, theirs.shape):
            yield (
                f"{who} {ours.name} as {ours.dtype}{shape_text(ours.shape)}, {where} has {theirs.dtype}{shape_text(theirs.shape)}"
            )


def _compatible(one: Optional[tuple[int, ...]], other: Optional[tuple[int, ...]]) -> bool:
    if one is None or other is None:
        return True
    return len(one) == len(other) and all(-1 in (a, b) or a == b for a, b in zip(one, other))


def _under(prefix: str, tensors: Iterable[TensorSpec]) -> dict[str, TensorSpec]:
    return {tensor.name: tensor for tensor in tensors if tensor.name.startswith(f"{prefix}/")}


def _by_name(tensors: Iterable[TensorSpec]) -> dict[str, TensorSpec]:
    return {tensor.name: tensor for tensor in tensors}


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
