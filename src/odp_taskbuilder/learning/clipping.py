"""An L2 clip that holds in TensorFlow Lite for every finite update (spec: privacy.md, section 8).

TFLite's arithmetic differs from TensorFlow's in two ways that matter here. It clamps: a square beyond 3.4e38 becomes 3.4e38 and not
infinity, so that the norm of a long update comes out as at most 1.8e19 and the update is clipped too little. And its SUM adds float32
numbers one after the other: over millions of elements small terms are lost, with the same effect. tf.clip_by_global_norm has both faults.

So the norm is taken of the update divided by its largest magnitude: every square is at most 1, and one of them is 1. And the squares
are summed in stages over rows of at most 16 elements. Rounding errors of different rows average out, except where many rows are alike: of all
tensors that were tried those whose elements are equal fare worst, with an error of the norm of 2.7e-7 (with rows of 64 elements: 9e-7).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_privacy as tfp

from odp_taskbuilder.base.elementwise import magnitude, square

_MAX_ROW = 16
_MIN_ROW = 8
# What the norm may come out too small by, relative: an update is clipped to that much less.
_NORM_ERROR = 3e-7
# Keeps the division defined where an update is zero, or so small that dividing by it would overflow.
_SMALLEST_MAGNITUDE = 1e-30


def clip_by_global_norm(tensors: Sequence[tf.Tensor], clip: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Scales tensors down so that the L2 norm of all of them together is at most `clip`, to a relative 1e-6 of float32 arithmetic.

    Args:
      tensors: float32, of known shapes, finite.
      clip: float32 scalar, at least 0.

    Returns:
      The tensors, and their norm before: 3.4e38 in TFLite where it is larger than that.
    """
    largest = tf.reduce_max(tf.stack([tf.reduce_max(magnitude(tensor)) for tensor in tensors]))
    unit = tf.maximum(largest, _SMALLEST_MAGNITUDE)
    scaled = [tensor / unit for tensor in tensors]
    # 1 to the root of the number of elements; less only where the update is smaller than the smallest magnitude.
    scaled_norm = tf.sqrt(_staged_sum(tf.stack([sum_of_squares(tensor) for tensor in scaled])))
    factor = tf.minimum(unit, clip * (1 - _NORM_ERROR) / tf.maximum(scaled_norm, _SMALLEST_MAGNITUDE))
    return [tensor * factor for tensor in scaled], unit * scaled_norm


def sum_of_squares(value: tf.Tensor) -> tf.Tensor:
    """sum(value ** 2) as a scalar, for a tensor of known shape, accurate in TFLite to a relative 6e-7 whatever the size."""
    return _staged_sum(tf.reshape(square(value), [value.shape.num_elements()]))


class ClippedSumQuery(tfp.SumAggregationDPQuery):
    """A DP query of TensorFlow Privacy that clips in L2, with `clip_by_global_norm` above as its clip; all else is the query's own."""

    def __init__(self, query: tfp.SumAggregationDPQuery):
        """Args: query: with a fixed clip, or one of the two that adapt it; possibly normalized or restarted by others around it."""
        self._query = query

    def preprocess_record(self, params: Any, record: Any) -> Any:
        """Clips a client's update. Of the adaptive queries the result also tells whether it was within the estimate of the clip."""
        tensors = tf.nest.flatten(record)
        if tf.is_tensor(params):
            clipped, _ = clip_by_global_norm(tensors, params)
            return tf.nest.pack_sequence_as(record, clipped)
        clipped, norm = clip_by_global_norm(tensors, params.sum_params)
        estimate = params.quantile_estimator_params.current_estimate
        # One half either way: the indicator is as long as its own clip, which has nothing to do then.
        below_estimate = tf.cast(norm <= estimate, tf.float32) - 0.5
        sample_state = self._query.initial_sample_state(record)
        return sample_state._replace(
            sum_state=tf.nest.pack_sequence_as(record, clipped), quantile_estimator_state=below_estimate
        )

    def initial_global_state(self) -> Any:
        return self._query.initial_global_state()

    def derive_sample_params(self, global_state: Any) -> Any:
        return self._query.derive_sample_params(global_state)

    def initial_sample_state(self, template: Any = None) -> Any:
        return self._query.initial_sample_state(template)

    def get_noised_result(self, sample_state: Any, global_state: Any) -> Any:
        return self._query.get_noised_result(sample_state, global_state)

    def derive_metrics(self, global_state: Any) -> Any:
        return self._query.derive_metrics(global_state)


def _staged_sum(terms: tf.Tensor) -> tf.Tensor:
    size = terms.shape.num_elements()
    while size > _MAX_ROW:
        row = next((length for length in range(_MAX_ROW, _MIN_ROW - 1, -1) if size % length == 0), None)
        if row is None:
            row = _MAX_ROW
            padding = -size % row
            terms = tf.pad(terms, [[0, padding]])
            size += padding
        size //= row
        terms = tf.reduce_sum(tf.reshape(terms, [size, row]), axis=1)
    return tf.reduce_sum(terms)
