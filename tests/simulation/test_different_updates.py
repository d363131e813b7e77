"""Compiled updates that are not the interpreter's: what rounding makes is told from what a wrong translation does, and `auto` goes on."""

import dataclasses
import pathlib

import numpy as np
import pytest
from runs import weights

from odp_taskbuilder import errors
from odp_taskbuilder.simulation import engines, held
from odp_taskbuilder.simulation.comparison import DifferentError, RoundedTensor, compare_rounding, compared
from odp_taskbuilder.simulation.round_options import RoundOptions
from odp_taskbuilder.simulation.simulate import SimulationOptions

pytest.importorskip("jax")


def amplifying(checkpoint):
    """A client whose first tensor is the small difference of large numbers: it makes 300 times as much of rounding as the second."""
    w = checkpoint["w"].astype(np.float64)
    return {"update/2/0": np.float32(w - 0.9967 * CHECKPOINT["w"]), "update/2/1": np.float32(np.square(w))}


CHECKPOINT = {"w": np.random.default_rng(0).uniform(1, 2, 1024).astype(np.float32)}


def rounded(size):
    noise = np.random.default_rng(1).standard_normal(1024)
    return {"w": CHECKPOINT["w"].astype(np.float64) * (1 + size * noise)}


# What rounding makes of the first tensor is not allowed to the second.
@pytest.mark.parametrize(("tensor", "error"), [("update/2/0", 1e-2), ("update/2/1", 1e-4)])
def test_a_plan_that_amplifies_rounding_is_told_from_a_wrong_translation(tensor, error):
    own = amplifying(CHECKPOINT)
    found = compared("client", CHECKPOINT, own, amplifying(rounded(3e-7)), amplifying)
    assert found.amplified and found.tensor == "update/2/0" and 5e-5 < found.difference < 2e-4

    def wrong(checkpoint):
        update = amplifying(checkpoint)
        return {**update, tensor: update[tensor] * np.float32(1 + error)}

    with pytest.raises(DifferentError) as raised:
        compared("client", CHECKPOINT, wrong(CHECKPOINT), amplifying(rounded(3e-7)), wrong)
    assert raised.value.comparison.tensor == tensor and raised.value.comparison.difference == pytest.approx(error, rel=0.05)


def test_what_a_plan_rounds_may_be_one_code_away_here_and_there_and_never_longer():
    unrounded = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    step = float(np.abs(unrounded).max()) / 127
    values = np.trunc(unrounded / step) * step
    codes_away = np.zeros(1000)
    # Towards zero, so that nothing grows longer.
    codes_away[np.flatnonzero(np.abs(values) > 3 * step)[:60]] = 1
    nearer = values - codes_away * step * np.sign(values)

    def compare(own=values, again=values, own_unrounded=unrounded):
        compare_rounding("client", {"update/2/0": RoundedTensor(own, values, own_unrounded, unrounded, again, step)})

    compare(own=nearer)
    # Of the same tensor a few in a thousand, where processors divide in another way.
    few = np.where(np.cumsum(codes_away) <= 9, nearer, values)
    compare(again=few)
    # A value that differs by more than the period of the dither may end up two codes away.
    moved = (unrounded * np.where(codes_away == 1, np.float32(1 - 1e-3), np.float32(1))).astype(np.float32)
    two_away = values - 2 * codes_away * step * np.sign(values)
    compare(own=two_away, own_unrounded=moved)
    for wrong in ({"own": two_away}, {"again": nearer}, {"again": values * (1 + 1e-4)}, {"own": values * np.linalg.norm(unrounded) / np.linalg.norm(values) * (1 + 2e-6)}):
        with pytest.raises(DifferentError) as raised:
            compare(**wrong)
        assert raised.value.comparison.tensor == "update/2/0" and raised.value.comparison.in_rounding


@pytest.fixture
def run_here(tasks, clients, tmp_path, monkeypatch):
    """Simulates in this process, where an entry of the table can be broken. Returns (summary, run directory, notices)."""
    monkeypatch.setattr(engines, "_MIN_COMPILED_CLIENTS", 0)
    # However fast this machine compiles and interprets.
    monkeypatch.setattr(engines.CompiledEngine, "_keep_the_faster", lambda self, task_id, results: None)

    def run_here(name, rounds, engine="auto"):
        options = SimulationOptions(
            data=str(clients / "train"),
            evaluation_data=str(clients / "test"),
            engine=engine,
            num_workers=1,
            rounds=RoundOptions(rounds=rounds, clients_per_round=10),
        )
        scratch, notices = tmp_path / f"{name}_scratch", []
        scratch.mkdir(exist_ok=True)
        with held.HeldSimulation(tasks / "plain" / "digits", options, scratch, notices.append) as simulation:
            return simulation.run(rounds, tmp_path / name), pathlib.Path(tmp_path / name), notices

    return run_here


def break_entry(monkeypatch, op):
    import odp_taskbuilder.compiled.client_program  # noqa: F401 - fills the table.
    from odp_taskbuilder.compiled import translation

    entry = translation.TABLE[op]
    monkeypatch.setitem(translation.TABLE, op, dataclasses.replace(entry, apply=lambda *inputs: 1.01 * entry.apply(*inputs)))


def test_auto_takes_the_interpreter_where_the_first_round_finds_a_wrong_translation(run_here, monkeypatch):
    _, interpreted, _ = run_here("interpreted", 2, "local")
    break_entry(monkeypatch, "ReluGrad")
    summary, directory, notices = run_here("auto", 2)
    # The interpreter's weights in both rounds: nothing of the compiled one was kept.
    for number in (1, 2):
        np.testing.assert_array_equal(weights(directory, number), weights(interpreted, number))
    (notice,) = [notice for notice in notices if "task 1" in notice]
    assert notice.startswith("task 1 runs in the interpreter: the compiled update of client 'client_")
    assert "1e-05 is allowed, and rounding does not explain it" in notice and summary.training.rounds == 2

    with pytest.raises(errors.ArtifactError, match="Task 1: the compiled update of client") as raised:
        run_here("compiled", 1, "compiled")
    assert "--engine local" in raised.value.next_step
    assert not list((directory.parent / "compiled").rglob("1/1/s/0/checkpoint"))
