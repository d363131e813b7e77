"""The graphs of a SavedModel: the functions of its library, used or not, and the main graph.

Every node is looked at for itself here; what follows from functions calling each other is in scan_calls.py.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from google.protobuf import message

import odp_taskbuilder.proto  # noqa: F401 - makes TensorFlow's messages importable without TensorFlow.
from odp_taskbuilder.scan import calls as scan_calls
from odp_taskbuilder.scan import ops as scan_ops
from odp_taskbuilder.scan import sizes as scan_sizes
from odp_taskbuilder.scan import tensors as scan_tensors
from odp_taskbuilder.scan.ops import Place
from odp_taskbuilder.scan.report import Finding, ScanLimits, printable

from tensorflow.core.framework import attr_value_pb2, function_pb2, node_def_pb2, tensor_pb2  # isort: skip
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2  # isort: skip

MAIN_GRAPH = "main graph"

# Processors of this process, by index, or none in particular.
_LOCAL_DEVICE = re.compile(r"(/job:localhost)?(/replica:\d+)?(/task:0)?(/device:)?((CPU|GPU|cpu|gpu):(\d+|\*))?")
# What TensorFlow writes into calls of functions: how many processors of which kind there were, and how graphs are optimised.
_CONFIG_FIELDS = {
    "device_count",
    "gpu_options",
    "allow_soft_placement",
    "graph_options",
    "experimental",
    "intra_op_parallelism_threads",
    "inter_op_parallelism_threads",
    "log_device_placement",
}
# The operand of a checkpoint operation that is the path.
_PATH_OPERANDS = {"SaveV2": 0, "RestoreV2": 0, "MergeV2Checkpoints": 1, "ShardedFilename": 0}


class GraphScan(NamedTuple):
    findings: list[Finding]
    op_counts: Mapping[str, int]


def scan_graph(meta_graph: meta_graph_pb2.MetaGraphDef, limits: ScanLimits) -> GraphScan:
    """Scans the main graph and every function of the library."""
    graph = meta_graph.graph_def
    nodes = [graph.node, *(function.node_def for function in graph.library.function)]
    for what, number, limit in (
        ("functions", len(graph.library.function), limits.functions),
        ("nodes", sum(map(len, nodes)), limits.nodes),
        ("attributes", sum(len(node.attr) for body in nodes for node in body), limits.attributes),
    ):
        if number > limit:
            return GraphScan([Finding("graph", "", "", f"{number} {what}; at most {limit} are accepted")], {})

    scanner = _Scanner(meta_graph, limits)
    scanner.scan(MAIN_GRAPH, Place.MAIN_GRAPH, graph.node)
    names = {MAIN_GRAPH}
    for function in graph.library.function:
        name = function.signature.name
        if name in names:
            scanner.find(name, "", "", "two functions have this name")
        names.add(name)
        place = Place.CHECKPOINT_FUNCTION if name in scanner.checkpoint_functions else Place.FUNCTION
        scanner.scan(name, place, function.node_def)
        scanner.scan_function_attributes(function)
    if scanner.constant_bytes > limits.constant_bytes:
        scanner.find(
            "graph", "", "", f"constants take {scanner.constant_bytes} bytes; at most {limits.constant_bytes} are accepted"
        )
    scanner.findings += scan_calls.scan_calls(graph, MAIN_GRAPH, limits)
    return GraphScan(scanner.findings, scanner.op_counts)


class _Scanner:
    """Goes through nodes and collects what it finds."""

    def __init__(self, meta_graph: meta_graph_pb2.MetaGraphDef, limits: ScanLimits):
        self.findings: list[Finding] = []
        self.op_counts: collections.Counter = collections.Counter()
        self.constant_bytes = 0
        self.checkpoint_functions = _checkpoint_functions(meta_graph)
        self._limits = limits

    def find(self, function: str, node: str, op: str, reason: str) -> None:
        self.findings.append(Finding(function, node, op, reason))

    def scan(self, function: str, place: Place, nodes: Sequence[node_def_pb2.NodeDef]) -> None:
        """Scans the nodes of one function or of the main graph."""
        by_name = {}
        for node in nodes:
            if node.name in by_name:
                self.find(function, node.name, node.op, "two nodes have this name")
            by_name[node.name] = node
        for node in nodes:
            self.op_counts[node.op] += 1
            for reason in self._node_problems(node, place, by_name):
                self.find(function, node.name, node.op, reason)

    def scan_function_attributes(self, function: function_pb2.FunctionDef) -> None:
        name = function.signature.name
        for key, attr in function.attr.items():
            for reason in self._attribute_problems(key, attr):
                self.find(name, "", "", reason)
        for arg in function.arg_attr.values():
            for key, attr in arg.attr.items():
                for reason in self._attribute_problems(key, attr):
                    self.find(name, "", "", reason)

    def _node_problems(
        self, node: node_def_pb2.NodeDef, place: Place, nodes: Mapping[str, node_def_pb2.NodeDef]
    ) -> Iterator[str]:
        """Says what is wrong with a node; `nodes` are those of its function."""
        if not scan_ops.is_allowed(node.op, place):
            yield scan_ops.why_refused(node.op)
        if not _LOCAL_DEVICE.fullmatch(node.device):
            yield f"is placed on the device {printable(node.device)!r}"
        if node.op == "Assert" and node.input and scan_sizes.is_constant_false(node.input[0], nodes):
            yield "always fails"
        if place is Place.CHECKPOINT_FUNCTION and node.op in _PATH_OPERANDS and not _is_given_its_path(node, nodes):
            yield "saves or restores under a path of its own instead of the one that it is given"
        yield from scan_sizes.size_problems(node, nodes, self._limits)
        for key, attr in node.attr.items():
            yield from self._attribute_problems(key, attr)

    def _attribute_problems(self, key: str, attr: attr_value_pb2.AttrValue) -> Iterator[str]:
        kind = attr.WhichOneof("value")
        if kind == "s":
            if len(attr.s) > self._limits.attribute_bytes:
                yield f"the attribute {printable(key)!r} has {len(attr.s)} bytes"
            elif key == "config_proto":
                yield from _config_problems(attr.s)
        elif kind == "tensor":
            yield from self._tensor_problems(attr.tensor)
        elif kind == "func":
            for inner_key, inner in attr.func.attr.items():
                yield from self._attribute_problems(inner_key, inner)
        elif kind == "list":
            values = attr.list
            if sum(len(field) for _, field in values.ListFields()) > self._limits.list_length:
                yield f"the attribute {printable(key)!r} is a list of more than {self._limits.list_length} values"
                return
            if sum(map(len, values.s)) > self._limits.attribute_bytes:
                yield f"the attribute {printable(key)!r} has more than {self._limits.attribute_bytes} bytes"
            for tensor in values.tensor:
                yield from self._tensor_problems(tensor)
            for function in values.func:
                for inner_key, inner in function.attr.items():
                    yield from self._attribute_problems(inner_key, inner)

    def _tensor_problems(self, tensor: tensor_pb2.TensorProto) -> Iterator[str]:
        try:
            elements, size = scan_tensors.constant_size(tensor)
        except ValueError as error:
            yield f"states a tensor of {error}"
            return
        self.constant_bytes += size
        if elements > self._limits.tensor_elements:
            yield f"states a tensor of {elements} elements; at most {self._limits.tensor_elements} are accepted"


def _config_problems(serialized: bytes) -> Iterator[str]:
    try:
        config = config_pb2.ConfigProto.FromString(serialized)
    except message.DecodeError:
        yield "its session configuration is damaged"
        return
    for field, _ in config.ListFields():
        if field.name not in _CONFIG_FIELDS:
            yield f"its session configuration sets {field.name}"
    if config.graph_options.rewrite_options.custom_optimizers:
        yield "its session configuration names graph optimizers"


def _checkpoint_functions(meta_graph: meta_graph_pb2.MetaGraphDef) -> set[str]:
    """The functions that the saver's nodes call, and nothing else does."""
    saver = meta_graph.saver_def
    saver_nodes = {saver.save_tensor_name.partition(":")[0], saver.restore_op_name}
    candidates = set()
    others = set(meta_graph.object_graph_def.concrete_functions)
    for node in meta_graph.graph_def.node:
        callees = set(scan_calls.called_functions(node))
        if node.name in saver_nodes and node.op == "StatefulPartitionedCall":
            candidates |= callees
        else:
            others |= callees
    for function in meta_graph.graph_def.library.function:
        for node in function.node_def:
            others.update(scan_calls.called_functions(node))
    for gradient in meta_graph.graph_def.library.registered_gradients:
        others.add(gradient.gradient_func)
    return candidates - others


def _is_given_its_path(node: node_def_pb2.NodeDef, nodes: Mapping[str, node_def_pb2.NodeDef]) -> bool:
    """Whether the path of a checkpoint operation begins with an argument of its function."""
    operand = _PATH_OPERANDS[node.op]
    for _ in range(len(nodes) + 1):
        if len(node.input) <= operand:
            return False
        name = scan_sizes.source(node.input[operand])
        if name not in nodes:
            return True
        node, operand = nodes[name], 0
        if node.op not in ("Identity", "StringJoin", "ShardedFilename"):
            return False
    return False
