"""From serialized examples on the device to the model's batches (spec: plan.md, sections 6.3 and 6.4).

The chain is batch, parse, take: batches are formed from serialized examples, parsed as a vector, and counted last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Optional, Union

import tensorflow as tf

from odp_taskbuilder import errors
from odp_taskbuilder.config.spec import DatasetSpec
from odp_taskbuilder.model import input_spec

# Keys of an example whose features are one tensor.
FEATURE_KEY = "x"
LABEL_KEY = "y"


@dataclasses.dataclass(frozen=True)
class ExampleParser:
    """Parses a vector of serialized `tf.train.Example`s into (features, label).

    Attributes:
      features: a TensorSpec, or a mapping of feature name to TensorSpec, with the batch as first axis.
      label: a TensorSpec.
      label_key: the label's name in an example.
    """

    features: Union[tf.TensorSpec, Mapping[str, tf.TensorSpec]]
    label: tf.TensorSpec
    label_key: str

    @property
    def specs(self) -> dict[str, tf.TensorSpec]:
        """Every key of an example with the TensorSpec of its batch."""
        features = {FEATURE_KEY: self.features} if isinstance(self.features, tf.TensorSpec) else dict(self.features)
        return {**features, self.label_key: self.label}

    @tf.autograph.experimental.do_not_convert
    def parse(self, serialized: tf.Tensor) -> tuple[Any, tf.Tensor]:
        """Parses `serialized`, a string vector [batch]. An example without one of the keys fails."""
        parsed = tf.io.parse_example(
            serialized,
            {key: tf.io.FixedLenFeature(spec.shape[1:], tf.as_dtype(input_spec.STORED_AS[spec.dtype.name])) for key, spec in self.specs.items()},
        )
        tensors = {
            key: parsed[key] if parsed[key].dtype == spec.dtype else tf.cast(parsed[key], spec.dtype)
            for key, spec in self.specs.items()
        }
        label = tensors[self.label_key]
        if isinstance(self.features, tf.TensorSpec):
            return tensors[FEATURE_KEY], label
        return {key: tensors[key] for key in self.features}, label


def example_parser(model_input: Any, label_name: Optional[str]) -> ExampleParser:
    """Finds out how examples must look for a model.

    Args:
      model_input: the model's input_spec, the pair (features, label).
      label_name: the config's; needed when the features are a mapping, ignored when they are one tensor (the keys are then
        `x` and `y`).

    Raises:
      errors.ConfigError: the features are a mapping and the config names no label, or one that is also a feature.
      errors.ModelError: the spec is not such a pair, or no example can be parsed into it.
    """
    if not isinstance(model_input, (tuple, list)) or len(model_input) != 2:
        raise errors.ModelError(
            f"Input spec must be a tuple (features, label); the model's is {model_input!r}.",
            next_step="Give the FunctionalModel an input_spec of two elements, (x, y).",
        )
    features, label = model_input
    if isinstance(features, tf.TensorSpec):
        parser = ExampleParser(features, label, LABEL_KEY)
    elif isinstance(features, Mapping):
        input_spec.check_label_name(features, label_name)
        parser = ExampleParser(features, label, label_name)
    else:
        raise errors.ModelError(
            f"The model's features are a {type(features).__name__}; examples can be parsed into one tensor or a mapping of names to tensors."
        )
    for key, spec in parser.specs.items():
        _check_parsable(f"The label {key!r}" if key == parser.label_key else f"Feature {key!r}", spec)
    return parser


def _check_parsable(what: str, spec: Any) -> None:
    if not isinstance(spec, tf.TensorSpec):
        raise errors.ModelError(f"{what} of the model is a {type(spec).__name__}; only dense tensors can be parsed.")
    shape = None if spec.shape.rank is None else tuple(spec.shape.as_list())
    input_spec.check_parsable(what, input_spec.TensorInfo(spec.dtype.name, shape))


class _SerializedExamples(tf.data.Dataset):
    """A dataset of scalar strings, given by its variant tensor."""

    def _inputs(self) -> list:
        return []

    @property
    def element_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([], tf.string)


def batches(serialized_examples: tf.Tensor, parser: ExampleParser, dataset: DatasetSpec) -> tf.Tensor:
    """Turns a dataset of serialized examples into one of batches; both are scalar variant tensors."""
    parsed = _SerializedExamples(serialized_examples).batch(dataset.batch_size).map(parser.parse).take(dataset.max_batches)
    return tf.data.experimental.to_variant(parsed)
