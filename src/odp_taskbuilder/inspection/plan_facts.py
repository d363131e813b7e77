"""What a Plan or ClientOnlyPlan says, as plain records: for reports, comparisons and checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Optional, Union

from odp_taskbuilder.artifacts import client_graph, plan_reader
from odp_taskbuilder.artifacts.tensors import TensorSpec, spec_of
from odp_taskbuilder.inspection import server_graph
from odp_taskbuilder.ops.allowlist import Allowlist
from odp_taskbuilder.ops.report import OpsReport, ops_of
from odp_taskbuilder.ops.tflite import read_tflite
from odp_taskbuilder.proto import plan_pb2

# tensorflow.SaverDef.CheckpointFormatVersion
_SAVER_VERSIONS = {0: "LEGACY", 1: "V1", 2: "V2"}


@dataclasses.dataclass(frozen=True)
class Session:
    """One run of a graph: a TensorflowSpec with its router.

    Attributes:
      token: the tensor that takes the dataset token; empty where there is none.
      inputs, outputs: fed and fetched tensors.
      targets: nodes that are run.
      files: role of a file (a field of the router) -> the tensor that takes its path.
      example_selector_uri: None where the spec has no selector at all.
    """

    token: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    targets: tuple[str, ...]
    files: Mapping[str, str]
    example_selector_uri: Optional[str]


@dataclasses.dataclass(frozen=True)
class Client:
    """What devices execute."""

    session: Session
    secure_aggregations: tuple[str, ...]
    graph: client_graph.ClientGraph
    ops: OpsReport


@dataclasses.dataclass(frozen=True)
class CheckpointStep:
    """A CheckpointOp: what is run to load or store a file.

    Attributes:
      filename_tensor: takes the path; empty where there is no saver.
      version: of the file format; None where there is no saver.
    """

    before_restore: str
    restore: str
    after_restore: str
    before_save: str
    save: str
    after_save: str
    filename_tensor: str
    version: Optional[str]
    side_channels: tuple[str, ...]
    session_token: str


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number that each round publishes: its name and the tensor that is fetched for it."""

    name: str
    tensor: str


@dataclasses.dataclass(frozen=True)
class MapReduceServer:
    """The server's part in MapReduce form: names of what is run, by field of Plan and ServerPhase."""

    ops: Mapping[str, str]
    checkpoints: Mapping[str, CheckpointStep]
    metrics: tuple[Metric, ...]
    graph: Optional[server_graph.ServerGraph]


@dataclasses.dataclass(frozen=True)
class Aggregation:
    """How one tensor of the update is aggregated: `inputs` from updates and intermediate state -> `outputs`."""

    intrinsic: str
    inputs: tuple[TensorSpec, ...]
    state_inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclasses.dataclass(frozen=True)
class DistributeAggregateServer:
    """The server's part in DistributeAggregate form. A session or graph that the plan lacks is None."""

    prepare: Optional[Session]
    result: Optional[Session]
    aggregations: tuple[Aggregation, ...]
    metrics: tuple[Metric, ...]
    prepare_graph: Optional[server_graph.ServerGraph]
    result_graph: Optional[server_graph.ServerGraph]


@dataclasses.dataclass(frozen=True)
class PlanFacts:
    """A Plan (`server` is there) or a ClientOnlyPlan.

    Attributes:
      num_bytes: size of the file.
      form: value of config.spec.PlanForm; None for a ClientOnlyPlan.
      version: field of Plan; None for a ClientOnlyPlan.
      client_only_plan_bytes: size of the ClientOnlyPlan that devices download.
    """

    num_bytes: int
    form: Optional[str]
    version: Optional[int]
    client_only_plan_bytes: int
    client: Client
    server: Union[MapReduceServer, DistributeAggregateServer, None]


def read_plan_facts(file: plan_reader.PlanFile, allowlist: Optional[Allowlist] = None) -> PlanFacts:
    """Describes an open plan.

    Raises:
      ArtifactError: one of its graphs is corrupt, or it has no TFLite graph.
    """
    size = len(file.source)
    client = _client(file, allowlist)
    if file.is_client_only:
        return PlanFacts(size, None, None, size, client, None)
    server = _distribute_aggregate(file) if file.phase.HasField("server_phase_v2") else _map_reduce(file)
    return PlanFacts(size, file.form.value, file.description.version, _client_only_plan_bytes(file), client, server)


