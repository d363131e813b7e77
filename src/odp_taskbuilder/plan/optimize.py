"""Simplifying the graphs that TFF emits: functions inlined, dead and repeated nodes removed.

TFF can do this itself, with the shapes of the arguments known. Grappler then allocates a value of that shape for each of them, in every component
of the process: several times the model's size. Here the arguments have no shape, and building costs the same for any model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.core.protobuf import rewriter_config_pb2
from tensorflow.python.grappler import tf_optimizer


def without_optimization() -> tf.compat.v1.ConfigProto:
    """What TFF's compilers take in order to leave their graphs as they are."""
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config


def optimize(graph_def: tf.compat.v1.GraphDef, feeds: Sequence[str], fetches: Sequence[str]) -> tf.compat.v1.GraphDef:
    """An equivalent of `graph_def` for computing the tensors `fetches` from `feeds` (names of placeholders, `:0` included)."""
    meta_graph = tf.compat.v1.MetaGraphDef()
    meta_graph.graph_def.library.CopyFrom(graph_def.library)
    needed = ancestors(graph_def, (*feeds, *fetches))
    # Compositions of TFF leave the placeholders of their parts behind, which Grappler would allocate values for as well.
    meta_graph.graph_def.node.extend(node for node in graph_def.node if node.name in needed)
    dtypes = {}
    for node in meta_graph.graph_def.node:
        if node.op == "Placeholder":
            node.attr["shape"].CopyFrom(attr_value_pb2.AttrValue(shape={"unknown_rank": True}))
            # Grappler would take the shape from here instead.
            node.attr.pop("_output_shapes", None)
            dtypes[node.name] = node.attr["dtype"].type
    signature = meta_graph.signature_def["computation"]
    for index, name in enumerate(feeds):
        info = signature.inputs[f"argument_{index}"]
        info.name, info.dtype = name, dtypes[name.split(":")[0]]
    for index, name in enumerate(fetches):
        signature.outputs[f"result_{index}"].name = name
    optimized = tf_optimizer.OptimizeGraph(_config(), meta_graph, strip_default_attributes=True)
    for node in optimized.node:
        # Names of traced functions, which hold counters of this process.
        node.ClearField("experimental_debug_info")
    return optimized


def ancestors(graph_def: tf.compat.v1.GraphDef, names: Iterable[str]) -> set[str]:
    """The nodes that computing `names` (tensors or nodes) takes, themselves included."""
    inputs = {node.name: node.input for node in graph_def.node}
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop().lstrip("^").split(":")[0]
        if name not in found:
            found.add(name)
            pending.extend(inputs[name])
    return found


def _config() -> tf.compat.v1.ConfigProto:
    config = tf.compat.v1.ConfigProto()
    options = config.graph_options.rewrite_options
    # Folding computes constants of the model's size (zeros to start a sum from) before it finds them too large to keep.
    options.constant_folding = rewriter_config_pb2.RewriterConfig.OFF
    options.arithmetic_optimization = rewriter_config_pb2.RewriterConfig.AGGRESSIVE
    options.function_optimization = rewriter_config_pb2.RewriterConfig.AGGRESSIVE
    options.loop_optimization = rewriter_config_pb2.RewriterConfig.AGGRESSIVE
    # Fused kernels and layouts for this machine are of no use to a phone.
    options.remapping = rewriter_config_pb2.RewriterConfig.OFF
    options.layout_optimizer = rewriter_config_pb2.RewriterConfig.OFF
    # Graphs of a few nodes are to be simplified too, and none may be given up for taking long.
    options.min_graph_nodes = -1
    options.meta_optimizer_timeout_ms = -1
    return config
