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
from odp_taskbuilder.artifacts.tensors import TensorSpec, shape_of

# isort: split
from tensorflow.core.framework import node_def_pb2

_MAX_NODES = 100_000
# A larger node is a large constant, of which only name and op are of interest.
_MAX_NODE_BYTES = 64 << 10
_MAX_INPUTS = 500_000
_MAX_IDENTITIES = 64
# Field numbers of GraphDef and NodeDef.
_GRAPH_NODE = 1
_NODE_NAME, _NODE_OP = 1, 2
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
      saves: name of a SaveSlices node -> the tensors that it writes, with the shapes of those that are constants.
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
    nodes: dict[str, _Node] = {}
    kept_inputs = 0
    for node in _nodes(source, start, end, what):
        if nodes.setdefault(node.name, node) is not node:
            raise errors.ArtifactError(f"{what} has two nodes of the name {node.name[:200]!r}")
        kept_inputs += len(node.inputs)
        if kept_inputs > _MAX_INPUTS:
            raise errors.ArtifactError(f"{what} restores and saves more than {_MAX_INPUTS} tensors")
    restores = {name: _named_tensors(nodes, node) for name, node in nodes.items() if node.op == "RestoreV2"}
    saves: dict[str, tuple[TensorSpec, ...]] = {}
    copies = {}
    for name, node in nodes.items():
        if node.op == "SaveSlices":
            saved = []
            for tensor, reference in zip(_named_tensors(nodes, node), node.inputs[_SAVED_DATA:]):
                source_node, output = _follow(nodes, reference)
                if source_node is not None and source_node.op == "RestoreV2" and output < len(restores[source_node.name]):
                    copies[tensor.name] = restores[source_node.name][output].name
                constant_shape = source_node.tensor.shape if source_node is not None and source_node.op == "Const" else None
                saved.append(dataclasses.replace(tensor, shape=constant_shape))
            saves[name] = tuple(saved)
    return ServerGraph(
        num_bytes=end - start,
        nodes=len(nodes),
        ops=dict(sorted(collections.Counter(node.op for node in nodes.values()).items())),
        node_names=frozenset(nodes),
        variables=tuple(node.tensor for node in nodes.values() if node.op == "VarHandleOp"),
        placeholders=tuple(node.tensor for node in nodes.values() if node.op == "Placeholder"),
        restores=restores,
        saves=saves,
        copies=copies,
    )


@dataclasses.dataclass(frozen=True)
class _Node:
    """What is kept of a node: as little as possible, for graphs that strangers made large.

    Attributes:
      inputs: of RestoreV2, SaveSlices and Identity.
      dtypes: of the tensors that RestoreV2 and SaveSlices name.
      strings: of a constant.
      tensor: of a variable, placeholder or constant.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    strings: tuple[str, ...] = ()
    tensor: Optional[TensorSpec] = None


def _nodes(source: wire.Source, start: int, end: int, what: str) -> Iterator[_Node]:
    for field in wire.fields(source, start, end, what, limit=_MAX_NODES):
        if field.number != _GRAPH_NODE:
            continue
        if field.end - field.start > _MAX_NODE_BYTES:
            yield _large_node(source, field, what)
            continue
        try:
            yield _node(node_def_pb2.NodeDef.FromString(source[field.start : field.end]))
        except protobuf_message.DecodeError:
            raise errors.ArtifactError(f"{what} is no GraphDef: the node at byte {field.start} does not parse") from None


def _node(proto: Any) -> _Node:
    name, op = proto.name, proto.op
    if op in ("VarHandleOp", "Placeholder"):
        tensor = TensorSpec(name, dtypes.dtype_name(proto.attr["dtype"].type), shape_of(proto.attr["shape"].shape))
        return _Node(name, op, tensor=tensor)
    if op in ("RestoreV2", "SaveSlices"):
        types = proto.attr["dtypes" if op == "RestoreV2" else "T"].list.type
        return _Node(name, op, inputs=tuple(proto.input), dtypes=tuple(map(dtypes.dtype_name, types)))
    if op == "Const":
        value = proto.attr["value"].tensor
        tensor = TensorSpec(name, dtypes.dtype_name(value.dtype), shape_of(value.tensor_shape))
        return _Node(name, op, strings=tuple(map(_text, value.string_val)), tensor=tensor)
    return _Node(name, op, inputs=tuple(proto.input[:1]) if op == "Identity" else ())


def _large_node(source: wire.Source, message: wire.Field, what: str) -> _Node:
    """Name and op only: it holds a large constant."""
    found = {
        field.number: _text(source[field.start : field.end])
        for field in wire.fields(source, message.start, message.end, what, limit=_MAX_NODES)
        if field.number in (_NODE_NAME, _NODE_OP) and field.end - field.start <= _MAX_NODE_BYTES
    }
    name = found.get(_NODE_NAME, "")
    return _Node(name, found.get(_NODE_OP, ""), tensor=TensorSpec(name, "unknown", None))


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")


def _named_tensors(nodes: Mapping[str, _Node], node: _Node) -> tuple[TensorSpec, ...]:
    names = nodes.get(_producer(node.inputs[_TENSOR_NAMES])) if len(node.inputs) > _TENSOR_NAMES else None
    return tuple(TensorSpec(name, dtype, None) for name, dtype in zip(names.strings if names else (), node.dtypes))


def _follow(nodes: Mapping[str, _Node], reference: str) -> tuple[Optional[_Node], int]:
    """The node and the output that a reference stands for, through Identity nodes; no node where it leads nowhere."""
    for _ in range(_MAX_IDENTITIES):
        node = nodes.get(_producer(reference))
        if node is None or node.op != "Identity" or not node.inputs:
            _, _, output = reference.partition(":")
            return node, int(output) if output.isascii() and output.isdecimal() and len(output) < 8 else 0
        reference = node.inputs[0]
    return None, 0


def _producer(reference: str) -> str:
    return reference.partition(":")[0]
