"""A server graph whose noise can be repeated.

Aggregators draw their noise with ops that take another seed each time. Where a run is to be repeated, these nodes are replaced, in
memory, by ones that draw from the same distribution with a seed that is fed. Tree aggregators keep their seeds in the server state
and need nothing of this.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2, node_def_pb2

from odp_taskbuilder import errors

# Feeds an int64 scalar; every node that draws gets numbers of its own.
SEED = "odp_task/noise_seed:0"
_SEED_NODE = SEED.split(":")[0]


def with_seeded_noise(graph_def: graph_pb2.GraphDef) -> graph_pb2.GraphDef:
    """The graph with its draws replaced, and the placeholder SEED; also where it draws nothing.

    Raises:
      errors.ArtifactError: it draws random numbers in another way than an aggregator's noise.
    """
    for node in (*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)):
        if _is_stateful_random(node) and (node.op != "RandomStandardNormal" or node not in graph_def.node):
            raise errors.ArtifactError(
                f"The server graph draws random numbers with {node.op} ({node.name}); their seed cannot be set.",
                next_step="Run it without a noise seed.",
            )
    result = graph_pb2.GraphDef()
    result.CopyFrom(graph_def)
    placeholder = result.node.add(name=_SEED_NODE, op="Placeholder")
    placeholder.attr["dtype"].type = tf.int64.as_datatype_enum
    placeholder.attr["shape"].shape.SetInParent()
    for index, node in enumerate([node for node in result.node if _is_stateful_random(node)]):
        position = result.node.add(name=f"{_SEED_NODE}/position_{index}", op="Const")
        position.attr["dtype"].type = tf.int64.as_datatype_enum
        position.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(index, tf.int64))
        seed = result.node.add(name=f"{_SEED_NODE}/seed_{index}", op="Pack", input=[_SEED_NODE, position.name])
        seed.attr["N"].i = 2
        seed.attr["T"].type = tf.int64.as_datatype_enum
        shape, *control = node.input
        del node.input[:]
        node.input.extend([shape, seed.name, *control])
        node.op = "StatelessRandomNormal"
        for name in ("seed", "seed2"):
            node.attr.pop(name, None)
        node.attr["Tseed"].type = tf.int64.as_datatype_enum
    return result


def seed_feed(noise_seed: int) -> dict[str, np.ndarray]:
    """What to feed."""
    return {SEED: np.array(noise_seed, np.int64)}


def _is_stateful_random(node: node_def_pb2.NodeDef) -> bool:
    return "Random" in node.op and not node.op.startswith("Stateless")
