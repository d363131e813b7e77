"""Sparse softmax cross-entropy: -log softmax(logits)[label], and its gradient softmax(logits) - one_hot(label).

Errors: at most 2e-7 relative to the largest element of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from odp_taskbuilder.replacement.equivalent import Node, NoEquivalentError, equivalent


@equivalent("SparseSoftmaxCrossEntropyWithLogits", by="a shifted log-sum-exp and a one-hot label")
def sparse_softmax_crossentropy(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: logits [B, C] of a known number of classes, labels [B]. Outputs: losses [B], gradients [B, C].

    A label out of range fails the run, as it does in TensorFlow's kernel on the CPU, which the phone would have executed: ONE_HOT
    alone would make a row of zeros of it, and with it a gradient that pushes all classes down.
    """
    logits, labels = node.inputs
    classes = node.shape(0)[-1]
    if classes is None:
        raise NoEquivalentError("the number of classes is unknown")
    shifted = logits - tf.reduce_max(logits, -1, keepdims=True)
    exponentials = tf.exp(shifted)
    total = tf.reduce_sum(exponentials, -1, keepdims=True)
    one_hot = tf.one_hot(_in_range(labels, classes), classes, dtype=logits.dtype)
    losses = tf.math.log(tf.squeeze(total, -1)) - tf.reduce_sum(one_hot * shifted, -1)
    return [losses, exponentials / total - one_hot]


def _in_range(labels: tf.Tensor, classes: int) -> tf.Tensor:
    """The labels; at run time an error if one of them is no class.

    TFLite has no builtin assertion. A reshape to as many elements as there are labels and wrong labels works only without wrong ones.
    """
    wrong = tf.logical_or(labels < 0, labels >= classes)
    number = tf.reduce_sum(tf.cast(wrong, tf.int32))
    return tf.reshape(labels, tf.shape(labels) + number)
