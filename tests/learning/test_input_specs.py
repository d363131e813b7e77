"""What examples cannot be parsed into is refused, with the name of the feature and what would do."""

from __future__ import annotations

import collections

import pytest
import tensorflow as tf

from odp_taskbuilder import errors
from odp_taskbuilder.learning.preprocessing import example_parser

LABEL = tf.TensorSpec([None, 1], tf.int64)
DENSE = tf.TensorSpec([None, 2], tf.float32)
BAD_SPECS = {
    "ragged": (tf.RaggedTensorSpec([None, None], tf.float32), "RaggedTensorSpec"),
    "sparse": (tf.SparseTensorSpec([None, 3], tf.float32), "SparseTensorSpec"),
    "unknown inner dimension": (tf.TensorSpec([None, None], tf.float32), "(None, None)"),
    "unknown rank": (tf.TensorSpec(None, tf.float32), "<unknown>"),
    "no batch": (tf.TensorSpec([], tf.float32), "()"),
    "fixed batch": (tf.TensorSpec([8, 2], tf.float32), "(8, 2)"),
    "float64": (tf.TensorSpec([None, 2], tf.float64), "float64"),
}
for_each_bad_spec = pytest.mark.parametrize(("spec", "found"), BAD_SPECS.values(), ids=BAD_SPECS)


@for_each_bad_spec
def test_a_feature_is_named(spec, found):
    with pytest.raises(errors.ModelError) as raised:
        example_parser((collections.OrderedDict(age=DENSE, height=spec), LABEL), "label")
    assert "Feature 'height'" in raised.value.message
    assert found in raised.value.message


@for_each_bad_spec
def test_a_label_is_named(spec, found):
    with pytest.raises(errors.ModelError) as raised:
        example_parser((collections.OrderedDict(age=DENSE), spec), "clicked")
    assert "The label 'clicked'" in raised.value.message
    assert found in raised.value.message


def test_named_features_need_a_label_name():
    with pytest.raises(errors.ConfigError) as raised:
        example_parser((collections.OrderedDict(age=DENSE), LABEL), None)
    (problem,) = raised.value.problems
    assert problem.path == "label_name"


def test_the_label_is_no_feature():
    with pytest.raises(errors.ConfigError) as raised:
        example_parser((collections.OrderedDict(age=DENSE), LABEL), "age")
    assert "'age'" in str(raised.value)
