"""Which part of a user's model or task an op of the client graph comes from.

A flatbuffer that was not compacted names its tensors after the nodes of TensorFlow's graph. Nodes of the forward pass and of
the loss bear the names that they have in the SavedModel's functions; a gradient is named after the node whose gradient it is.
Subgraphs are named after the loop or the branch that they are the body of. What neither name tells comes from the algorithm
around the loop over the examples; inside of that loop it may come from the loss or from the metrics, and only what is known of
a metric's ops tells.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, Optional, Union

import odp_taskbuilder.proto  # noqa: F401  makes TensorFlow's protos importable without TensorFlow
from odp_taskbuilder.ops.advice import advice_for
from odp_taskbuilder.ops.tflite import Operator, Subgraph, TfliteGraph
from odp_taskbuilder.scan.graph import called_functions

# isort: split
from tensorflow.core.protobuf import saved_model_pb2

# Members of a saved FunctionalModel.
_FORWARD_MEMBERS = ("predict_on_batch_training", "predict_on_batch_inference")
_LOSS_MEMBER = "loss"
# Scopes that TensorFlow's two ways to differentiate put their nodes in.
_GRADIENTS, _GRADIENT_TAPE = "gradients", "gradient_tape"
_GRADIENT_SUFFIX = "_grad"
# The scope of tf.linalg.global_norm, which the DP aggregators clip by.
_NORM_SCOPE = "global_norm"
# In the name of the subgraph that parses examples.
_PARSER = "ExampleParser.parse"
# What calls functions as its branches or its body; all other calls are inlined.
_CONTROL_FLOW = ("Case", "If", "StatelessCase", "StatelessIf", "StatelessWhile", "While")
# The functions that such a node calls are named after it, with `_` for `/`, if not as it is itself.
_BODY = re.compile(r"_(true|false|body|cond|branch\d+)$")
_MANGLED_BODY = re.compile(r"__(?:inference|forward|backward)_(.+)_(?:true|false|body|cond|branch\d+)_\d+")
# Where a loop keeps what its gradient will need of a node of its body.
_ACCUMULATOR = re.compile(r"(_\d+)?/accumulator(_\d+)?$")
# Scopes of the lists that loops read from and write to.
_TENSOR_ARRAY = "TensorArray"
# Inlining a function puts the name of the node that called it before the names of its nodes.
_INLINED = re.compile(r".*PartitionedCall(_\d+)?/")
# What TensorFlow appends to make names unique.
_NUMBERED = re.compile(r"_\d+$")


class Part(enum.Enum):
    """Where an op comes from."""

    MODEL = "layer"
    NODE = "node of the model"
    LOSS = "loss"
    METRICS = "metrics"
    LOSS_OR_METRICS = "loss or metrics, which of them cannot be told"
    EXAMPLES = "parsing of examples"
    CLIP = "clipping of the update"
    ALGORITHM = "learning algorithm"


@dataclasses.dataclass(frozen=True)
class Origin:
    """One origin of an op.

    Attributes:
      name: scope of the layer, name of a node that is in none, scope of the loss, or the names of metrics that bring such ops.
      backward: whether it belongs to the gradient.
    """

    part: Part
    name: str
    backward: bool

    def __str__(self) -> str:
        name = f" {self.name}" if self.name else ""
        passes = {Part.MODEL, Part.NODE, Part.LOSS}
        suffix = f", {'backward' if self.backward else 'forward'} pass" if self.part in passes else ""
        return f"{self.part.value}{name}{suffix}"


@dataclasses.dataclass(frozen=True)
class ModelNode:
    """A node of a saved FunctionalModel: the `part` and `name` of what comes from it, as in an Origin."""

    part: Part
    name: str


def model_nodes(saved_model: Union[str, os.PathLike]) -> dict[str, ModelNode]:
    """The nodes of a saved FunctionalModel by name. Raises OSError, DecodeError."""
    content = (pathlib.Path(saved_model) / "saved_model.pb").read_bytes()
    meta_graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
    functions = {function.signature.name: function for function in meta_graph.graph_def.library.function}
    nodes: dict[str, ModelNode] = {}
    for name, node in _nodes_of(meta_graph.object_graph_def, functions, _FORWARD_MEMBERS, _in_model):
        nodes[name] = _either(nodes.get(name, node), node)
    for name, node in _nodes_of(meta_graph.object_graph_def, functions, [_LOSS_MEMBER], _in_loss):
        nodes.setdefault(name, node)
    return nodes


def _either(known: ModelNode, other: ModelNode) -> ModelNode:
    """What two nodes of one name come from: loops of different layers have such, and so has a layer that Keras traced twice."""
    if f"/{other.name}".endswith(f"/{known.name}"):
        return other
    if any(f"/{name}".endswith(f"/{other.name}") for name in known.name.split(" or ")):
        return known
    return ModelNode(Part.MODEL, f"{known.name} or {other.name}")


def _in_model(name: str) -> ModelNode:
    scopes = list(itertools.takewhile(lambda scope: not scope.startswith(_TENSOR_ARRAY), name.split("/")[:-1]))
    return ModelNode(Part.MODEL, "/".join(scopes)) if scopes else ModelNode(Part.NODE, name)


def _in_loss(name: str) -> ModelNode:
    scope, slash, _ = name.partition("/")
    return ModelNode(Part.LOSS, scope if slash else "")


def origins(graph: TfliteGraph, op: str, nodes: Mapping[str, ModelNode], metrics: Sequence[str]) -> tuple[Origin, ...]:
    """Where the operators that execute an op come from, each origin once.

    Args:
      graph: a client graph with the names of TensorFlow's nodes (BuildOptions.keep_node_names).
      op: TensorFlow's name of a flex op.
      nodes: from `model_nodes`.
      metrics: the task's metrics, in whose names the graph does not speak.
    """
    found: dict[Origin, None] = {}
    for index, subgraph in enumerate(graph.subgraphs):
        operators = [operator for operator in subgraph.operators if operator.op == op]
        if not operators:
            continue
        caller = _caller(subgraph.name, nodes)
        for operator in operators:
            name = _node_name(subgraph, operator)
            if caller is not None:
                _, backward = _forward_node(name)
                origin = dataclasses.replace(caller, backward=caller.backward or backward)
            elif _PARSER in subgraph.name:
                origin = Origin(Part.EXAMPLES, "", False)
            else:
                origin = _origin(name, op, index == 0, nodes, metrics)
            found[origin] = None
    return tuple(found)


def _nodes_of(
    graph: Any, functions: Mapping[str, Any], members: Sequence[str], place: Callable[[str], ModelNode]
) -> Iterator[tuple[str, ModelNode]]:
    """The nodes in the functions of a SavedModel's members, and in those that they call.

    Args:
      place: from the name of a node to what it belongs to. Nodes of a branch or a loop's body belong to what that belongs to.
    """
    names: list[str] = []
    for child in graph.nodes[0].children:
        if child.local_name in members:
            saved = graph.nodes[child.node_id]
            names += [*saved.function.concrete_functions, saved.bare_concrete_function.concrete_function_name]
    pending: list[tuple[str, Optional[ModelNode]]] = [(name, None) for name in names]
    seen = set()
    while pending:
        name, caller = pending.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        for node in functions[name].node_def:
            found = caller or place(node.name)
            yield node.name, found
            inherited = found if node.op in _CONTROL_FLOW else caller
            pending += [(called, inherited) for called in (node.op, *called_functions(node))]


def _node_name(subgraph: Subgraph, operator: Operator) -> str:
    indices = operator.outputs or operator.inputs
    name = subgraph.tensors[indices[0]].name if indices and indices[0] >= 0 else ""
    # The converter joins the names of nodes that it fused; the first is that of the result.
    return name.partition(";")[0]


def _caller(subgraph: str, nodes: Mapping[str, ModelNode]) -> Optional[Origin]:
    """What a subgraph belongs to that is a branch or a loop's body of the model or the loss; None for all others."""
    name, backward = _forward_node(_INLINED.sub("", subgraph))
    node = nodes.get(_BODY.sub("", name)) if backward or _BODY.search(name) else None
    mangled = _MANGLED_BODY.match(subgraph)
    if node is None and mangled:
        node = next((nodes[name] for name in nodes if name.replace("/", "_") == mangled[1]), None)
    return None if node is None else Origin(node.part, node.name, backward)


