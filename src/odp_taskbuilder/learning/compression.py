"""Codes for the large tensors of updates and models, so that phones send and receive a quarter of the bytes (spec: compression.md).

A tensor x travels as integers from -L to L and one scale; its decoded value is codes * scale. With b bits, L = 2^(b-1) - 1.

An update was clipped before it is coded, and epsilon rests on its length. Rounding lengthens: at 1.6 million elements and 8 bits by 74 %
where, as in TFF's own coder, the scale is peak / L. So the scale is shortened here until the decoded tensor is no longer than x was. Then the
sum over clients has the same sensitivity whatever was rounded how, and (epsilon, delta) holds as it stands: given the roundings it
does, and a mixture over roundings keeps it, since the divergence that defines it is jointly convex.

Rounding is by a dither taken from the value itself: deterministic, so that a run can be repeated, and without the bias over clients of
rounding to the nearest. TensorFlow Lite's random numbers differ from run to run.

Codes are written zigzag (0, -1, 1, -2, ... become 0, 1, 2, 3, ...) as int32: checkpoints store integers of any width as varints, in which
negative ones take ten bytes and those below 128 one.
"""

from __future__ import annotations

import collections
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder.base.elementwise import magnitude
from odp_taskbuilder.config.compression import CODES, SCALE, Compression, levels
from odp_taskbuilder.learning.clipping import sum_of_squares

# Float32 arithmetic of both norms, of the scale and of the decoded values, with room: the norms are good to 5e-7 each.
_SHORTENING = 1e-5
# Keeps divisions defined where a tensor is zero; the clip knows no smaller magnitudes either.
_SMALLEST_MAGNITUDE = 1e-30
# Any prime of this size does: u runs through its period 4099 times between two codes, and is exact to 1/32 at the largest of 8 bits.
_DITHER = 4099.0


