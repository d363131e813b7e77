"""Inspections as JSON documents, for programs and for comparing two builds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Optional

from odp_taskbuilder.artifacts.tensors import TensorSpec
from odp_taskbuilder.inspection.checkpoint_facts import CheckpointFacts, TensorFacts
from odp_taskbuilder.inspection.client_ops import ClientOps
from odp_taskbuilder.inspection.inspect import InspectedFile, Inspection
from odp_taskbuilder.inspection.plan_facts import (
    Aggregation,
    CheckpointStep,
    Client,
    DistributeAggregateServer,
    MapReduceServer,
    PlanFacts,
    Session,
)
from odp_taskbuilder.inspection.server_graph import ServerGraph
from odp_taskbuilder.inspection.traffic import Traffic
from odp_taskbuilder.ops.advice import advice_for
from odp_taskbuilder.ops.report import OpsReport, OpUse
from odp_taskbuilder.ops.runtimes import runtime_text


def inspection_document(inspection: Inspection) -> dict[str, Any]:
    """The document that `odp-task inspect --json` prints. Shapes are lists with -1 for an unknown size, null for an unknown rank."""
    return {
        "files": [{"path": str(file.path), "task": file.task, **file_document(file)} for file in inspection.files],
        "traffic": [
            {"directory": str(entry.directory), "task": entry.task, **traffic_document(entry.traffic)}
            for entry in inspection.traffic
        ],
        "configs": [{"directory": str(path), "values": values} for path, values in inspection.configs.items()],
    }


def file_document(file: InspectedFile) -> dict[str, Any]:
    """One file, without its path."""
    facts = file.facts
    content = _checkpoint(facts) if isinstance(facts, CheckpointFacts) else _plan(facts)
    return {"kind": file.kind, "bytes": facts.num_bytes, **content}


def traffic_document(traffic: Traffic) -> dict[str, Any]:
    sizes = {"download_bytes": traffic.plain_download_bytes, "upload_bytes": traffic.plain_upload_bytes}
    coded = {name: size for name, size in sizes.items() if size != getattr(traffic, name)}
    return {
        "plan_bytes": traffic.plan_bytes,
        "download_bytes": traffic.download_bytes,
        "upload_bytes": traffic.upload_bytes,
        "download": _tensors(traffic.download),
        "upload": _tensors(traffic.upload),
        **({"without_codes": coded} if coded else {}),
    }


def client_ops_document(graphs: Sequence[ClientOps], module_version: Optional[int]) -> list[dict[str, Any]]:
    """The document that `odp-task ops --json` prints: one entry per client graph."""
    return [
        {
            "name": graph.name,
            "unsupported": [_unsupported_op(graph, use) for use in graph.ops.unsupported(module_version)],
            "replaced": [
                {"name": op.op, "count": op.count, "by": op.by, "origins": _origins(graph, op.op)} for op in graph.ops.replaced
            ],
            **ops_document(graph.ops),
        }
        for graph in graphs
    ]


def _unsupported_op(graph: ClientOps, use: OpUse) -> dict[str, Any]:
    advice = advice_for(use.op)
    return {
        "name": use.op,
        "origins": _origins(graph, use.op),
        "source": advice and advice.source,
        "instead": advice and advice.instead,
    }


def _origins(graph: ClientOps, op: str) -> list[dict[str, Any]]:
    return [
        {"part": origin.part.value, "name": origin.name, "backward": origin.backward} for origin in graph.origins.get(op, ())
    ]


def ops_document(ops: OpsReport) -> dict[str, Any]:
    """The ops of one client graph; `min_module_version` is null for what no listed version runs."""
    return {
        "min_module_version": ops.min_module_version,
        "min_tflite_runtime": ops.min_runtime and runtime_text(ops.min_runtime),
        "subgraphs": list(ops.subgraphs),
        "ops": [
            {
                "name": use.op,
                "kind": use.kind.value,
                "count": use.count,
                "subgraphs": {str(index): count for index, count in use.counts.items()},
                "min_module_version": use.min_module_version,
                "version": use.version,
                "min_tflite_runtime": use.min_runtime and runtime_text(use.min_runtime),
                "kernel": use.kernel,
            }
            for use in ops.ops
        ],
    }


def _plan(plan: PlanFacts) -> dict[str, Any]:
    document: dict[str, Any] = {"client": _client(plan.client)}
    if plan.server is None:
        return document
    server = _map_reduce(plan.server) if isinstance(plan.server, MapReduceServer) else _distribute_aggregate(plan.server)
    return {"form": plan.form, "version": plan.version, **document, "server": server}


def _client(client: Client) -> dict[str, Any]:
    graph = client.graph
    return {
        "session": _session(client.session),
        "secure_aggregations": list(client.secure_aggregations),
        "examples": {
            "features": _tensors(graph.features),
            "batch_size": graph.batch_size,
            "max_batches": graph.max_batches,
            "example_selector_uri": graph.example_selector_uri,
            "loop": graph.loop,
        },
        "reads": _tensors(graph.reads),
        "writes": _tensors(graph.writes),
        "tflite": {
            "bytes": graph.num_bytes,
            "sha256": graph.sha256,
            "version": graph.version,
            "description": graph.description,
            "inputs": _tensors(graph.inputs),
            "outputs": _tensors(graph.outputs),
            "subgraphs": [dataclasses.asdict(subgraph) for subgraph in graph.subgraphs],
            **{key: value for key, value in ops_document(client.ops).items() if key != "subgraphs"},
            **({"replaced": [dataclasses.asdict(op) for op in client.ops.replaced]} if client.ops.replaced else {}),
        },
    }


def _session(session: Optional[Session]) -> Optional[dict[str, Any]]:
    if session is None:
        return None
    return {
        "dataset_token": session.token,
        "inputs": _tensors(session.inputs),
        "outputs": _tensors(session.outputs),
        "targets": list(session.targets),
        "files": dict(session.files),
        "example_selector_uri": session.example_selector_uri,
    }


def _map_reduce(server: MapReduceServer) -> dict[str, Any]:
    return {
        "ops": dict(server.ops),
        "checkpoints": {name: _checkpoint_step(step) for name, step in server.checkpoints.items()},
        "metrics": [dataclasses.asdict(metric) for metric in server.metrics],
        "graph": _graph(server.graph),
    }


def _checkpoint_step(step: CheckpointStep) -> dict[str, Any]:
    """What is there: most of a step's fields are empty."""
    return {name: value for name, value in dataclasses.asdict(step).items() if value}


