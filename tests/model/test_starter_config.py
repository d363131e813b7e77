"""First configs: guesses about metrics, and models that are damaged or take what no example can hold."""

import random

import pytest

from odp_taskbuilder import config, errors
from odp_taskbuilder.config import metric_names
from odp_taskbuilder.model import starter_config
from odp_taskbuilder.model.input_spec import ModelSpec, TensorInfo, read_model_spec


def tensor(dtype, *shape):
    return TensorInfo(dtype, (None, *shape))


FLOAT = tensor("float32", 1)
UNKNOWN = TensorInfo("float32", None)


@pytest.mark.parametrize(
    ("label", "output", "metrics"),
    [
        (tensor("int64", 1), tensor("float32", 1), ("binary_accuracy",)),
        (tensor("int64", 1), tensor("float32"), ("binary_accuracy",)),
        (tensor("int32"), tensor("float32", 1), ("binary_accuracy",)),
        (tensor("int64", 1), tensor("float32", 10), ("sparse_categorical_accuracy",)),
        (tensor("int64", 10), tensor("float32", 10), ("categorical_accuracy",)),
        (tensor("float32", 1), tensor("float32", 1), ("mean_absolute_error", "root_mean_squared_error")),
        (tensor("float32", 4), tensor("float32", 4), ("mean_absolute_error", "root_mean_squared_error")),
        (tensor("int64", 1), (UNKNOWN, UNKNOWN, tensor("float32", 10)), ("sparse_categorical_accuracy",)),
        (tensor("int64", 1), (UNKNOWN, tensor("float32", 10)), ()),
        (tensor("int64", 3), tensor("float32", 10), ()),
        (tensor("float32", 1), tensor("float32", 2), ()),
        (tensor("int64", 1), UNKNOWN, ()),
        (tensor("int64", 7), tensor("float32", 7, 50), ()),
        (tensor("string", 1), tensor("float32", 1), ()),
    ],
)
def test_metrics_are_guessed_from_label_and_output(label, output, metrics):
    model = ModelSpec(FLOAT, label, output)
    assert starter_config.guess_metrics(model) == metrics
    resolved = config.resolve(config.parse_config(starter_config.starter_configs(model, "p").config))
    assert resolved.learning.metrics == metrics
    assert set(metrics) <= set(metric_names.ALLOWED_METRICS)


@pytest.mark.parametrize(
    ("features", "label"),
    [
        ((FLOAT, FLOAT), FLOAT),
        ({"a": (FLOAT,)}, FLOAT),
        (tensor("float64", 1), FLOAT),
        (tensor("float32", None), FLOAT),
        (UNKNOWN, FLOAT),
        (FLOAT, {"a": FLOAT}),
    ],
)
def test_models_that_no_example_fits_are_refused(features, label):
    with pytest.raises(errors.ModelError):
        starter_config.starter_configs(ModelSpec(features, label, FLOAT), "p")


def test_a_label_name_that_no_feature_has_is_chosen():
    model = ModelSpec({"label": FLOAT, "y": FLOAT}, FLOAT, FLOAT)
    assert config.resolve(config.parse_config(starter_config.starter_configs(model, "p").config)).label_name == "target"


def test_names_from_a_model_cannot_leave_their_comment():
    model = ModelSpec({"a\nmode: EVAL_ONLY #": FLOAT}, FLOAT, FLOAT)
    text = starter_config.starter_configs(model, "p").config
    assert config.resolve(config.parse_config(text)).mode is config.spec.TaskMode.TRAINING_AND_EVAL


@pytest.mark.parametrize(
    ("name", "population"), [("my model", "my_model"), (".hidden", "hidden"), ("日本", "my_population"), ("m" * 99, "m" * 64)]
)
def test_population_names_are_made_from_directory_names(name, population):
    assert starter_config.default_population_name(name) == population


def test_damaged_models_are_errors_and_nothing_else(golden, tmp_path):
    data = (golden / "keras_dense" / "model" / "saved_model.pb").read_bytes()
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / "variables.index").touch()
    rng = random.Random(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(data[: rng.randrange(len(data))] if rng.random() < 0.5 else data)
        for _ in range(rng.randrange(1, 50)):
            if damaged:
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        (tmp_path / "saved_model.pb").write_bytes(damaged)
        try:
            read_model_spec(tmp_path)
        except errors.ModelError:
            refused += 1
    assert refused > 50
