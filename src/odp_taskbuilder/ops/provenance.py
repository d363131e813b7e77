"""Which part of a user's model or task an op of the client graph comes from.

A flatbuffer that was not compacted names its tensors after the nodes of TensorFlow's graph. Nodes of the forward pass and of the loss
bear the names that they have in the SavedModel's functions; a gradient is named after the node whose gradient it is. What the saved model
does not have comes from the metrics, where the examples are looped over, or from the algorithm around that loop.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Union

import odp_taskbuilder.proto  # noqa: F401  makes TensorFlow's protos importable without TensorFlow
from odp_taskbuilder.model.scan_calls import called_functions
from odp_taskbuilder.ops.advice import advice_for
from odp_taskbuilder.ops.tflite import Operator, Subgraph, TfliteGraph

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
# Inlining a function puts the name of the node that called it before the names of its nodes.
_INLINED = re.compile(r".*PartitionedCall(_\d+)?/")
# What TensorFlow appends to make names unique.
_NUMBERED = re.compile(r"_\d+$")


class Part(enum.Enum):
    """Where an op comes from."""

    MODEL = "layer"
    LOSS = "loss"
    METRICS = "metrics"
    CLIP = "clipping of the update"
    ALGORITHM = "learning algorithm"


@dataclasses.dataclass(frozen=True)
class Origin:
    """One origin of an op.

    Attributes:
      name: scope of the layer (or the node, where it has no scope), of the loss, or the names of metrics that may have brought it.
      backward: whether it belongs to the gradient.
    """

    part: Part
    name: str
    backward: bool

    def __str__(self) -> str:
        name = f" {self.name}" if self.name else ""
        passes = {Part.MODEL, Part.LOSS}
        suffix = f", {'backward' if self.backward else 'forward'} pass" if self.part in passes else ""
        return f"{self.part.value}{name}{suffix}"


def model_nodes(saved_model: Union[str, os.PathLike]) -> dict[str, Part]:
    """The nodes of a saved FunctionalModel: name -> MODEL or LOSS. Raises OSError, DecodeError."""
    content = (pathlib.Path(saved_model) / "saved_model.pb").read_bytes()
    meta_graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
    functions = {function.signature.name: function for function in meta_graph.graph_def.library.function}
    nodes = dict.fromkeys(_nodes_of(meta_graph.object_graph_def, functions, _FORWARD_MEMBERS), Part.MODEL)
    for name in _nodes_of(meta_graph.object_graph_def, functions, [_LOSS_MEMBER]):
        nodes.setdefault(name, Part.LOSS)
    return nodes


def origins(graph: TfliteGraph, op: str, nodes: Mapping[str, Part], metrics: Sequence[str]) -> tuple[Origin, ...]:
    """Where the operators that execute an op come from, each origin once.

    Args:
      graph: a client graph with the names of TensorFlow's nodes (BuildOptions.keep_node_names).
      op: TensorFlow's name of a flex op.
      nodes: from `model_nodes`.
      metrics: the task's metrics, in whose names the graph does not speak.
    """
    found = {}
    for index, subgraph in enumerate(graph.subgraphs):
        for operator in subgraph.operators:
            if operator.op == op:
                origin = _origin(_node_name(subgraph, operator), op, index == 0, nodes, metrics)
                found[origin] = None
    return tuple(found)


def _nodes_of(graph: Any, functions: Mapping[str, Any], members: Sequence[str]) -> Iterator[str]:
    """Names of the nodes in the functions of a SavedModel's members, and in those that they call."""
    pending = []
    for child in graph.nodes[0].children:
        if child.local_name in members:
            saved = graph.nodes[child.node_id]
            pending += saved.function.concrete_functions
            pending.append(saved.bare_concrete_function.concrete_function_name)
    seen = set()
    while pending:
        name = pending.pop()
        if name in seen or name not in functions:
            continue
        seen.add(name)
        for node in functions[name].node_def:
            yield node.name
            pending += [node.op, *called_functions(node)]


def _node_name(subgraph: Subgraph, operator: Operator) -> str:
    indices = operator.outputs or operator.inputs
    name = subgraph.tensors[indices[0]].name if indices and indices[0] >= 0 else ""
    # The converter joins the names of nodes that it fused; the first is that of the result.
    return name.partition(";")[0]


def _origin(name: str, op: str, is_main: bool, nodes: Mapping[str, Part], metrics: Sequence[str]) -> Origin:
    forward, backward = _forward_node(_INLINED.sub("", name))
    part = nodes.get(forward)
    if part is Part.MODEL:
        scope = forward.rpartition("/")[0]
        return Origin(part, scope or forward, backward)
    if part is Part.LOSS:
        return Origin(part, forward.partition("/")[0], backward)
    if is_main:
        return Origin(Part.CLIP if _NORM_SCOPE in forward else Part.ALGORITHM, "", False)
    advice = advice_for(op)
    likely = [metric for metric in metrics if advice is not None and metric in advice.metrics]
    if likely or metrics:
        return Origin(Part.METRICS, ", ".join(likely or metrics), False)
    return Origin(Part.ALGORITHM, forward, backward)


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