def shortened_codes(value: tf.Tensor, bits: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Codes of a tensor that decode to one that is not longer.

    Args:
      value: float32, of known shape, finite.
      bits: of a code, the sign included.

    Returns:
      The codes, integers in float32 in the shape of `value`, and their scale, a float32 scalar: the L2 norm of codes * scale is at most that
      of `value`, also as TensorFlow Lite computes it.
    """
    largest = float(levels(bits))
    peak = tf.maximum(tf.reduce_max(magnitude(value)), _SMALLEST_MAGNITUDE)
    # The largest becomes 1 and then L, exactly.
    steps = value / peak * largest
    dither = magnitude(steps) * _DITHER
    dither -= tf.floor(dither)
    codes = tf.clip_by_value(tf.floor(steps + dither), -largest, largest)
    # In steps: the squares of small values would underflow.
    length, coded_length = tf.sqrt(sum_of_squares(steps)), tf.sqrt(sum_of_squares(codes))
    shortening = tf.minimum(1.0, length / tf.maximum(coded_length, _SMALLEST_MAGNITUDE))
    return codes, peak * (shortening * ((1 - _SHORTENING) / largest))


def nearest_codes(value: tf.Tensor, bits: int) -> tuple[tf.Tensor, tf.Tensor]:
    """As `shortened_codes`, but every element is rounded to the nearest, and the result may be longer. For models, which have no clip."""
    largest = float(levels(bits))
    peak = tf.maximum(tf.reduce_max(magnitude(value)), _SMALLEST_MAGNITUDE)
    return tf.floor(value / peak * largest + 0.5), peak / largest


def zigzag(codes: tf.Tensor) -> tf.Tensor:
    """Integers in float32 as natural numbers in int32: 0, -1, 1, -2, ... become 0, 1, 2, 3, ..."""
    return tf.cast(magnitude(2.0 * codes + 0.5) - 0.5, tf.int32)


def unzigzag(natural: tf.Tensor) -> tf.Tensor:
    """The inverse of `zigzag`; exact up to 2^24."""
    natural = tf.cast(natural, tf.float32)
    odd = natural - 2.0 * tf.floor(natural / 2.0)
    return tf.floor((natural + 1.0) / 2.0) * (1.0 - 2.0 * odd)


class CodedSumFactory(tff.aggregators.UnweightedAggregationFactory):
    """A sum over clients, each of which sends codes; the server decodes before it adds.

    For the sums inside of the DP aggregators, whose clip comes before, and of means. Without state or measurements. Servers in
    DistributeAggregate form cannot decode: see `GridSumFactory`.
    """

    def __init__(self, compression: Compression):
        """Args: compression: with `update_bits`."""
        self._compression = compression

    def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
        specs = _specs_of(value_type)
        bits = self._compression.update_bits

        @tff.tensorflow.computation(value_type)
        def encode(value):
            return _encoded(value, self._compression, lambda tensor: shortened_codes(tensor, bits))

        @tff.tensorflow.computation
        def zero():
            return tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), specs)

        @tff.tensorflow.computation(value_type, encode.type_signature.result)
        def accumulate(total, encoded):
            return tf.nest.map_structure(tf.add, total, _decoded(encoded, specs, self._compression))

        @tff.tensorflow.computation(value_type, value_type)
        def merge(total, other):
            return tf.nest.map_structure(tf.add, total, other)

        @tff.tensorflow.computation(value_type)
        def report(total):
            return total

        return _aggregation_process(
            value_type,
            lambda value: tff.federated_aggregate(tff.federated_map(encode, value), zero(), accumulate, merge, report),
        )


class GridSumFactory(tff.aggregators.UnweightedAggregationFactory):
    """A sum over clients, each of which decodes its own codes and sends the result: float32 values on a grid, which gzip makes small."""

    def __init__(self, compression: Compression):
        """Args: compression: with `update_bits`."""
        self._compression = compression

    def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
        bits = self._compression.update_bits

        def on_grid(tensor: tf.Tensor) -> tf.Tensor:
            if not self._compression.codes(tensor.dtype.as_numpy_dtype, tensor.shape):
                return tensor
            codes, scale = shortened_codes(tensor, bits)
            return codes * scale

        @tff.tensorflow.computation(value_type)
        def round_to_grid(value):
            return tf.nest.map_structure(on_grid, value)

        return _aggregation_process(value_type, lambda value: tff.federated_sum(tff.federated_map(round_to_grid, value)))


def model_distribution(weights_type: tff.Type, compression: Compression) -> tff.learning.templates.DistributionProcess:
    """A process without state that sends a model as codes; clients work with the decoded weights.

    Args:
      weights_type: of the model.
      compression: with `model_bits`.
    """

    @tff.federated_computation
    def initialize():
        return tff.federated_value((), tff.SERVER)

    @tff.federated_computation(initialize.type_signature.result, tff.FederatedType(weights_type, tff.SERVER))
    def next_(state, weights):
        return tff.templates.MeasuredProcessOutput(
            state, broadcast_codes(weights_type, compression, weights), tff.federated_value((), tff.SERVER)
        )

    return tff.learning.templates.DistributionProcess(initialize, next_)


def broadcast_codes(weights_type: tff.Type, compression: Compression, weights: Any) -> Any:
    """Within a federated computation: weights at the server -> the decoded weights at the clients, sent as codes."""
    specs = _specs_of(weights_type)

    @tff.tensorflow.computation(weights_type)
    def encode(value):
        return _encoded(value, compression, lambda tensor: nearest_codes(tensor, compression.model_bits))

    @tff.tensorflow.computation(encode.type_signature.result)
    def decode(encoded):
        return _decoded(encoded, specs, compression)

    return tff.federated_map(decode, tff.federated_broadcast(tff.federated_map(encode, weights)))


def _aggregation_process(value_type: tff.Type, summed: Any) -> tff.templates.AggregationProcess:
    @tff.federated_computation
    def initialize():
        return tff.federated_value((), tff.SERVER)

    @tff.federated_computation(initialize.type_signature.result, tff.FederatedType(value_type, tff.CLIENTS))
    def next_(state, value):
        return tff.templates.MeasuredProcessOutput(state, summed(value), tff.federated_value((), tff.SERVER))

    return tff.templates.AggregationProcess(initialize, next_)


def _specs_of(value_type: tff.Type) -> Any:
    """TensorSpecs in the Python containers of a TFF type."""
    return tff.types.type_to_tf_tensor_specs(value_type)


def _encoded(value: Any, compression: Compression, codes_of: Any) -> Any:
    def encoded(tensor: tf.Tensor) -> Any:
        if not compression.codes(tensor.dtype.as_numpy_dtype, tensor.shape):
            return tensor
        codes, scale = codes_of(tensor)
        return collections.OrderedDict([(CODES, zigzag(codes)), (SCALE, scale)])

    return tf.nest.map_structure(encoded, value)


def _decoded(encoded: Any, specs: Any, compression: Compression) -> Any:
    tensors = iter(tf.nest.flatten(encoded))

    def decoded(spec: tf.TensorSpec) -> tf.Tensor:
        tensor = next(tensors)
        return unzigzag(tensor) * next(tensors) if compression.codes(spec.dtype.as_numpy_dtype, spec.shape) else tensor

    return tf.nest.map_structure(decoded, specs)
