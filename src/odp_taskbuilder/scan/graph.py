"""The graphs of a SavedModel: the functions of its library, used or not, and the main graph.

First every node is looked at for itself, then what follows from functions calling each other: recursion, depth, the size after
inlining, and loops that cannot end.
"""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Optional

from google.protobuf import message

import odp_taskbuilder.proto  # noqa: F401 - makes TensorFlow's messages importable without TensorFlow.
from odp_taskbuilder.scan import attributes, sizes
from odp_taskbuilder.scan import ops as scan_ops
from odp_taskbuilder.scan.ops import Place
from odp_taskbuilder.scan.report import Finding, ScanLimits, printable

from tensorflow.core.framework import attr_value_pb2, function_pb2, graph_pb2, node_def_pb2, tensor_pb2, types_pb2  # isort: skip
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2  # isort: skip

MAIN_GRAPH = "main graph"

# Processors of this process, by index, or none in particular.
_LOCAL_DEVICE = re.compile(r"(/job:localhost)?(/replica:\d+)?(/task:0)?(/device:)?((CPU|GPU|cpu|gpu):(\d+|\*))?")
# What TensorFlow writes into calls of functions: how many processors of which kind there were. Values that are messages may be there
# without saying anything.
_CONFIG_FIELDS = {"device_count", "gpu_options", "allow_soft_placement", "experimental", "log_device_placement"}
_MAX_DEVICES = 64
# Attributes of functions. Others have TensorFlow put one function in another's place (`api_implements`), or name functions.
_FUNCTION_ATTRIBUTES = {
    "_XlaMustCompile",
    "_construction_context",
    "_disable_call_shape_inference",
    "_input_shapes",
    "_noinline",
}
# How calls are run, as a text of its own format: TensorFlow leaves these empty.
_CALL_SETTINGS = ("config", "executor_type")
# Names of the functions that save and restore the variables. The loader gives functions new numbers, so a name counts without it.
_CHECKPOINT_FUNCTIONS = ("__inference__traced_save", "__inference__traced_restore")
# Names that TensorFlow has for operations, past and present; a library function of such a name would be run in their place.
_OPERATION_NAME = re.compile(r"_{0,2}[A-Z][A-Za-z0-9>]*")
# Gradients that TensorFlow names itself: the file's own, and those of functions that were saved without.
_CUSTOM_GRADIENT = re.compile(rb"CustomGradient-\d+")
# What makes a path of another.
_TEXT_OPS = ("Identity", "ShardedFilename", "StringJoin")
# The operand of a checkpoint operation that is the path.
_PATH_OPERANDS = {"SaveV2": 0, "RestoreV2": 0, "MergeV2Checkpoints": 1, "ShardedFilename": 0}


# Operations whose value may differ from call to call with equal operands; random ones are known by their name.
_VARYING_OPS = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VarIsInitializedOp", "Multinomial", "TruncatedNormal"}
# Types that are no values.
_HANDLES = {types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT}
# Branches by a truth value, which is what tf.cond writes; TensorFlow ends the process where it cannot make one of another type.
_BRANCHES = ("If", "StatelessIf")
_CALLS_WITH_TYPES = {"PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf", "Case", "StatelessCase"}
# How many functions of a cycle are named in a message.
_MAX_SHOWN_CYCLE = 5
# How many nodes that pass a value on are followed.
_MAX_STEPS = 8

_Calls = Mapping[str, "collections.Counter[str]"]


class GraphScan(NamedTuple):
    findings: list[Finding]
    op_counts: Mapping[str, int]
    reachable_functions: frozenset[str]


def scan_graph(meta_graph: meta_graph_pb2.MetaGraphDef, content: bytes, limits: ScanLimits) -> GraphScan:
    """Scans the main graph and every function of the library. `content` is the file that the meta graph was parsed from."""
    graph = meta_graph.graph_def
    scanner = _Scanner(meta_graph, content, limits)
    scanner.scan(MAIN_GRAPH, Place.MAIN_GRAPH, graph.node)
    names = {MAIN_GRAPH}
    for function in graph.library.function:
        name = function.signature.name
        if name in names:
            scanner.find(name, "", "", "two functions have this name")
        if _OPERATION_NAME.fullmatch(name):
            scanner.find(name, "", "", "is named like an operation, in whose place TensorFlow would run it")
        names.add(name)
        place = Place.CHECKPOINT_FUNCTION if name in scanner.checkpoint_functions else Place.FUNCTION
        scanner.scan(name, place, function.node_def)
        scanner.scan_function_attributes(function)
    if graph.library.gradient:
        scanner.find("graph", "", "", "a library with gradients in the older form, which no model needs")
    if scanner.constant_bytes > limits.constant_bytes:
        scanner.find(
            "graph", "", "", f"constants take {scanner.constant_bytes} bytes; at most {limits.constant_bytes} are accepted"
        )
    for findings in (sizes.scan_sizes(_bodies(graph), graph.library, limits), _scan_calls(graph, limits)):
        scanner.findings += itertools.islice(findings, limits.findings)
    reachable = frozenset(names - {MAIN_GRAPH} - scanner.checkpoint_functions)
    return GraphScan(scanner.findings, scanner.op_counts, reachable)


