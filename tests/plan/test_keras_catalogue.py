"""Every layer, activation and loss of Keras trains on phones as TensorFlow Federated trains it, or the catalogue says why not.

The models are in keras_models.py, what becomes of them in keras_catalogue.py, which docs/phones.md is made from.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from typing import Optional

import keras_catalogue
import keras_models
import numpy as np
import pytest
import tensorflow_federated as tff
import tff_agreement

from odp_taskbuilder import errors, save_keras_model
from odp_taskbuilder.config.spec import PlanForm
from odp_taskbuilder.model import keras_functional
from odp_taskbuilder.model.load import load_model

ROUNDS = 2
CLIENT_SIZES = (1, 5, 8)
OLDEST_MODULE, RUNTIME_OF_PHONES = 341812000, (2, 10, 0)
# The data of these lie on a kink with the seed of the others: two elements of a window so close that rounding decides which is larger.
_SEEDS = {"MaxPooling3D": 4}
# It holds eager tensors, which TFF saves and does not trace: there is nothing to compare with.
_NOT_TRAINED_BY_TFF = {"Normalization": "capture an EagerTensor"}

LAYERS = keras_models.layer_cases()
OTHERS = {
    **keras_models.activation_cases(),
    **{f"{name} {i}": case for name, cases in keras_models.loss_cases().items() for i, case in enumerate(cases)},
}
CASES = {**LAYERS, **OTHERS}
# One for each way in which a model is made fit for phones, or refused; the others take half an hour.
SHORT = ("BatchNormalization", "CategoryEncoding", "Conv2D", "GroupNormalization", "Masking", "MeanAbsoluteError 0")


def test_the_catalogue_names_all_that_keras_has():
    assert list(keras_catalogue.LAYERS) == keras_models.layer_names()
    assert list(keras_catalogue.ACTIVATIONS) == keras_models.activation_names()
    assert list(keras_catalogue.LOSSES) == keras_models.loss_names()
    assert {name.split(" (")[0] for name in LAYERS} == set(keras_catalogue.LAYERS)
    assert set(keras_models.loss_cases()) == set(keras_catalogue.LOSSES)
    tables = (keras_catalogue.CANNOT_BE_SAVED, keras_catalogue.CANNOT_RUN, keras_catalogue.NEEDS_SAVE_KERAS_MODEL, keras_catalogue.DRAWS)
    assert set().union(*tables) <= set(CASES)


@dataclasses.dataclass(frozen=True)
class Saved:
    """A saved model, and whether TensorFlow Federated's own functions saved it."""

    path: pathlib.Path
    by_tff: bool


def saved_model(case: keras_models.KerasCase, directory: pathlib.Path) -> Optional[Saved]:
    """The case's model saved as people do; None if nothing can."""
    model = case.make()
    path = directory / "model"
    feature = keras_functional._feature_spec(model)
    label = case.label_spec or keras_functional._label_spec(model, case.loss)
    try:
        functional = tff.learning.models.functional_model_from_keras(model, case.loss, input_spec=(feature, label))
        tff.learning.models.save_functional_model(functional, str(path))
        return Saved(path, by_tff=True)
    except Exception:  # noqa: BLE001 - TFF says in many ways that it cannot.
        shutil.rmtree(path, ignore_errors=True)
    try:
        save_keras_model(case.make(), path, loss=case.loss, label_spec=case.label_spec)
    except errors.ModelError:
        return None
    return Saved(path, by_tff=False)


def check(name: str, directory: pathlib.Path) -> None:
    case = CASES[name]
    saved = saved_model(case, directory)
    assert (saved is None) == (name in keras_catalogue.CANNOT_BE_SAVED)
    if saved is None:
        return
    assert saved.by_tff != (name in keras_catalogue.NEEDS_SAVE_KERAS_MODEL)
    if name in keras_catalogue.CANNOT_RUN:
        with pytest.raises(errors.OdpTaskError, match=f"(?s){keras_catalogue.CANNOT_RUN[name][0]}"):
            tff_agreement.build_form(saved.path, PlanForm.MAP_REDUCE)
        return
    built = tff_agreement.build_form(saved.path, PlanForm.MAP_REDUCE)
    for ops in built.ops.values():
        assert ops.min_module_version is not None
        assert ops.min_module_version <= OLDEST_MODULE
        assert ops.min_runtime <= RUNTIME_OF_PHONES
    input_spec = load_model(saved.path).input_spec
    rng = np.random.default_rng(_SEEDS.get(name, 3))
    clients = [keras_models.examples(case, input_spec, size, rng) for size in CLIENT_SIZES]
    emitted = tff_agreement.emitted_rounds(built, clients, ROUNDS, directory / "rounds")
    if name in keras_catalogue.DRAWS or name in _NOT_TRAINED_BY_TFF:
        assert np.all(np.isfinite(emitted[-1]))
        assert not np.array_equal(emitted[-1], emitted[0])
    if name in keras_catalogue.DRAWS:
        return
    model = keras_functional.functional_model((case.make_expected or case.make)(), case.loss, None, case.label_spec)
    if name in _NOT_TRAINED_BY_TFF:
        with pytest.raises(RuntimeError, match=_NOT_TRAINED_BY_TFF[name]):
            tff_agreement.tff_rounds(model, clients, ROUNDS)
        return
    assert tff_agreement.difference(emitted, tff_agreement.tff_rounds(model, clients, ROUNDS)) < 1e-5


@pytest.mark.parametrize("name", tff_agreement.some_unless_full(CASES, SHORT))
def test_it_trains_on_phones_as_in_tff_or_the_catalogue_says_why_not(name, tmp_path):
    check(name, tmp_path)
