"""Reading and writing checkpoint files inside a graph."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from odp_taskbuilder.plan import naming


def restore(path: tf.Tensor, leaves: Sequence[naming.Leaf]) -> list[tf.Tensor]:
    """Adds one op for each leaf that reads it from the checkpoint at `path`."""
    tensors = []
    for leaf in leaves:
        (tensor,) = tf.raw_ops.RestoreV2(
            prefix=path, tensor_names=[leaf.name], shape_and_slices=[""], dtypes=[leaf.dtype], name="restore"
        )
        tensor.set_shape(leaf.shape)
        tensors.append(tensor)
    return tensors


def save(path: tf.Tensor, leaves: Sequence[naming.Leaf], tensors: Sequence[tf.Tensor], name: str) -> str:
    """Adds a node that writes one V1 checkpoint to `path`, and returns its name."""
    operation = tf.raw_ops.SaveSlices(
        filename=path,
        tensor_names=[leaf.name for leaf in leaves],
        shapes_and_slices=[""] * len(leaves),
        data=list(tensors),
        name=name,
    )
    return operation.name
