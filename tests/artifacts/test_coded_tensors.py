"""What a report says of tensors that travel in codes, and how large the codes are for phones."""

import dataclasses
import pathlib

import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import phone_fit
from odp_taskbuilder.artifacts.coded_tensors import coded_tensors, with_what_travels
from odp_taskbuilder.config import ResolveOptions, load_config, resolve
from odp_taskbuilder.config.compression import Compression
from odp_taskbuilder.config.spec import PlanForm, TaskMode
from odp_taskbuilder.model.input_spec import ModelSpec, TensorInfo
from odp_taskbuilder.privacy import budget_of

DIGITS = pathlib.Path(__file__).resolve().parents[2] / "configs" / "digits"
# Of two of its four weights, with 2,048 and 320 elements, codes are asked for.
SMALL = Compression(update_bits=8, model_bits=7, above=100)


@pytest.fixture(scope="module")
def digits():
    """The spec and the budget of configs/digits; a budget with a noise takes no calibration."""
    spec = resolve(load_config(DIGITS / "train.pbtxt"), ResolveOptions(skip_dp_check=True))
    spec = dataclasses.replace(spec, privacy=dataclasses.replace(spec.privacy, noise_multiplier=0.36))
    return spec, budget_of(spec)


def sentences(digits, compression, **changes):
    spec, budget = digits
    spec, budget = with_what_travels(dataclasses.replace(spec, notices=(), **changes), budget, DIGITS / "saved_model", compression)
    return spec.notices, budget.assumptions[len(digits[1].assumptions) :]


def test_without_compression_nothing_is_said(digits):
    assert sentences(digits, Compression(above=0)) == ((), ())


def test_epsilon_assumes_that_phones_shorten_what_they_round(digits):
    (updates, model), (assumption,) = sentences(digits, SMALL)
    counted = "2 of 4 tensors with 2,368 of 2,410 values"
    assert f"{counted} travel in 8 bits" in updates and "moves one update by 0.013" in updates
    assert f"Phones that train download {counted} in 7 bits" in model
    assert f"{counted} travel in 8 bits" in assumption and "epsilon holds as it stands; rounding counts as no noise" in assumption


def test_without_dp_nothing_is_said_of_epsilon(digits):
    spec, _ = digits
    privacy = dataclasses.replace(spec.privacy, skip_aggregator=True)
    spec = dataclasses.replace(spec, privacy=privacy, notices=())
    budget = budget_of(spec)
    told, unchanged = with_what_travels(spec, budget, DIGITS / "saved_model", SMALL)
    assert unchanged == budget and len(told.notices) == 2


def test_nothing_above_the_threshold_is_told(digits):
    notices, assumptions = sentences(digits, Compression(update_bits=8, model_bits=7))
    assert [notice.split(":")[0] for notice in notices] == ["--compress_updates has no effect", "--compress_model has no effect"]
    assert all("more than 10,000 elements" in notice for notice in notices) and not assumptions


def test_few_bits_and_small_rounds_are_warned_of(digits):
    def warnings(bits, report_goal):
        privacy = dataclasses.replace(digits[0].privacy, report_goal=report_goal)
        notices, _ = sentences(digits, Compression(update_bits=bits, above=100), privacy=privacy)
        return [notice for notice in notices if notice.startswith("Warning")]

    (warning,) = warnings(2, 10)
    assert "moves the mean of 10 updates by 0.46 of its length" in warning and "the noise moves it by 1.8 of the clip" in warning
    assert warnings(3, 10) and not warnings(4, 10) and not warnings(2, 10_000)


def test_a_model_of_few_bits_is_warned_of_with_the_number(digits):
    for bits, error in ((2, 0.5), (4, 0.071)):
        notices, _ = sentences(digits, Compression(model_bits=bits, above=100))
        (warning,) = [notice for notice in notices if notice.startswith("Warning")]
        assert f"with {bits} bits, rounding moves the model that phones get by {error} of its length" in warning and "Take 7 bits" in warning
    for bits in (5, 7, 8):
        assert not any(notice.startswith("Warning") for notice in sentences(digits, Compression(model_bits=bits, above=100))[0])


def test_grid_mode_is_told(digits):
    notices, assumptions = sentences(digits, SMALL, form=PlanForm.DISTRIBUTE_AGGREGATE)
    assert sum("grid mode" in notice for notice in notices) == 1 and len(assumptions) == 1


def test_evaluation_metrics_of_a_rounded_model_are_told(digits):
    notices, _ = sentences(digits, dataclasses.replace(SMALL, evaluation=True))
    assert any("metrics are those of the rounded model" in notice for notice in notices)
    assert any(notice.startswith("Phones download") for notice in notices)


def model_of(*elements: int) -> ModelSpec:
    anything = TensorInfo("float32", (None, 1))
    weights = tuple(TensorInfo("float32", (size,)) for size in elements)
    return ModelSpec(anything, anything, anything, weights, weights)


def test_codes_are_counted_for_phones_as_the_longest_that_they_get():
    model = model_of(1_000_000, 5_000)
    assert phone_fit.weight_bytes(model) == 4_020_000
    assert phone_fit.weight_bytes(model, Compression(update_bits=8)) == 4_020_000
    assert phone_fit.weight_bytes(model, Compression(model_bits=7)) == 1_020_000
    # Above 127 a code takes a second byte.
    assert phone_fit.weight_bytes(model, Compression(model_bits=8)) == 2_020_000
    assert coded_tensors(model.weights, Compression(model_bits=7)).sizes == (1_000_000,)


def test_a_model_that_phones_take_in_codes_is_refused_without_and_told_how(digits):
    spec, _ = digits
    model, limit = model_of(1_000_000), 1_500_000
    training = dataclasses.replace(spec, mode=TaskMode.TRAINING_ONLY)
    with pytest.raises(errors.ModelError) as refused:
        phone_fit.check_weights(model, training, Compression(), limit)
    assert "--compress_model 7." in refused.value.next_step
    phone_fit.check_weights(model, training, Compression(model_bits=7), limit)
    with pytest.raises(errors.ModelError) as refused:
        phone_fit.check_weights(model, training, Compression(model_bits=8), limit)
    assert "--compress_model 7." in refused.value.next_step
    # Evaluation is not compressed by itself.
    with pytest.raises(errors.ModelError, match="for evaluation, which is not compressed") as refused:
        phone_fit.check_weights(model, spec, Compression(model_bits=7), limit)
    assert "--compress_model 7 --compress_evaluation." in refused.value.next_step
    phone_fit.check_weights(model, spec, Compression(model_bits=7, evaluation=True), limit)
