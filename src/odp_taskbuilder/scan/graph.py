"""The graphs of a SavedModel: the functions of its library, used or not, and the main graph.

First every node is looked at for itself, then what follows from functions calling each other: recursion, depth, the size after
inlining, and loops that cannot end.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Optional

from google.protobuf import message

import odp_taskbuilder.proto  # noqa: F401 - makes TensorFlow's messages importable without TensorFlow.
from odp_taskbuilder.scan import ops as scan_ops
from odp_taskbuilder.scan import sizes
from odp_taskbuilder.scan.ops import Place
from odp_taskbuilder.scan.report import Finding, ScanLimits, printable

from tensorflow.core.framework import attr_value_pb2, function_pb2, graph_pb2, node_def_pb2, tensor_pb2  # isort: skip
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


# Operations whose value may differ from call to call with equal operands; random ones are known by their name.
_VARYING_OPS = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VarIsInitializedOp", "Multinomial", "TruncatedNormal"}
# How many functions of a cycle are named in a message.
_MAX_SHOWN_CYCLE = 5
# How many nodes that pass a value on are followed.
_MAX_STEPS = 8

_Calls = Mapping[str, "collections.Counter[str]"]


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
    scanner.findings += _scan_calls(graph, limits)
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
        if node.op == "Assert" and node.input and sizes.is_constant_false(node.input[0], nodes):
            yield "always fails"
        if place is Place.CHECKPOINT_FUNCTION and node.op in _PATH_OPERANDS and not _is_given_its_path(node, nodes):
            yield "saves or restores under a path of its own instead of the one that it is given"
        yield from sizes.size_problems(node, nodes, self._limits)
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
            elements, size = sizes.constant_size(tensor)
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
        callees = set(called_functions(node))
        if node.name in saver_nodes and node.op == "StatefulPartitionedCall":
            candidates |= callees
        else:
            others |= callees
    for function in meta_graph.graph_def.library.function:
        for node in function.node_def:
            others.update(called_functions(node))
    for gradient in meta_graph.graph_def.library.registered_gradients:
        others.add(gradient.gradient_func)
    return candidates - others


def _is_given_its_path(node: node_def_pb2.NodeDef, nodes: Mapping[str, node_def_pb2.NodeDef]) -> bool:
    """Whether the path of a checkpoint operation begins with an argument of its function."""
    operand = _PATH_OPERANDS[node.op]
    for _ in range(len(nodes) + 1):
        if len(node.input) <= operand:
            return False
        name = sizes.source(node.input[operand])
        if name not in nodes:
            return True
        node, operand = nodes[name], 0
        if node.op not in ("Identity", "StringJoin", "ShardedFilename"):
            return False
    return False


def called_functions(node: node_def_pb2.NodeDef) -> Iterator[str]:
    """The functions that a node names in its attributes, one for each time that it names them."""
    for attr in node.attr.values():
        yield from _named_functions(attr)


def _scan_calls(graph: graph_pb2.GraphDef, limits: ScanLimits) -> list[Finding]:
    """Looks at the calls between the functions of a graph's library."""
    functions = {function.signature.name: function for function in graph.library.function}
    gradients = {
        gradient.registered_op_type.encode(): gradient.gradient_func for gradient in graph.library.registered_gradients
    }
    bodies: dict[str, Sequence[node_def_pb2.NodeDef]] = {name: function.node_def for name, function in functions.items()}
    # A library may give the gradient of a function, which is then called with it.
    own_gradients = collections.defaultdict(list)
    for gradient in graph.library.gradient:
        own_gradients[gradient.function_name].append(gradient.gradient_func)

    findings = []
    calls = {}
    for name, nodes in [(MAIN_GRAPH, graph.node), *bodies.items()]:
        callees = collections.Counter(own_gradients.get(name, ()))
        for node in nodes:
            named = [*called_functions(node), *_indirect_calls(node, functions, gradients)]
            for callee in named:
                if callee not in functions:
                    findings.append(
                        Finding(name, node.name, node.op, f"calls {printable(callee)!r}, which the file does not hold")
                    )
            callees.update(callee for callee in named if callee in functions)
        calls[name] = collections.Counter({callee: n for callee, n in callees.items() if callee in functions})

    order, cycle = _callees_first(calls)
    if cycle:
        shown = " -> ".join(printable(name) for name in cycle[:_MAX_SHOWN_CYCLE])
        findings.append(Finding(cycle[0], "", "", f"calls itself: {shown}"))
        return findings
    findings += _scan_expansion(order, calls, {MAIN_GRAPH: graph.node, **bodies}, limits)
    findings += _scan_loops([(MAIN_GRAPH, graph.node), *bodies.items()], functions)
    return findings


def _named_functions(attr: attr_value_pb2.AttrValue) -> Iterator[str]:
    functions = [attr.func] if attr.WhichOneof("value") == "func" else attr.list.func
    for function in functions:
        yield function.name
        for inner in function.attr.values():
            yield from _named_functions(inner)


