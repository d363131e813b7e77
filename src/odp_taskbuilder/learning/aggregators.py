"""The DP aggregators that a config can name, as TFF aggregation factories (spec: privacy.md, section 4).

Each clips a client's update in L2, sums, adds Gaussian noise of standard deviation noise_multiplier * clip to the sum, and divides by the
report goal (not by the number of reports that came). Tree types add correlated noise (tree residuals) instead of fresh noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder.config.spec import DpAggregator
from odp_taskbuilder.learning.clipping import ClippedSumQuery
from odp_taskbuilder.model.load import WeightSpec

# Updates with an entry beyond this multiple of the clip are replaced by zeros before tree aggregation; L-infinity
# (https://arxiv.org/abs/2211.06530).
_ZEROING_NORM_IN_CLIPS = 100.0
_DP_FACTORY = tff.aggregators.DifferentiallyPrivateFactory


def dp_aggregator(
    kind: Optional[DpAggregator],
    *,
    noise_multiplier: float,
    report_goal: int,
    clip_norm: float,
    trainable: Sequence[WeightSpec],
    record_sum: Optional[tff.aggregators.UnweightedAggregationFactory] = None,
) -> Optional[tff.aggregators.UnweightedAggregationFactory]:
    """The factory for `kind`; None when there is no DP aggregator.

    Args:
      noise_multiplier: standard deviation of the noise in units of the clip.
      report_goal: clients per round, by which the sum is divided.
      clip_norm: L2 clip; the first one of the adaptive kinds.
      trainable: shapes and dtypes of the trainable weights, which tree aggregators need in advance.
      record_sum: how clipped updates are summed; None for as they are.
    """
    if kind is None:
        return None
    noise = {"noise_multiplier": noise_multiplier, "clients_per_round": float(report_goal)}
    if kind is DpAggregator.FIXED_GAUSSIAN:
        return _clipping_safely(_DP_FACTORY.gaussian_fixed(clip=clip_norm, **noise), record_sum)
    if kind is DpAggregator.ADAPTIVE_GAUSSIAN:
        return _clipping_safely(_DP_FACTORY.gaussian_adaptive(initial_l2_norm_clip=clip_norm, **noise), record_sum)
    record_specs = tuple(tf.TensorSpec(weight.shape, weight.dtype) for weight in trainable)
    if kind is DpAggregator.TREE_AGGREGATION:
        tree = _DP_FACTORY.tree_aggregation(l2_norm_clip=clip_norm, record_specs=record_specs, **noise)
    else:
        tree = _DP_FACTORY.tree_adaptive(initial_l2_norm_clip=clip_norm, record_specs=record_specs, **noise)
    return tff.aggregators.zeroing_factory(_ZEROING_NORM_IN_CLIPS * clip_norm, _clipping_safely(tree, record_sum))


def _clipping_safely(
    factory: tff.aggregators.DifferentiallyPrivateFactory, record_sum: Optional[tff.aggregators.UnweightedAggregationFactory]
) -> tff.aggregators.DifferentiallyPrivateFactory:
    # TFF's constructors take no query, and its own constructor of one takes no noise multiplier: the query is read from the former.
    return _DP_FACTORY(ClippedSumQuery(factory._query), record_sum)
