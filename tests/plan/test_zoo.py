"""Models of the field (shared/zoo) build for the oldest module and train on phones as TensorFlow Federated trains them.

Skipped where the folder is missing. Noise is off; three rounds of three clients.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import pytest
import tensorflow_federated as tff
import tff_agreement

from odp_taskbuilder import errors
from odp_taskbuilder.config.spec import PlanForm
from odp_taskbuilder.model.load import load_model
from odp_taskbuilder.retracing import retrace_model

ZOO = pathlib.Path(__file__).resolve().parents[3] / "shared" / "zoo"
ROUNDS = 3
MODULE_VERSION, RUNTIME_OF_PHONES = 341812000, (2, 10, 0)
TOLERANCE = 1e-5

NAMES = (
    "tff_emnist_cnn", "tff_emnist_cnn_dropout", "tff_emnist_2nn", "tff_emnist_autoencoder", "tff_shakespeare", "tff_so_word", "tff_so_tag",
    "lr_dict", "wide_deep", "two_tower", "factorization_machine", "dlrm", "gru_next_word", "gru_unrolled_onehot", "lstm_unrolled_onehot",
    "text_cnn", "transformer", "tab_batchnorm", "tab_layernorm", "tab_groupnorm", "tab_dropout", "multi_output_keras", "multi_output_three",
    "regression_mse", "regression_mse_flat_label", "regression_huber", "multilabel", "hinge_svm", "cat_hinge_int", "sce_logits_1",
    "sce_logits_0", "sce_prob_0_int32", "cce_logits", "cce_prob", "bce_logits_1", "bce_prob_0", "bce_prob_int", "bool_label", "bool_feature",
    "big_embedding", "string_lookup", "string_hash_hand", "hand_logreg", "ranking_pairwise", "ranking_listnet", "bpr_hand",
    "frozen_embedding", "subclassed", "normalization_layer", "maxpool_small_cnn", "l2_regularized", "mixed_ranks",
)  # fmt: skip
# TensorFlow Federated itself cannot save them, or they are larger than a phone's checkpoint may be.
CANNOT_BE_SAVED = {
    "factorization_machine", "frozen_embedding", "string_lookup", "tab_batchnorm", "tab_dropout", "tff_emnist_cnn_dropout",
}  # fmt: skip
TOO_LARGE = {"big_embedding"}
SHORT = ("maxpool_small_cnn", "gru_next_word")


def zoo():
    if not ZOO.is_dir():
        pytest.skip("the zoo is not beside this checkout")
    if str(ZOO) not in sys.path:
        sys.path.append(str(ZOO))
    import zoo as module

    return module


def clients_of(module, name, model):
    """Three clients, of which one has a single example and one a batch that is not full."""
    rng = np.random.default_rng(0)
    clients = [module.gen(model.input_spec, module.ZOO[name][1], rng, size, "y") for size in (1, 5, 9)]
    return [{key: value.astype("S") if value.dtype == object else value for key, value in client.items()} for client in clients]


def saved(name, path):
    """The model of the zoo, saved by TFF; None if it cannot be."""
    try:
        model = zoo().ZOO[name][0]()
        tff.learning.models.save_functional_model(model, str(path))
    except Exception:  # noqa: BLE001 - TFF says in many ways that it cannot.
        return None
    return model


def check(name, directory):
    module, path = zoo(), directory / "model"
    model = saved(name, path)
    assert (model is None) == (name in CANNOT_BE_SAVED)
    if model is None:
        return
    if name in TOO_LARGE:
        with pytest.raises(errors.ModelError, match="bytes"):
            tff_agreement.build_form(path, PlanForm.MAP_REDUCE)
        return
    clients = clients_of(module, name, model)
    retraced, loops = retrace_model(load_model(path))
    # As it was saved, TFF's runtime cannot run a model with loops: it waits for a placeholder of Keras' that nobody feeds.
    runnable = tff_agreement.with_weights_of(model, retraced.functional_model) if loops else model
    expected = tff_agreement.tff_rounds(runnable, clients, ROUNDS)
    for form in PlanForm:
        built = tff_agreement.build_form(path, form)
        for ops in built.ops.values():
            assert ops.min_module_version == MODULE_VERSION
            assert ops.min_runtime <= RUNTIME_OF_PHONES
        emitted = tff_agreement.emitted_rounds(built, clients, ROUNDS, directory / form.value)
        assert tff_agreement.difference(emitted, expected) < TOLERANCE, form


def test_the_zoo_has_the_models_that_are_named_here():
    assert tuple(zoo().ZOO) == NAMES


@pytest.mark.parametrize("name", tff_agreement.some_unless_full(NAMES, SHORT))
def test_it_builds_for_the_oldest_module_and_learns_as_in_tff(name, tmp_path):
    check(name, tmp_path)