def _indirect_calls(
    node: node_def_pb2.NodeDef, functions: Mapping[str, function_pb2.FunctionDef], gradients: Mapping[bytes, str]
) -> Iterator[str]:
    """An operation may itself be a function's name, and may have a function as its gradient."""
    if node.op in functions:
        yield node.op
    if "_gradient_op_type" in node.attr:
        gradient = gradients.get(node.attr["_gradient_op_type"].s)
        if gradient is not None:
            yield gradient


def _callees_first(calls: _Calls) -> tuple[list[str], list[str]]:
    """Orders functions so that each comes after those that it calls; or returns the functions of a cycle, from first to first."""
    callers = collections.defaultdict(list)
    waiting_for = {name: len(callees) for name, callees in calls.items()}
    for name, callees in calls.items():
        for callee in callees:
            callers[callee].append(name)
    ready = [name for name, count in waiting_for.items() if count == 0]
    order = []
    while ready:
        name = ready.pop()
        order.append(name)
        for caller in callers[name]:
            waiting_for[caller] -= 1
            if waiting_for[caller] == 0:
                ready.append(caller)
    if len(order) == len(calls):
        return order, []
    # Whatever is left waits for another that is left: following them must come back.
    done = set(order)
    path: dict[str, int] = {}
    name = next(name for name in calls if name not in done)
    while name not in path:
        path[name] = len(path)
        name = next(callee for callee in calls[name] if callee not in done)
    return [], [*list(path)[path[name] :], name]


def _scan_expansion(
    order: Sequence[str], calls: _Calls, bodies: Mapping[str, Sequence[node_def_pb2.NodeDef]], limits: ScanLimits
) -> Iterator[Finding]:
    """TensorFlow replaces calls by what they call. Ten functions that call each other ten times make ten billion nodes of it."""
    depth: dict[str, int] = {}
    size: dict[str, int] = {}
    for name in order:
        depth[name] = 1 + max((depth[callee] for callee in calls[name]), default=0)
        size[name] = len(bodies[name]) + sum(count * size[callee] for callee, count in calls[name].items())
        # Reported where a bound is passed first; callers would only repeat it.
        if depth[name] == limits.call_depth + 1:
            yield Finding(name, "", "", f"calls functions more than {limits.call_depth} deep")
        if size[name] > limits.inlined_nodes:
            yield Finding(name, "", "", f"has more than {limits.inlined_nodes} nodes once its calls are inlined")
            return


def _scan_loops(
    bodies: Sequence[tuple[str, Sequence[node_def_pb2.NodeDef]]], functions: Mapping[str, function_pb2.FunctionDef]
) -> Iterator[Finding]:
    """A loop whose condition depends on nothing that its body changes runs never or for ever."""
    conditions: dict[str, Optional[set[int]]] = {}
    unchanged: dict[str, set[int]] = {}
    for name, nodes in bodies:
        for node in nodes:
            if node.op not in ("While", "StatelessWhile"):
                continue
            condition, body = (functions.get(node.attr[key].func.name) for key in ("cond", "body"))
            if condition is None or body is None:
                continue  # A call of a function that does not exist is a finding by itself.
            condition_name, body_name = condition.signature.name, body.signature.name
            if condition_name not in conditions:
                conditions[condition_name] = _arguments_of_result(condition)
            if body_name not in unchanged:
                unchanged[body_name] = _arguments_passed_on(body)
            needed = conditions[condition_name]
            if needed is not None and needed <= unchanged[body_name]:
                yield Finding(name, node.name, node.op, "its condition never changes: it runs not at all or without end")


def _arguments_of_result(function: function_pb2.FunctionDef) -> Optional[set[int]]:
    """The arguments, by number, that a function's results depend on; None if they depend on something else as well."""
    arguments = {arg.name: i for i, arg in enumerate(function.signature.input_arg)}
    nodes = {node.name: node for node in function.node_def}
    needed = set()
    seen = set()
    waiting = [sizes.source(operand) for operand in function.ret.values()]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in arguments:
            needed.add(arguments[name])
        elif name in nodes:
            node = nodes[name]
            if node.op in _VARYING_OPS or "Random" in node.op or any(True for _ in called_functions(node)):
                return None
            waiting.extend(sizes.source(operand) for operand in node.input if not operand.startswith("^"))
    return needed


def _arguments_passed_on(function: function_pb2.FunctionDef) -> set[int]:
    """The arguments, by number, that a loop's body returns as they are."""
    nodes = {node.name: node for node in function.node_def}
    passed_on = set()
    for i, (argument, result) in enumerate(zip(function.signature.input_arg, function.signature.output_arg)):
        name = sizes.source(function.ret.get(result.name, ""))
        for _ in range(_MAX_STEPS):
            node = nodes.get(name)
            if node is None or node.op != "Identity" or not node.input:
                break
            name = sizes.source(node.input[0])
        if name == argument.name:
            passed_on.add(i)
    return passed_on
