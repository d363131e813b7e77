"""Model selection: its state, what it costs, what goes and what stays, and when it ends. The workers are scripted, so that every score is
known."""

import dataclasses
import json

import pytest
from scripted_pool import ScriptedPool, quality, workshop

from odp_taskbuilder import errors
from odp_taskbuilder.cli import json_documents
from odp_taskbuilder.proxy.selection import SelectionOptions, select

STATE_FIELDS = ["start_num_models", "final_num_models", "num_models_to_remove_per_iter", "accuracy_metric_id", "latency_metric_id", "iterations"]
ITERATION_FIELDS = [
    "num_trials",
    "trials_to_retrain",
    "search_job_name",
    "search_job_link",
    "latency_calculator_job_name",
    "latency_calculator_job_link",
    "desired_training_step_pct",
]
TRIAL_FIELDS = ["training_time", "latency", "training_accuracy_over_steps"]


def state(directory):
    return json.loads((directory / "selection/MODEL_SELECTION_STATE.json").read_text())


def test_thirty_candidates_cost_the_client_runs_of_twelve_and_leave_a_spread(tmp_path):
    pool, told = ScriptedPool(), []
    with workshop(tmp_path, pool, told) as opened:
        selection = select(opened, SelectionOptions())
    assert selection.full_trainings <= 13
    assert list(json_documents.misfits("proxy select", {"schema_version": 1, **dataclasses.asdict(selection)})) == []
    scores = [reference.score for reference in selection.references]
    assert len(scores) == 10 and scores == sorted(scores, reverse=True)
    everyone = [quality(f"c{number}") for number in range(30)]
    # The best and the worst stay, and what is between them is spread out: no gap is three times the even one.
    assert {reference.name for reference in selection.references} >= {"c0", "c29"}
    finals = sorted(quality(reference.name) for reference in selection.references)
    assert max(b - a for a, b in zip(finals, finals[1:])) < 3 * (max(everyone) - min(everyone)) / 9
    assert len(pool.log) == len(set(pool.log)), "a round was run twice"
    assert told[-1].startswith("iteration 5: 10 candidates after 100 % of the training")


def test_the_state_is_what_published_readers_read(tmp_path):
    with workshop(tmp_path, ScriptedPool(), latency="local") as opened:
        select(opened, SelectionOptions())
    found = state(tmp_path)
    assert list(found) == STATE_FIELDS
    assert [list(iteration) for iteration in found["iterations"]] == [ITERATION_FIELDS] * 5
    assert [iteration["desired_training_step_pct"] for iteration in found["iterations"]] == [3.33, 7.33, 12.33, 19.0, 101.0]
    assert [iteration["num_trials"] for iteration in found["iterations"]] == [30, 25, 20, 15, 10]
    assert [len(iteration["trials_to_retrain"]) for iteration in found["iterations"]] == [25, 20, 15, 10, 10]
    for number in range(1, 6):
        assert (tmp_path / f"selection/iteration_{number}/filtered_trial_scores.png").read_bytes().startswith(b"\x89PNG")
    trial = json.loads((tmp_path / "trials/full/c29/TRIAL_TRAINING_METRICS.json").read_text())
    assert list(trial) == TRIAL_FIELDS and trial["latency"] == pytest.approx(1 + quality("c29"))
    last = trial["training_accuracy_over_steps"][-1]
    assert last["training_step"] == 100 and last["training_step_pct"] == 101.0
    assert last["accuracy"] == pytest.approx(quality("c29") * 100 / 105)


def test_six_broken_candidates_of_thirty_are_left_behind(tmp_path):
    with workshop(tmp_path, ScriptedPool(broken=[f"c{number}" for number in range(6)])) as opened:
        selection = select(opened, SelectionOptions())
    assert len(selection.failures) == 6 and len(selection.references) == 10
    assert [iteration["num_trials"] for iteration in state(tmp_path)["iterations"]] == [30, 24, 20, 15, 10]


