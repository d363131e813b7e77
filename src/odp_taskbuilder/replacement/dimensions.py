"""Elementwise ops on tensors of many dimensions.

TFLite's arithmetic broadcasts in five dimensions, its selection in four, and the converter writes some ops out in selections.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from odp_taskbuilder.replacement.equivalent import Node, NoEquivalentError, equivalent


@equivalent("DivNoNan", by="a division, by infinity in place of zero")
def div_no_nan(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: dividend, divisor. Exact for dividends that are finite."""
    dividend, divisor = node.inputs
    flat = tf.reshape(divisor, [-1])
    safe = tf.where(tf.equal(flat, 0), tf.constant(np.inf, divisor.dtype), flat)
    return [dividend / tf.reshape(safe, _sizes(divisor))]


def _sizes(tensor: tf.Tensor) -> Sequence[int]:
    """For a reshape. Raises NoEquivalentError where more than the batch is unknown."""
    if tensor.shape.rank is None or tensor.shape.as_list().count(None) > 1:
        raise NoEquivalentError("more sizes than that of the batch are unknown")
    return [-1 if size is None else size for size in tensor.shape]