def _origin(name: str, op: str, is_main: bool, nodes: Mapping[str, ModelNode], metrics: Sequence[str]) -> Origin:
    forward, backward = _forward_node(_ACCUMULATOR.sub("", _INLINED.sub("", name)))
    node = nodes.get(forward)
    if node is not None:
        return Origin(node.part, node.name, backward)
    if is_main:
        return Origin(Part.CLIP if _NORM_SCOPE in forward else Part.ALGORITHM, "", False)
    advice = advice_for(op)
    known = [metric for metric in metrics if advice is not None and metric in advice.metrics]
    return Origin(Part.METRICS, ", ".join(known), False) if known else Origin(Part.LOSS_OR_METRICS, "", False)


def _forward_node(name: str) -> tuple[str, bool]:
    """The node that a node differentiates, or itself; and whether it differentiates one."""
    parts = name.split("/")
    for index, part in enumerate(parts):
        scope = _NUMBERED.sub("", part)
        if scope == _GRADIENT_TAPE:
            # gradient_tape/<node>/<op of the gradient>
            return "/".join(parts[index + 1 : -1]), True
        if scope == _GRADIENTS:
            # gradients/<node>_grad/<op of the gradient>
            below = parts[index + 1 :]
            for position, inner in enumerate(below):
                if inner.endswith(_GRADIENT_SUFFIX):
                    return "/".join([*below[:position], inner[: -len(_GRADIENT_SUFFIX)]]), True
            return "/".join(below), True
    return name, False