class _Scanner:
    """Goes through nodes and collects what it finds."""

    def __init__(self, meta_graph: meta_graph_pb2.MetaGraphDef, content: bytes, limits: ScanLimits):
        self.findings: list[Finding] = []
        self.op_counts: collections.Counter = collections.Counter()
        self.constant_bytes = 0
        self.checkpoint_functions = _checkpoint_functions(meta_graph, content)
        self._gradients = {
            gradient.registered_op_type.encode() for gradient in meta_graph.graph_def.library.registered_gradients
        }
        self._limits = limits
        # Of the function that is gone through: which of its nodes were looked at as conditions, and are false.
        self._false: dict[str, bool] = {}

    def find(self, function: str, node: str, op: str, reason: str) -> None:
        if len(self.findings) < self._limits.findings:
            self.findings.append(Finding(function, node, op, reason))

    def scan(self, function: str, place: Place, nodes: Sequence[node_def_pb2.NodeDef]) -> None:
        """Scans the nodes of one function or of the main graph."""
        by_name = {}
        for node in nodes:
            if node.name in by_name:
                self.find(function, node.name, node.op, "two nodes have this name")
            by_name[node.name] = node
        self._false = {}
        for name, node in zip([node.name for node in nodes], nodes):
            op = node.op
            self.op_counts[op] += 1
            for reason in self._node_problems(node, place, by_name):
                self.find(function, name, op, reason)
        if place is Place.CHECKPOINT_FUNCTION:
            for node in _with_paths_of_their_own(by_name):
                reason = "saves or restores under a path of its own instead of the one that it is given"
                self.find(function, node.name, node.op, reason)

    def scan_function_attributes(self, function: function_pb2.FunctionDef) -> None:
        name = function.signature.name
        for key, attr in function.attr.items():
            if key not in _FUNCTION_ATTRIBUTES:
                self.find(name, "", "", f"the function has the attribute {printable(key)!r}, which no model needs")
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
        if node.op == "Assert" and node.input and self._is_constant_false(sizes.source(node.input[0]), nodes):
            yield "always fails"
        if node.op == "Assert" and not _HANDLES.isdisjoint(node.attr["T"].list.type):
            yield "would print handles or lists, which ends the process"
        if node.op in _BRANCHES and node.attr["Tcond"].type != types_pb2.DT_BOOL:
            yield "chooses a branch by something that is no truth value, which ends the process for some types"
        gradient = node.attr["_gradient_op_type"].s if "_gradient_op_type" in node.attr else None
        if gradient is not None and gradient not in self._gradients and not _CUSTOM_GRADIENT.fullmatch(gradient):
            yield f"has the gradient {printable(gradient.decode(errors='replace'))!r}, which the file does not hold"
        for key in _CALL_SETTINGS:
            if "Call" in node.op and key in node.attr and node.attr[key].s:
                yield f"sets {key}, which no model needs"
        for key, attr in node.attr.items():
            yield from self._attribute_problems(key, attr)
        yield from attributes.problems(node)

    def _is_constant_false(self, name: str, nodes: Mapping[str, node_def_pb2.NodeDef]) -> bool:
        if name not in self._false:
            self._false[name] = sizes.is_constant_false(name, nodes)
        return self._false[name]

    def _attribute_problems(self, key: str, attr: attr_value_pb2.AttrValue) -> Iterator[str]:
        kind = attr.WhichOneof("value")
        if kind == "s":
            if len(attr.s) > self._limits.attribute_bytes:
                yield f"the attribute {printable(key)!r} has {len(attr.s)} bytes"
            elif key == "config_proto":
                yield from _config_problems(attr.s)
        elif kind == "tensor":
            yield from self._tensor_problems(attr.tensor)
        elif kind == "placeholder":
            yield f"the attribute {printable(key)!r} stands for one that the caller gives; a model states its attributes"
        elif kind == "func":
            if attr.func.attr:
                yield f"the attribute {printable(key)!r} passes attributes to the function that it names"
        elif kind == "list":
            values = attr.list
            if sum(len(field) for _, field in values.ListFields()) > self._limits.list_length:
                yield f"the attribute {printable(key)!r} is a list of more than {self._limits.list_length} values"
                return
            if sum(map(len, values.s)) > self._limits.attribute_bytes:
                yield f"the attribute {printable(key)!r} has more than {self._limits.attribute_bytes} bytes"
            for tensor in values.tensor:
                yield from self._tensor_problems(tensor)
            if any(function.attr for function in values.func):
                yield f"the attribute {printable(key)!r} passes attributes to the functions that it names"

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
    for field, value in config.ListFields():
        if field.name not in _CONFIG_FIELDS or (isinstance(value, message.Message) and _says_something(value)):
            yield f"its session configuration sets {field.name}"
    if any(not 0 <= count <= _MAX_DEVICES for count in config.device_count.values()):
        yield "its session configuration asks for more devices than there are"


