"""Whether phones take what a task sends them, told from the model's file: the size of the checkpoint, the size of an example.

Phones say nothing when they drop either (spec: phone.md, H1 and H4). Needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.base.phone_limits import MAX_CLIENT_CHECKPOINT_BYTES, MAX_EXAMPLE_BYTES
from odp_taskbuilder.config.compression import DEFAULT_MODEL_BITS, Compression
from odp_taskbuilder.config.spec import TaskSpec
from odp_taskbuilder.model.input_spec import ModelSpec, TensorInfo, read_model_spec
from odp_taskbuilder.model.starter_config import example_features

_FLOAT_BYTES = {"float32": 4, "float64": 8}
# The longest encoding of an int64; of a float32; and of an empty string.
_BYTES_PER_VALUE = {"float32": 4, "int64": 10, "int32": 10, "bool": 1, "string": 2}


def weight_bytes(model: ModelSpec, compression: Compression = Compression()) -> int:
    """What the values of a model's weights take in the file of the checkpoint that every phone downloads, before gzip.

    At least: names and shapes, which come on top, take some hundred bytes, and integers up to ten bytes each. Codes are counted as the
    longest that they can get: their values change from round to round.
    """

    def value_bytes(weight: TensorInfo) -> int:
        if compression.model_bits is not None and weight.dtype == "float32" and compression.codes("float32", weight.shape):
            return code_bytes(compression.model_bits)
        return _FLOAT_BYTES.get(weight.dtype, 1)

    return sum(weight.num_values * value_bytes(weight) for weight in model.weights)


def code_bytes(bits: int) -> int:
    """The largest size of a code in a checkpoint, which stores 7 bits of it in each byte."""
    return math.ceil(bits / 7)


def fitting_phones(
    spec: TaskSpec,
    saved_model: Union[str, os.PathLike],
    max_client_checkpoint_bytes: Optional[int],
    compression: Compression = Compression(),
) -> TaskSpec:
    """The spec, with notices about what phones may refuse of a model.

    Raises:
      errors.ModelError: phones would drop the model's checkpoint.
    """
    try:
        model = read_model_spec(saved_model)
    except errors.ModelError:  # Loading says what it is that it is not.
        return spec
    check_weights(model, spec, compression, max_client_checkpoint_bytes)
    return spec.with_notices(phone_notices(model, spec.label_name))


def check_weights(model: ModelSpec, spec: TaskSpec, compression: Compression, limit: Optional[int]) -> None:
    """Refuses weights that make a checkpoint which phones drop.

    Args:
      limit: None for no limit.

    Raises:
      errors.ModelError: it is larger than the limit.
    """
    # Evaluation is uncompressed unless asked for.
    compressed = compression if compression.evaluation or not spec.mode.evaluates else Compression()
    num_bytes = weight_bytes(model, compressed)
    if limit is None or num_bytes <= limit:
        return
    whose = "The checkpoint that phones download"
    if weight_bytes(model, compression) <= limit:
        whose = "The checkpoint that phones download for evaluation, which is not compressed,"
    raise errors.ModelError(
        f"{whose} would hold {num_bytes:,} bytes of weights; they drop one above {limit:,} bytes, and never train.",
        next_step=(
            "Make the model smaller"
            + (" (12.5 million float32 weights fit)" if limit == MAX_CLIENT_CHECKPOINT_BYTES else "")
            + "."
            + _advice_to_compress(model, spec, compression, limit)
            + f" If your phones take more, build with --max_client_checkpoint_bytes {(num_bytes // 10**6 + 1) * 10**6}."
        ),
    )


def _advice_to_compress(model: ModelSpec, spec: TaskSpec, compression: Compression, limit: int) -> str:
    bits = min(compression.model_bits or DEFAULT_MODEL_BITS, DEFAULT_MODEL_BITS)
    smallest = dataclasses.replace(compression, model_bits=bits, evaluation=spec.mode.evaluates)
    if weight_bytes(model, smallest) > limit:
        return ""
    evaluation = " --compress_evaluation" if smallest.evaluation else ""
    return f" Or send it in codes of {bits} bits: --compress_model {bits}{evaluation}."


def example_bytes(features: Mapping[str, TensorInfo]) -> int:
    """The largest size of a serialized tf.train.Example with such features; of strings only what is around their bytes counts."""
    return _field(sum(_field(_field(len(name.encode())) + _field(_feature(info))) for name, info in features.items()))


def phone_notices(model: ModelSpec, label_name: Optional[str]) -> tuple[str, ...]:
    """What an app developer should know of a model's examples: a sentence, or nothing.

    Args:
      label_name: of a model with named features.
    """
    try:
        features = example_features(model, label_name)
    except errors.ModelError:  # No example can be parsed at all; a build says so.
        return ()
    num_bytes = example_bytes(features)
    if num_bytes <= MAX_EXAMPLE_BYTES:
        return ()
    largest = max(features, key=lambda name: _feature(features[name]))
    strings = " and more with the bytes of its strings" if any(info.dtype == "string" for info in features.values()) else ""
    return (
        f"An example of this model may take {num_bytes:,} bytes{strings}, most of them for {largest!r}; phones take no example above "
        f"{MAX_EXAMPLE_BYTES:,} bytes (50 KB).",
    )


def _feature(info: TensorInfo) -> int:
    """A serialized Feature: one list of values in a message of its own."""
    count = math.prod(size or 0 for size in info.example_shape or ())
    values = count * _BYTES_PER_VALUE.get(info.dtype, 0)
    return _field(values if info.dtype == "string" else _field(values))


def _field(num_bytes: int) -> int:
    """The size of a message's field of so many bytes, with its tag and its length."""
    return 1 + max(1, math.ceil(num_bytes.bit_length() / 7)) + num_bytes