def _distribute_aggregate(server: DistributeAggregateServer) -> dict[str, Any]:
    return {
        "prepare": _session(server.prepare),
        "result": _session(server.result),
        "aggregations": [_aggregation(aggregation) for aggregation in server.aggregations],
        "metrics": [dataclasses.asdict(metric) for metric in server.metrics],
        "prepare_graph": _graph(server.prepare_graph),
        "result_graph": _graph(server.result_graph),
    }


def _aggregation(aggregation: Aggregation) -> dict[str, Any]:
    return {
        "name": ", ".join(tensor.name for tensor in aggregation.outputs),
        "intrinsic": aggregation.intrinsic,
        "inputs": _tensors(aggregation.inputs),
        "state_inputs": _tensors(aggregation.state_inputs),
        "outputs": _tensors(aggregation.outputs),
    }


def _graph(graph: Optional[ServerGraph]) -> Optional[dict[str, Any]]:
    if graph is None:
        return None
    return {
        "bytes": graph.num_bytes,
        "nodes": graph.nodes,
        "ops": dict(graph.ops),
        "variables": _tensors(graph.variables),
        "saves": {node: [tensor.name for tensor in tensors] for node, tensors in graph.saves.items()},
    }


def _checkpoint(checkpoint: CheckpointFacts) -> dict[str, Any]:
    document: dict[str, Any] = {"role": checkpoint.role, "tensors": [_stored_tensor(tensor) for tensor in checkpoint.tensors]}
    if checkpoint.privacy is not None:
        privacy = checkpoint.privacy
        document["privacy"] = {
            "aggregator": privacy.aggregator,
            "parameters": [{"name": name, "meaning": meaning, "value": value} for name, meaning, value in privacy.parameters],
            "noise_seeds": list(privacy.noise_seeds),
        }
    return document


def _stored_tensor(tensor: TensorFacts) -> dict[str, Any]:
    document = {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape), "bytes": tensor.num_bytes}
    if tensor.value is not None:
        document["value"] = tensor.value
    elif tensor.statistics is not None:
        document["statistics"] = dataclasses.asdict(tensor.statistics)
    return document


def _tensors(tensors: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    return [
        {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": None if tensor.shape is None else list(tensor.shape),
            "bytes": tensor.num_bytes,
        }
        for tensor in tensors
    ]
