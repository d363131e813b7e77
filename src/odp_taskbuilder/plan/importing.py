"""Importing TFF computations into a TensorFlow graph (spec: plan.md, section 4.1)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder.plan.optimize import ancestors, optimize


def import_computation(
    computation: tff.Computation, arguments: Sequence[tf.Tensor] = (), *, name: str, session_token: Optional[tf.Tensor] = None
) -> list[tf.Tensor]:
    """Copies a TensorFlow computation into the current default graph.

    Args:
      computation: a TFF computation that is one block of TensorFlow.
      arguments: its argument's tensors, flat, in the order of the type; a sequence is given by its variant tensor.
      name: prefix of the imported nodes.
      session_token: takes the place of the computation's session token placeholder, if it has one.

    Returns:
      The result's tensors, flat, in the order of the type.
    """
    proto = tff.framework.serialize_computation(computation).tensorflow
    graph_def = tf.compat.v1.GraphDef.FromString(proto.graph_def.value)
    parameters = _binding_tensors(proto.parameter) if proto.HasField("parameter") else []
    if len(parameters) != len(arguments):
        raise ValueError(f"{name}: {len(arguments)} tensors were given, the computation takes {len(parameters)}")
    results = _binding_tensors(proto.result)
    if not proto.initialize_op:
        # Tables are filled by an initialiser that no result depends on: such graphs are left as they are.
        graph_def = optimize(graph_def, parameters, results)
    input_map: dict[str, tf.Tensor] = dict(zip(parameters, arguments))
    if session_token is not None and any(node.name == proto.session_token_tensor_name.split(":")[0] for node in graph_def.node):
        input_map[proto.session_token_tensor_name] = session_token

    _isolate_resources(graph_def)
    if proto.initialize_op:
        _run_first(graph_def, proto.initialize_op)
    return tf.graph_util.import_graph_def(
        graph_def, input_map=_with_control_inputs(input_map), return_elements=results, name=name
    )


def versioned_graph_def(graph: tf.Graph) -> tf.compat.v1.GraphDef:
    """A finished graph, with the version of graphs that this TensorFlow writes.

    TFF's graphs carry none, and importing one takes it away from the whole graph, which readers then take for an ancient one.
    """
    graph_def = graph.as_graph_def()
    graph_def.versions.producer = tf.version.GRAPH_DEF_VERSION
    return graph_def


def _binding_tensors(binding: Any) -> list[str]:
    kind = binding.WhichOneof("binding")
    if kind == "tensor":
        return [binding.tensor.tensor_name]
    if kind == "sequence" and binding.sequence.WhichOneof("binding") == "variant_tensor_name":
        return [binding.sequence.variant_tensor_name]
    if kind == "struct":
        return [tensor for element in binding.struct.element for tensor in _binding_tensors(element)]
    raise ValueError(f"a TFF computation binds a value as {kind}, which cannot be imported into a graph")


def _with_control_inputs(input_map: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    # A node of the computation may wait for an argument's placeholder without reading it; that edge must move as well.
    return {**input_map, **{"^" + source.split(":")[0]: target for source, target in input_map.items()}}


def _isolate_resources(graph_def: tf.compat.v1.GraphDef) -> None:
    # Two imports whose resources share a name would share the resource. An empty name must first become one that stays
    # legal with a suffix: TensorFlow refuses shared names that begin with an underscore.
    suffix = "_" + tf.compat.v1.get_default_graph().unique_name("import")
    nodes = itertools.chain(graph_def.node, *(function.node_def for function in graph_def.library.function))
    for node in nodes:
        if "shared_name" in node.attr:
            shared_name = node.attr["shared_name"].s or b"resource"
            node.attr["shared_name"].s = shared_name + suffix.encode()


def _run_first(graph_def: tf.compat.v1.GraphDef, initialize_op: str) -> None:
    """Makes every node that the initialiser does not need wait for it, so that tables are filled before they are read."""
    needed = ancestors(graph_def, [initialize_op])
    for node in graph_def.node:
        if node.name not in needed:
            node.input.append("^" + initialize_op.split(":")[0])
