"""A model that no task can be trained from is refused in words of the model, before a plan is built."""

from __future__ import annotations

from typing import Optional

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder import build, errors
from odp_taskbuilder.cli import main
from odp_taskbuilder.config import parse_config

CONFIG = """mode: TRAINING_ONLY
population_name: "checks"
policies { model_release_policy { num_max_training_rounds: 2 } }
federated_learning { learning_process { runtime_config { report_goal: 100 } } }
differential_privacy { clip_norm: 0.1 noise_multiplier: 2 }
"""
KERNEL = np.ones((4, 1), np.float32)


def save(path, weights, *, forward=lambda x, trainable: x @ tf.cast(trainable[0], x.dtype), reduce=tf.reduce_mean):
    def predict(weights, x, training):
        return forward(x, weights[0])

    model = tff.learning.models.FunctionalModel(
        initial_weights=weights,
        predict_on_batch_fn=tf.function(predict),
        loss_fn=lambda output, label, sample_weight=None: reduce(tf.square(output - label)),
        input_spec=(tf.TensorSpec([None, 4], tf.float32), tf.TensorSpec([None, 1], tf.float32)),
    )
    tff.learning.models.save_functional_model(model, str(path))


def refusal(path) -> tuple[str, Optional[str]]:
    """(message, the stage that found it, None if it came before the first)"""
    stages = []

    def stage(name):
        stages.append(name)
        return build.unannounced(name)

    with pytest.raises(errors.ModelError) as raised:
        # Not scanned: some of the operations are there because nobody would use them.
        build.build_tasks(path, parse_config(CONFIG), build.BuildOptions(trust_model=True), stage=stage)
    return str(raised.value), stages[-1] if stages else None


def first_column(x, trainable):
    return x[:, :1]


BAD_WEIGHTS = {
    "none": (((), ()), "no trainable weights, so there is nothing to train"),
    "only non-trainable": (((), (KERNEL,)), "no trainable weights, so there is nothing to train"),
    "float64": (((KERNEL.astype(np.float64),), ()), "Trainable weight 0 of the model is float64[4, 1]"),
    "float16": (((KERNEL.astype(np.float16),), ()), "Trainable weight 0 of the model is float16[4, 1]"),
    "int32": (((KERNEL, np.ones(2, np.int32)), ()), "Trainable weight 1 of the model is int32[2]"),
    "empty": (((KERNEL, np.ones((0, 3), np.float32)), ()), "Trainable weight 1 of the model is float32[0, 3]: it has no elements"),
    "NaN": (((KERNEL * np.nan,), ()), "Trainable weight 0 of the model, float32[4, 1], holds NaN or infinity"),
    "infinity": (((KERNEL,), (np.array([1, np.inf]),)), "Non-trainable weight 0 of the model, float64[2], holds NaN or infinity"),
}


@pytest.mark.parametrize(("weights", "found"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_a_weight_that_cannot_be_trained_or_sent_is_named(tmp_path, weights, found):
    save(tmp_path / "model", weights, forward=first_column)
    message, stage = refusal(tmp_path / "model")
    assert found in message
    assert stage == "loading the model"


@pytest.mark.parametrize(
    ("reduce", "found"),
    [
        (lambda terms: tf.reduce_mean(terms, axis=1), "dtype float32 and shape (None,)"),
        (lambda terms: tf.cast(tf.reduce_mean(terms), tf.float64), "dtype float64 and shape ()"),
    ],
    ids=["one value per example", "float64"],
)
def test_a_loss_is_one_float32(tmp_path, reduce, found):
    save(tmp_path / "model", ((KERNEL,), ()), reduce=reduce)
    message, _ = refusal(tmp_path / "model")
    assert f"The loss of the model has {found}; it must be one float32" in message


def test_what_tff_cannot_compose_is_told_in_one_line(tmp_path):
    def without_gradient(x, trainable):
        lu, _ = tf.linalg.lu(trainable[0])
        return x @ lu[:, :1]

    save(tmp_path / "model", ((np.eye(4, dtype=np.float32),), ()), forward=without_gradient)
    message, stage = refusal(tmp_path / "model")
    assert message.startswith("The training process cannot be composed from this model: ")
    assert "Lu" in message and "\n" not in message
    assert stage == "composing the learning process"


def test_a_file_that_cannot_be_read_is_found_before_tensorflow_is_loaded(tmp_path):
    save(tmp_path / "model", ((KERNEL,), ()))
    (tmp_path / "model" / "assets" / "vocabulary").symlink_to("gone")
    message, stage = refusal(tmp_path / "model")
    assert f"{tmp_path / 'model' / 'assets' / 'vocabulary'}: No such file or directory" in message
    assert stage is None


def test_a_keras_model_is_told_to_be_no_functional_model_instead_of_what_it_should_not_hold(tmp_path, capsys):
    keras = tf.keras.Sequential([tf.keras.layers.InputLayer((4,)), tf.keras.layers.Dense(1)])
    keras.save(str(tmp_path / "model"))
    with pytest.raises(errors.ModelError) as raised:
        build.build_tasks(tmp_path / "model", parse_config(CONFIG))
    assert "is not a FunctionalModel" in raised.value.message
    assert "odp_taskbuilder.save_keras_model(model" in raised.value.next_step
    assert "trust" not in str(raised.value)
    assert main.run(["scan", str(tmp_path / "model")]) == 4
    assert raised.value.message in capsys.readouterr().err
