"""A metric that does not fit the model's output is refused before anything is built, and named as it stands in the config."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder import build, errors
from odp_taskbuilder.config import parse_config
from odp_taskbuilder.config.metric_names import ALLOWED_METRICS, UNBUILDABLE_METRIC
from odp_taskbuilder.learning import metrics

BINARY = (1, tf.TensorSpec([None, 1], tf.int64))
SPARSE = (10, tf.TensorSpec([None, 1], tf.int64))
ONE_HOT = (10, tf.TensorSpec([None, 10], tf.float32))

COMPARE_ELEMENTS = {
    "accuracy",
    "auc-pr",
    "auc-roc",
    "binary_crossentropy_from_logits",
    "categorical_crossentropy",
    "categorical_crossentropy_from_logits",
    "precision",
    "recall",
}


def model(units: int, label: tf.TensorSpec) -> tff.learning.models.FunctionalModel:
    @tf.function
    def predict(weights, x, training):
        return tf.matmul(x, weights[0][0])

    return tff.learning.models.FunctionalModel(
        initial_weights=((np.zeros((3, units), np.float32),), ()),
        predict_on_batch_fn=predict,
        loss_fn=lambda output, label, sample_weight=None: tf.reduce_mean(output),
        input_spec=(tf.TensorSpec([None, 3], tf.float32), label),
    )


def config(names) -> str:
    listed = "\n".join(f'    metrics {{ name: "{name}" }}' for name in names)
    return f"""mode: TRAINING_ONLY
population_name: "fit"
policies {{ model_release_policy {{ num_max_training_rounds: 2 }} }}
federated_learning {{
  learning_process {{
    runtime_config {{ report_goal: 100 }}
{listed}
  }}
}}
differential_privacy {{ clip_norm: 0.1 noise_multiplier: 2 }}
"""


def misfits(units: int, label: tf.TensorSpec, names) -> dict[str, errors.Problem]:
    """Path in the config -> problem."""
    try:
        metrics.check_fit(model(units, label), names, parse_config(config(names)))
    except errors.ConfigError as error:
        return {problem.path: problem for problem in error.problems}
    return {}


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (BINARY, set()),
        (SPARSE, COMPARE_ELEMENTS),
        (ONE_HOT, {"sparse_categorical_accuracy"}),
    ],
    ids=["binary", "sparse", "one-hot"],
)
def test_exactly_the_metrics_that_cannot_be_traced_are_refused(shapes, expected):
    """Spec: metrics.md, section 2."""
    names = [name for name in ALLOWED_METRICS if name != UNBUILDABLE_METRIC]
    paths = {f"federated_learning.learning_process.metrics[{names.index(name)}]" for name in expected}
    assert misfits(*shapes, names).keys() == paths


def test_the_problem_tells_the_place_and_the_shapes():
    names = ["binary_accuracy", "precision"]
    (problem,) = misfits(*SPARSE, names).values()
    assert problem.path == "federated_learning.learning_process.metrics[1]"
    assert problem.source_line == '    metrics { name: "precision" }'
    assert "'precision'" in problem.message
    assert "output is float32 [?, 10], the label int64 [?, 1]" in problem.message


def test_a_build_stops_before_the_learning_process_is_composed(tmp_path):
    tff.learning.models.save_functional_model(model(*SPARSE), str(tmp_path / "model"))
    stages = []

    def stage(name):
        stages.append(name)
        return contextlib.nullcontext()

    # A rejected name does not shift the others' places.
    text = config(["binary_accuracy", "sharpness", "auc-roc"])
    with pytest.raises(errors.ConfigError) as raised:
        build.build_tasks(tmp_path / "model", parse_config(text), stage=stage)
    assert [problem.path for problem in raised.value.problems] == ["federated_learning.learning_process.metrics[2]"]
    assert stages[-1] == "composing the learning process"