def test_seven_of_thirty_are_too_many(tmp_path):
    pool = ScriptedPool(broken=[f"c{number}" for number in range(7)])
    with pytest.raises(errors.ModelError) as raised, workshop(tmp_path, pool) as opened:
        select(opened, SelectionOptions())
    assert raised.value.exit_code == 4
    assert "7 of 30 candidates failed; at most 6 may." in raised.value.message
    assert "7  c0, c1, c2, c3, c4, ...: it is broken" in raised.value.message
    assert not any(line.endswith(" 5") for line in pool.log), "the second iteration had begun"


def test_candidates_that_break_later_are_left_behind_until_too_few_are_left(tmp_path):
    with pytest.raises(errors.ModelError, match="3 candidates are left; a rank correlation needs 5"), workshop(tmp_path, ScriptedPool()) as opened:
        pool = opened._pool
        told = opened.tell
        opened.tell = lambda line: (pool.broken.update(f"c{number}" for number in range(4, 30)) if "dropped" in line else None, told(line))
        select(opened, SelectionOptions())


def test_the_same_command_runs_nothing_again_and_longer_trainings_go_on(tmp_path):
    first = ScriptedPool()
    with workshop(tmp_path, first, rounds=50) as opened:
        select(opened, SelectionOptions(8, 1, 5))
    again = ScriptedPool(log=first.log)
    ran = len(first.log)
    with workshop(tmp_path, again, rounds=50) as opened:
        select(opened, SelectionOptions(8, 1, 5))
    assert len(first.log) == ran
    with workshop(tmp_path, again, rounds=80) as opened:
        longer = select(opened, SelectionOptions(8, 1, 5))
    assert len(first.log) == ran + 5 * 30 == len(set(first.log))
    assert {reference.rounds for reference in longer.references} == {80}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prefix": "d"}, "holds the candidates of another space: there is 'd0' where it has 'c0'"),
        ({"digest": "2"}, "holds a candidate 'c0' with another task config"),
        ({"size": 5}, "The search space has 5 candidates; 8 are asked for"),
    ],
)
def test_another_space_in_the_same_directory_is_refused(tmp_path, change, words):
    with workshop(tmp_path, ScriptedPool(), rounds=10) as opened:
        select(opened, SelectionOptions(8, 1, 5))
    with pytest.raises(errors.UsageError, match=words), workshop(tmp_path, ScriptedPool(**change), rounds=10) as opened:
        select(opened, SelectionOptions(8, 1, 5))


def test_other_settings_in_the_same_directory_are_refused(tmp_path):
    with workshop(tmp_path, ScriptedPool(), rounds=10) as opened:
        select(opened, SelectionOptions(8, 1, 5))
    with pytest.raises(errors.UsageError, match="was started with data 'clients', not 'others'"), workshop(tmp_path, ScriptedPool(), data="others"):
        pass
    with pytest.raises(errors.UsageError, match="holds a selection with --start 8 --remove 1 --final 5"), workshop(tmp_path, ScriptedPool()) as opened:
        select(opened, SelectionOptions(9, 1, 5))
    (tmp_path / "proxy.json").unlink()
    with pytest.raises(errors.UsageError, match="is not empty and holds no proxy tasks"), workshop(tmp_path, ScriptedPool()):
        pass


def test_two_commands_do_not_work_in_one_directory(tmp_path):
    with workshop(tmp_path, ScriptedPool()), pytest.raises(errors.StorageError, match="Another command is running"), workshop(tmp_path, ScriptedPool()):
        pass


def test_a_selection_goes_on_in_another_directory(tmp_path):
    pool = ScriptedPool()
    with workshop(tmp_path / "former", pool, rounds=50) as opened:
        select(opened, SelectionOptions(8, 1, 5))
    ran = len(pool.log)
    with workshop(tmp_path / "new", pool, rounds=50) as opened:
        selection = select(opened, SelectionOptions(8, 1, 5), tmp_path / "former" / "selection")
    assert len(pool.log) == ran and len(selection.references) == 5
    with pytest.raises(errors.UsageError, match="holds no model selection"), workshop(tmp_path / "third", pool) as opened:
        select(opened, SelectionOptions(8, 1, 5), tmp_path)


@pytest.mark.parametrize("numbers", [(30, 5, 4), (8, 1, 9), (8, 0, 5)])
def test_numbers_that_leave_nothing_to_compare_are_refused(numbers):
    with pytest.raises(errors.UsageError, match="cannot remain"):
        SelectionOptions(*numbers)
