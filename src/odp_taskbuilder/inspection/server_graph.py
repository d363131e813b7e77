"""What a server graph holds: variables, checkpoints read and written, op counts; read node by node, without TensorFlow."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from google.protobuf import message as protobuf_message

import odp_taskbuilder.proto  # noqa: F401  makes TensorFlow's protos importable without TensorFlow
from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import dtypes, wire
from odp_taskbuilder.inspection.tensors import TensorSpec, shape_of

# isort: split
from tensorflow.core.framework import node_def_pb2

_MAX_NODES = 100_000
# A larger node is a large constant, of which only name and op are of interest.
_MAX_NODE_BYTES = 64 << 10
_MAX_IDENTITIES = 64
# Field numbers of GraphDef and NodeDef.
_GRAPH_NODE = 1
_NODE_NAME, _NODE_OP, _NODE_INPUT = 1, 2, 3
# Inputs of SaveSlices: file name, tensor names, slices, data ...; of RestoreV2: file name, tensor names, slices.
_TENSOR_NAMES, _SAVED_DATA = 1, 3


@dataclasses.dataclass(frozen=True)
class ServerGraph:
    """One server graph.

    Attributes:
      num_bytes: size of the serialized GraphDef.
      nodes: their number.
      ops: op -> number of nodes.
      node_names: of all nodes.
      variables: with the shapes that they may take.
      placeholders: fed tensors, without `:0`.
      restores: name of a RestoreV2 node -> the tensors that it reads.
      saves: name of a SaveSlices node -> the tensors that it writes.
      copies: written tensor -> the tensor of the read checkpoint whose value it is, where the graph passes it on unchanged.
    """

    num_bytes: int
    nodes: int
    ops: Mapping[str, int]
    node_names: frozenset[str]
    variables: tuple[TensorSpec, ...]
    placeholders: tuple[TensorSpec, ...]
    restores: Mapping[str, tuple[TensorSpec, ...]]
    saves: Mapping[str, tuple[TensorSpec, ...]]
    copies: Mapping[str, str]


def read_server_graph(source: wire.Source, start: int, end: int, what: str) -> ServerGraph:
    """Describes the GraphDef in [start, end).

    Raises:
      ArtifactError: it is no GraphDef.
    """
    nodes: dict[str, Any] = {}
    for node in _nodes(source, start, end, what):
        if nodes.setdefault(node.name, node) is not node:
            raise errors.ArtifactError(f"{what} has two nodes of the name {node.name[:200]!r}")
    restores = {name: _restored(nodes, node) for name, node in nodes.items() if node.op == "RestoreV2"}
    saves = {name: _saved(nodes, node) for name, node in nodes.items() if node.op == "SaveSlices"}
    return ServerGraph(
        num_bytes=end - start,
        nodes=len(nodes),
        ops=dict(sorted(collections.Counter(node.op for node in nodes.values()).items())),
        node_names=frozenset(nodes),
        variables=tuple(_variable(node) for node in nodes.values() if node.op == "VarHandleOp"),
        placeholders=tuple(_placeholder(node) for node in nodes.values() if node.op == "Placeholder"),
        restores=restores,
        saves=saves,
        copies={
            saved.name: origin
            for name in saves
            for saved, reference in zip(saves[name], nodes[name].input[_SAVED_DATA:])
            if (origin := _restored_origin(nodes, restores, reference)) is not None
        },
    )


def _nodes(source: wire.Source, start: int, end: int, what: str) -> Iterator[Any]:
    for field in wire.fields(source, start, end, what, limit=_MAX_NODES):
        if field.number != _GRAPH_NODE:
            continue
        if field.end - field.start > _MAX_NODE_BYTES:
            yield _large_node(source, field, what)
            continue
        try:
            yield node_def_pb2.NodeDef.FromString(source[field.start : field.end])
        except protobuf_message.DecodeError:
            raise errors.ArtifactError(f"{what} is no GraphDef: the node at byte {field.start} does not parse") from None


def _large_node(source: wire.Source, message: wire.Field, what: str) -> Any:
    node = node_def_pb2.NodeDef()
    for field in wire.fields(source, message.start, message.end, what, limit=_MAX_NODES):
        if field.number in (_NODE_NAME, _NODE_OP, _NODE_INPUT) and field.end - field.start <= _MAX_NODE_BYTES:
            text = source[field.start : field.end].decode("utf-8", "replace")
            if field.number == _NODE_NAME:
                node.name = text
            elif field.number == _NODE_OP:
                node.op = text
            else:
                node.input.append(text)
    return node


def _variable(node: Any) -> TensorSpec:
    return TensorSpec(node.name, dtypes.dtype_name(node.attr["dtype"].type), shape_of(node.attr["shape"].shape))


def _placeholder(node: Any) -> TensorSpec:
    return TensorSpec(node.name, dtypes.dtype_name(node.attr["dtype"].type), shape_of(node.attr["shape"].shape))


def _restored(nodes: Mapping[str, Any], node: Any) -> tuple[TensorSpec, ...]:
    return _named(nodes, node, node.attr["dtypes"].list.type)


def _saved(nodes: Mapping[str, Any], node: Any) -> tuple[TensorSpec, ...]:
    return _named(nodes, node, node.attr["T"].list.type)


def _named(nodes: Mapping[str, Any], node: Any, types: Any) -> tuple[TensorSpec, ...]:
    names = _constant_strings(nodes, node.input[_TENSOR_NAMES]) if len(node.input) > _TENSOR_NAMES else []
    return tuple(TensorSpec(name, dtypes.dtype_name(dtype), None) for name, dtype in zip(names, types))


def _constant_strings(nodes: Mapping[str, Any], reference: str) -> list[str]:
    node = _producer(nodes, reference)
    if node is None or node.op != "Const":
        return []
    return [value.decode("utf-8", "replace") for value in node.attr["value"].tensor.string_val]


def _restored_origin(nodes: Mapping[str, Any], restores: Mapping[str, tuple[TensorSpec, ...]], reference: str) -> Optional[str]:
    """The checkpoint tensor that a reference stands for, through Identity nodes."""
    for _ in range(_MAX_IDENTITIES):
        node = _producer(nodes, reference)
        if node is None:
            return None
        if node.op == "RestoreV2":
            _, _, output = reference.partition(":")
            tensors = restores[node.name]
            index = int(output) if output.isdecimal() else 0
            return tensors[index].name if index < len(tensors) else None
        if node.op != "Identity" or not node.input:
            return None
        reference = node.input[0]
    return None


def _producer(nodes: Mapping[str, Any], reference: str) -> Any:
    return nodes.get(reference.partition(":")[0])
