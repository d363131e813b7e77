"""What follows from functions calling each other: recursion, depth, the size after inlining, and loops that cannot end."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Optional

import odp_taskbuilder.proto  # noqa: F401 - makes TensorFlow's messages importable without TensorFlow.
from odp_taskbuilder.scan.report import Finding, ScanLimits, printable
from odp_taskbuilder.scan.sizes import source

from tensorflow.core.framework import attr_value_pb2, function_pb2, graph_pb2, node_def_pb2  # isort: skip

# Operations whose value may differ from call to call with equal operands; random ones are known by their name.
_VARYING_OPS = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VarIsInitializedOp", "Multinomial", "TruncatedNormal"}
# How many functions of a cycle are named in a message.
_MAX_SHOWN_CYCLE = 5
# How many nodes that pass a value on are followed.
_MAX_STEPS = 8

_Calls = Mapping[str, "collections.Counter[str]"]


def called_functions(node: node_def_pb2.NodeDef) -> Iterator[str]:
    """The functions that a node names in its attributes, one for each time that it names them."""
    for attr in node.attr.values():
        yield from _named_functions(attr)


def scan_calls(graph: graph_pb2.GraphDef, main_graph: str, limits: ScanLimits) -> list[Finding]:
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
    for name, nodes in [(main_graph, graph.node), *bodies.items()]:
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
    findings += _scan_expansion(order, calls, {main_graph: graph.node, **bodies}, limits)
    findings += _scan_loops([(main_graph, graph.node), *bodies.items()], functions)
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
    waiting = [source(operand) for operand in function.ret.values()]
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
            waiting.extend(source(operand) for operand in node.input if not operand.startswith("^"))
    return needed


def _arguments_passed_on(function: function_pb2.FunctionDef) -> set[int]:
    """The arguments, by number, that a loop's body returns as they are."""
    nodes = {node.name: node for node in function.node_def}
    passed_on = set()
    for i, (argument, result) in enumerate(zip(function.signature.input_arg, function.signature.output_arg)):
        name = source(function.ret.get(result.name, ""))
        for _ in range(_MAX_STEPS):
            node = nodes.get(name)
            if node is None or node.op != "Identity" or not node.input:
                break
            name = source(node.input[0])
        if name == argument.name:
            passed_on.add(i)
    return passed_on
