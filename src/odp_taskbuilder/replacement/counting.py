"""Counting integers: what CategoryEncoding and the layers that encode with it bring."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from odp_taskbuilder.replacement.equivalent import Node, NoEquivalentError, equivalent


@equivalent("DenseBincount", by="one-hot values, summed or their maximum")
def dense_bincount(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: values [B, n] or [n], the number of bins, no weights. Exact. Values beyond the bins are not counted."""
    values, _, weights = node.inputs
    bins = int(node.constant(1))
    if weights.shape != [0]:
        raise NoEquivalentError("it has weights")
    one_hot = tf.one_hot(values, bins, dtype=weights.dtype)
    return [(tf.reduce_max if node.attr("binary_output") else tf.reduce_sum)(one_hot, -2)]
