"""Tunings of the digits with real builds and real rounds, on Ray in place of local processes."""

import pytest
from real_trainings import DATA, SPACE

pytestmark = pytest.mark.full

# Two rounds of four clients.
SMALL = [*DATA, "--clients_per_round", 4, "--full_rounds", 2, "--evaluation_every", 2]


def scores(selected):
    return {reference["name"]: (reference["score"], reference["rounds"]) for reference in selected["references"]}


def test_trials_on_ray_come_to_the_scores_of_local_processes(place):
    pytest.importorskip("ray")
    place.partition(10)
    five = ["--start", 5, "--final", 5, "--parallel_trials", 2]
    selected = {flags: place.proxy("select", "--dir", "tuning" + flags, *filter(None, [flags]), *SPACE, *SMALL, *five) for flags in ("", "--ray")}
    assert len(scores(selected["--ray"])) == 5 and scores(selected["--ray"]) == scores(selected[""])