def _client_only_plan_bytes(file: plan_reader.PlanFile) -> int:
    # plan.md, section 10.
    plan = plan_pb2.ClientOnlyPlan(phase=file.client_phase, tflite_graph=file.tflite_graph)
    if file.description.HasField("tensorflow_config_proto"):
        plan.tensorflow_config_proto.CopyFrom(file.description.tensorflow_config_proto)
    return plan.ByteSize()


def _client(file: plan_reader.PlanFile, allowlist: Optional[Allowlist]) -> Client:
    phase = file.client_phase
    router = phase.federated_compute
    what = f"{file.what}: the TFLite graph"
    graph = read_tflite(file.tflite_graph, what)
    return Client(
        session=_session(phase.tensorflow_spec, router),
        secure_aggregations=tuple(sorted(router.aggregations)),
        graph=client_graph.describe_client_graph(graph, file.tflite_graph, what),
        ops=ops_of(graph, allowlist=allowlist),
    )


def _session(spec: plan_pb2.TensorflowSpec, router: Any) -> Session:
    return Session(
        token=spec.dataset_token_tensor_name,
        inputs=tuple(spec_of(tensor) for tensor in spec.input_tensor_specs),
        outputs=tuple(spec_of(tensor) for tensor in spec.output_tensor_specs),
        targets=tuple(spec.target_node_names),
        files={field.name: value for field, value in router.ListFields() if isinstance(value, str)},
        example_selector_uri=spec.example_selector.collection_uri if spec.HasField("example_selector") else None,
    )


def _graph(file: plan_reader.PlanFile, name: str) -> Optional[server_graph.ServerGraph]:
    if name not in file.graphs:
        return None
    start, end = file.graphs[name]
    return server_graph.read_server_graph(file.source, start, end, f"{file.what}: the {name} graph")


def _map_reduce(file: plan_reader.PlanFile) -> MapReduceServer:
    phase = file.phase.server_phase
    # The savepoint is a field of Plan, the other steps are fields of its phase.
    steps = {
        field.name: value
        for message in (file.description, phase)
        for field, value in message.ListFields()
        if isinstance(value, plan_pb2.CheckpointOp)
    }
    return MapReduceServer(
        ops={field.name: value for field, value in phase.ListFields() if isinstance(value, str) and field.name != "name"},
        checkpoints={name: _checkpoint_step(step) for name, step in steps.items()},
        metrics=tuple(Metric(metric.stat_name, metric.variable_name) for metric in phase.metrics),
        graph=_graph(file, "server"),
    )


def _checkpoint_step(step: plan_pb2.CheckpointOp) -> CheckpointStep:
    saver = step.saver_def
    return CheckpointStep(
        before_restore=step.before_restore_op,
        restore=saver.restore_op_name,
        after_restore=step.after_restore_op,
        before_save=step.before_save_op,
        save=saver.save_tensor_name,
        after_save=step.after_save_op,
        filename_tensor=saver.filename_tensor_name,
        version=_SAVER_VERSIONS.get(saver.version, str(saver.version)) if step.HasField("saver_def") else None,
        side_channels=tuple(sorted(step.side_channel_tensors)),
        session_token=step.session_token_tensor_name,
    )


def _distribute_aggregate(file: plan_reader.PlanFile) -> DistributeAggregateServer:
    phase = file.phase.server_phase_v2
    result = _session(phase.tensorflow_spec_result, phase.result_router) if phase.HasField("tensorflow_spec_result") else None
    return DistributeAggregateServer(
        prepare=_session(phase.tensorflow_spec_prepare, phase.prepare_router)
        if phase.HasField("tensorflow_spec_prepare")
        else None,
        result=result,
        aggregations=tuple(_aggregation(config) for config in phase.aggregations),
        # The server publishes a metric under its tensor's name without the output index.
        metrics=tuple(Metric(spec.name.rpartition(":")[0] or spec.name, spec.name) for spec in result.outputs)
        if result
        else (),
        prepare_graph=_graph(file, "prepare"),
        result_graph=_graph(file, "result"),
    )


def _aggregation(config: plan_pb2.ServerAggregationConfig) -> Aggregation:
    arguments = config.intrinsic_args
    return Aggregation(
        intrinsic=config.intrinsic_uri,
        inputs=tuple(spec_of(argument.input_tensor) for argument in arguments if argument.HasField("input_tensor")),
        state_inputs=tuple(spec_of(argument.state_tensor) for argument in arguments if argument.HasField("state_tensor")),
        outputs=tuple(spec_of(tensor) for tensor in config.output_tensors),
    )