def _says_something(value: message.Message) -> bool:
    """Whether a field is set in a message, other than empty messages."""
    return any(not isinstance(inner, message.Message) or _says_something(inner) for _, inner in value.ListFields())


def _checkpoint_functions(meta_graph: meta_graph_pb2.MetaGraphDef, content: bytes) -> set[str]:
    """The functions that the saver's nodes call, and that nothing else in the file can name.

    They write and read files, so it must not matter how a function can be reached: by an attribute of some kind, by its name as an
    operation, from an object, as a gradient, or in a way that is not thought of here. Whatever names it has to spell it. The two places
    that may are the function itself and the saver's node.
    """
    saver = meta_graph.saver_def
    saver_nodes = {saver.save_tensor_name.partition(":")[0], saver.restore_op_name}
    unnamed = [name for name in _CHECKPOINT_FUNCTIONS if content.count(name.encode()) == 2]
    found = set()
    for node in meta_graph.graph_def.node:
        if node.name in saver_nodes and node.op == "StatefulPartitionedCall" and "f" in node.attr:
            name, _, number = node.attr["f"].func.name.rpartition("_")
            if name in unnamed and number.isdecimal():
                found.add(node.attr["f"].func.name)
    return found & {function.signature.name for function in meta_graph.graph_def.library.function}


def _with_paths_of_their_own(nodes: Mapping[str, node_def_pb2.NodeDef]) -> Iterator[node_def_pb2.NodeDef]:
    """The nodes of a checkpoint function whose path does not begin with an argument of the function."""
    given: dict[str, bool] = {}
    for node in nodes.values():
        if node.op not in _PATH_OPERANDS:
            continue
        name = sizes.source(node.input[_PATH_OPERANDS[node.op]]) if len(node.input) > _PATH_OPERANDS[node.op] else node.name
        chain = []
        # What is no node is an argument. A chain that returns to itself never gets to one.
        while name in nodes and name not in given and nodes[name].op in _TEXT_OPS and nodes[name].input:
            given[name] = False
            chain.append(name)
            name = sizes.source(nodes[name].input[0])
        verdict = given.get(name, name not in nodes)
        given.update(dict.fromkeys(chain, verdict))
        if not verdict:
            yield node


def called_functions(node: node_def_pb2.NodeDef) -> Iterator[str]:
    """The functions that a node names in its attributes, one for each time that it names them."""
    for attr in node.attr.values():
        yield from _named_functions(attr)


def _scan_calls(graph: graph_pb2.GraphDef, limits: ScanLimits) -> Iterator[Finding]:
    """Looks at the calls between the functions of a graph's library, and at what they come to."""
    functions = {function.signature.name: function for function in graph.library.function}
    gradients = {
        gradient.registered_op_type.encode(): gradient.gradient_func for gradient in graph.library.registered_gradients
    }
    for gradient in graph.library.registered_gradients:
        if gradient.gradient_func not in functions:
            yield Finding("gradients", gradient.registered_op_type, "", "the function of this gradient is not in the file")
    bodies = _bodies(graph)
    calls: dict[str, collections.Counter[str]] = {}
    signatures = _Signatures(functions)
    for name, nodes in bodies.items():
        calls[name] = collections.Counter(_named_in_text(functions[name].attr, functions) if name in functions else ())
        for node in nodes:
            for callee in called_functions(node):
                if callee in functions:
                    calls[name][callee] += 1
                else:
                    yield Finding(name, node.name, node.op, f"calls {printable(callee)!r}, which the file does not hold")
            for reason in signatures.misfits(node):
                yield Finding(name, node.name, node.op, reason)
            calls[name].update(_reached_otherwise(node, functions, gradients))
    order, cycle = _callees_first(calls)
    if cycle:
        shown = " -> ".join(printable(name) for name in cycle[:_MAX_SHOWN_CYCLE])
        yield Finding(cycle[0], "", "", f"calls itself: {shown}")
        return
    yield from _scan_expansion(order, calls, bodies, limits)
    yield from _scan_loops(bodies, functions)


