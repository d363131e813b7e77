"""What `verify --run` makes of clients with examples that nobody would send."""

import numpy as np
import pytest

from odp_taskbuilder.data import examples
from odp_taskbuilder.data.synthetic import Feature
from odp_taskbuilder.inspection import wild_clients
from odp_taskbuilder.inspection.wild_clients import WildUpdate, WildUpdates


def _update(*weights, name="update/1/{}", **others):
    tensors = {name.format(number): np.asarray(weight, np.float32) for number, weight in enumerate(weights)}
    return {"update/0/loss/0": np.float32(1), **tensors, **others}


def _judged(update, clip):
    return WildUpdates(clip, (wild_clients.check_update("with nan in every float", update, clip),))


@pytest.mark.parametrize("name", ["update/1/{}", "update/1/sum_state/{}"])
def test_an_update_beyond_the_clip_is_told_with_its_norm(name):
    update = _update([3.0, 0.0], [[4.0]], name=name)
    assert list(_judged(update, 5.0).problems()) == []
    # 1e-6 is rounding, more is not.
    assert list(_judged(update, 5 / (1 + 0.9e-6)).problems()) == []
    (problem,) = _judged(update, 5 / (1 + 2e-6)).problems()
    assert problem.startswith(
        "the clip does not hold: a client with nan in every float sends an update of norm 5, where the clip is 4.99999;"
    )


@pytest.mark.parametrize("state", ["", "sum_state/"])
def test_coded_tensors_count_as_the_server_decodes_them(state):
    """0, -1, 1, -2, 2 are the codes 0, 1, 2, 3, 4."""
    coded = {f"update/1/{state}1/codes": np.array([[1, 0], [4, 3]], np.int32), f"update/1/{state}1/scale": np.float32(0.5)}
    update = _update([2.0], name=f"update/1/{state}{{}}", **coded)
    assert wild_clients.check_update("", update, 1.0).norm == pytest.approx((4 + (1 + 4 + 4) / 4) ** 0.5)
    (problem,) = _judged(update, 2.4).problems()
    assert "sends an update of norm 2.5, where the clip is 2.4" in problem


def test_norms_do_not_overflow():
    assert wild_clients.check_update("", _update(np.full(4, 3e38, np.float32)), 1.0).norm == pytest.approx(6e38)


def test_a_value_that_is_not_finite_is_told_with_its_tensor_with_and_without_a_clip():
    update = _update([1.0, np.inf])
    for clip in (None, 5.0):
        assert list(_judged(update, clip).problems()) == [
            "a client with nan in every float sends values that are not finite: update/1/0"
        ]


def test_a_clip_that_could_not_be_checked_is_told():
    """Nothing is said to hold because nothing was found."""
    judged = _judged({"delta/0": np.float32(9)}, 5.0)
    assert list(judged.problems()) == []
    assert "whether the clip holds was not found out" in "".join(judged.doubts())
    assert list(_judged({"delta/0": np.float32(9)}, None).doubts()) == []
    failed = WildUpdates(5.0, (WildUpdate("with -1 in every integer", "out of range", (), None),))
    assert list(failed.doubts()) == ["no client with unusual examples could be run: out of range"]


@pytest.mark.parametrize(
    ("tensors", "clip"),
    [
        ({"client/0/trainable/0": [9.0]}, None),
        ({"client/0/trainable/0": [9.0], "client/1": 0.5}, 0.5),
        ({"client/1/sum_params": 0.5, "client/1/quantile_estimator_params/current_estimate": 3.0}, 0.5),
        ({"client/1": 50.0, "client/2": 0.5}, 0.5),
        ({"client/1": 50.0, "client/2/sum_params": 0.5}, 0.5),
    ],
    ids=["none", "fixed", "adaptive", "tree", "adaptive tree"],
)
def test_the_clip_is_found_whatever_the_aggregator(tensors, clip):
    assert wild_clients.clip_of({name: np.float32(value) for name, value in tensors.items()}) == clip


def test_wild_values_reach_every_feature_of_their_kind_and_only_those():
    features = [
        Feature("x", "float32", (2, 2)),
        Feature("y", "float32", ()),
        Feature("id", "int64", (1,)),
        Feature("s", "string", ()),
    ]
    clients = dict(wild_clients.wild_clients(features))
    for record in clients["with nan in every float"]:
        decoded = examples.decode(record)
        assert np.isnan(decoded["x"]).all() and np.isnan(decoded["y"]).all()
        assert decoded["id"][0] in (0, 1) and decoded["s"][0] in (b"0", b"1")
    once = [examples.decode(record) for record in clients["with one inf in each float feature"]]
    assert [int(np.isinf(decoded["x"]).sum()) for decoded in once] == [0, 1, 0]
    assert [int(np.isinf(decoded["y"]).sum()) for decoded in once] == [0, 1, 0]
    assert {examples.decode(record)["id"][0] for record in clients[f"with {-(2**63)} in every integer"]} == {-(2**63)}
    assert not list(wild_clients.wild_clients([Feature("s", "string", ())]))