def _bodies(graph: graph_pb2.GraphDef) -> dict[str, Sequence[node_def_pb2.NodeDef]]:
    return {MAIN_GRAPH: graph.node, **{function.signature.name: function.node_def for function in graph.library.function}}


def _named_functions(attr: attr_value_pb2.AttrValue) -> Iterator[str]:
    functions = [attr.func] if attr.WhichOneof("value") == "func" else attr.list.func
    for function in functions:
        yield function.name
        for inner in function.attr.values():
            yield from _named_functions(inner)


class _Signatures:
    """Types that calls and functions take and give, each set of them numbered, so that comparing two costs nothing."""

    def __init__(self, functions: Mapping[str, function_pb2.FunctionDef]):
        self._functions = functions
        self._numbers: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
        self._of_functions: dict[str, int] = {}

    def misfits(self, node: node_def_pb2.NodeDef) -> Iterator[str]:
        """Says which functions a call does not fit: TensorFlow's optimisers put the body in its place before they look."""
        if node.op not in _CALLS_WITH_TYPES:
            return
        takes, gives = (tuple(node.attr[key].list.type) if key in node.attr else () for key in ("Tin", "Tout"))
        number = self._number(takes, gives)
        for callee in called_functions(node):
            if callee in self._functions and self._of(callee) != number:
                yield f"calls {printable(callee)!r} with other types, or another number of them, than it takes and returns"

    def _of(self, name: str) -> int:
        if name not in self._of_functions:
            signature = self._functions[name].signature
            takes, gives = (tuple(arg.type for arg in args) for args in (signature.input_arg, signature.output_arg))
            self._of_functions[name] = self._number(takes, gives)
        return self._of_functions[name]

    def _number(self, takes: tuple[int, ...], gives: tuple[int, ...]) -> int:
        return self._numbers.setdefault((takes, gives), len(self._numbers))


def _reached_otherwise(
    node: node_def_pb2.NodeDef, functions: Mapping[str, function_pb2.FunctionDef], gradients: Mapping[bytes, str]
) -> Iterator[str]:
    """The functions of the file that a node reaches in other ways than by an attribute, one for each time that it does."""
    # An operation may itself be a function's name, may have a function as its gradient, and may name one in a text.
    if node.op in functions:
        yield node.op
    if "_gradient_op_type" in node.attr:
        gradient = gradients.get(node.attr["_gradient_op_type"].s)
        if gradient in functions:
            yield gradient
    yield from _named_in_text(node.attr, functions)


def _named_in_text(
    attributes: Mapping[str, attr_value_pb2.AttrValue], functions: Mapping[str, function_pb2.FunctionDef]
) -> Iterator[str]:
    for attr in attributes.values():
        for text in [attr.s] if attr.WhichOneof("value") == "s" else attr.list.s:
            name = text.decode(errors="replace")
            if name in functions:
                yield name


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
    bodies: Mapping[str, Sequence[node_def_pb2.NodeDef]], functions: Mapping[str, function_pb2.FunctionDef]
) -> Iterator[Finding]:
    """A loop whose condition depends on nothing that its body changes runs never or for ever."""
    conditions: dict[str, Optional[set[int]]] = {}
    unchanged: dict[str, set[int]] = {}
    verdicts: dict[tuple[str, str], bool] = {}
    for name, nodes in bodies.items():
        for node in nodes:
            if node.op not in ("While", "StatelessWhile"):
                continue
            condition, body = (functions.get(node.attr[key].func.name) for key in ("cond", "body"))
            # A call of a function that does not exist is a finding by itself. Of one with fewer operands than arguments TensorFlow
            # makes an error; that all are there bounds what the sets below can cost together.
            if condition is None or body is None or len(node.input) < len(condition.signature.input_arg):
                continue
            if [result.type for result in condition.signature.output_arg] != [types_pb2.DT_BOOL]:
                yield Finding(name, node.name, node.op, "its condition is no truth value")
                continue
            pair = condition.signature.name, body.signature.name
            if pair not in verdicts:
                if pair[0] not in conditions:
                    conditions[pair[0]] = _arguments_of_result(condition)
                if pair[1] not in unchanged:
                    unchanged[pair[1]] = _arguments_passed_on(body)
                needed = conditions[pair[0]]
                verdicts[pair] = needed is not None and needed <= unchanged[pair[1]]
            if verdicts[pair]:
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
