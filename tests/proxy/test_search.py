"""Proxy-task search: which proxy becomes best, why each one ends, and that a killed command leaves nothing undone or done twice. The workers
are scripted, so that every score is known."""

import dataclasses
import json
import random
import signal
import subprocess
import sys
import time

import pytest
import scripted_pool
from scripted_pool import ScriptedPool, workshop

from odp_taskbuilder import errors
from odp_taskbuilder.cli import json_documents
from odp_taskbuilder.proxy import search as proxy_search
from odp_taskbuilder.proxy.search import SearchOptions, search
from odp_taskbuilder.proxy.selection import SelectionOptions, select
from odp_taskbuilder.proxy.space import grid

TASK_FIELDS = {
    "proxy_task_stats",
    "proxy_task_name",
    "search_job_name",
    "search_job_link",
    "latency_calculator_job_name",
    "latency_calculator_job_link",
}
STATS_FIELDS = {
    "training_steps",
    "accuracy_correlation_over_step",
    "accuracy_correlation_p_value_over_step",
    "median_accuracy_over_step",
    "median_training_time_hrs_over_step",
    "latency_correlation",
    "latency_correlation_p_value",
    "stopping_state",
    "posted_stop_trials_message",
    "final_training_time_in_hours",
    "final_training_steps",
}
SHARES = grid({"population_share": ["0.1", "0.2", "0.5"]})


@pytest.fixture
def searched(tmp_path):
    """Selects ten candidates of twelve once, and searches; returns (result, pool, directory)."""

    def searched(proxies=SHARES, broken=(), pool_options=None, rounds=100, more=None, **options):
        pool = ScriptedPool(**(pool_options or {}))
        with workshop(tmp_path / "dir", pool, rounds=rounds, **(more or {})) as opened:
            select(opened, SelectionOptions(12, 2, 10))
            pool.broken = set(broken)
            pool.log.clear()
            return search(opened, proxies, SearchOptions(**options)), pool, tmp_path / "dir"

    return searched


def stats(directory, name):
    return json.loads((directory / "search/SEARCH_CONTROLLER_STATE.json").read_text())["proxy_tasks_map"][name]["proxy_task_stats"]


def test_the_cheapest_proxy_that_agrees_twice_in_a_row_becomes_best(searched):
    # The first share is all noise, as with shuffled labels: whatever it agrees with is chance.
    result, pool, directory = searched(pool_options={"noise": {"population_share=0.1": 1.0}})
    assert result.best == "population_share=0.2"
    by_name = {found.name: found for found in result.proxies}
    assert by_name["population_share=0.1"].stopping_state == "Ran till completion"
    assert by_name["population_share=0.2"].stopping_state == by_name["population_share=0.5"].stopping_state == "Met desired correlation"
    # Two evaluations, five rounds each, of a fifth of the clients: a fiftieth of the full training.
    assert by_name["population_share=0.2"].rounds == 10 and by_name["population_share=0.2"].cost_share == pytest.approx(0.02)
    assert len(pool.log) == len(set(pool.log))
    script = directory / "search/best_proxy_task.sh"
    assert script.stat().st_mode & 0o111
    assert "exec odp-task proxy rank --dir " in script.read_text() and "--proxy population_share=0.2 --rounds 10" in script.read_text()
    subprocess.run(["sh", "-n", script], check=True)
    assert list(json_documents.misfits("proxy search", {"schema_version": 1, **dataclasses.asdict(result)})) == []
    for name in by_name:
        assert (directory / f"search/{name}/correlation.png").read_bytes().startswith(b"\x89PNG")


def test_a_proxy_that_ranks_and_does_not_learn_agrees_by_the_published_rule_only(searched):
    # As with labels that are shuffled among each client's examples: what learns fast comes sooner to the commonest classes.
    pool_options = {"scale": {"population_share=0.1": 0.2}}
    result, _, _ = searched(SHARES[:2], pool_options=pool_options)
    assert [found.stopping_state for found in result.proxies] == ["Ran till completion", "Met desired correlation"]
    assert result.proxies[0].correlation == pytest.approx(1.0) and result.best == "population_share=0.2"


def test_the_published_rule_does_not_ask_whether_a_proxy_learns(searched):
    result, _, _ = searched(SHARES[:1], pool_options={"scale": {"population_share=0.1": 0.2}}, hold=1, max_p=1.0)
    assert result.best == "population_share=0.1"


def test_the_state_is_what_published_readers_read(searched):
    _, _, directory = searched(SHARES[:1], more={"latency": "local"})
    state = json.loads((directory / "search/SEARCH_CONTROLLER_STATE.json").read_text())
    assert list(state) == ["proxy_tasks_map", "best_proxy_task_name"] and state["best_proxy_task_name"] == "population_share=0.1"
    (task,) = state["proxy_tasks_map"].values()
    assert set(task) == TASK_FIELDS and set(task["proxy_task_stats"]) == STATS_FIELDS
    found = task["proxy_task_stats"]
    assert found["training_steps"] == [5, 10] and found["final_training_steps"] == 10
    assert found["accuracy_correlation_over_step"] == pytest.approx([1.0, 1.0])
    assert found["accuracy_correlation_p_value_over_step"] == pytest.approx([2 / 3628800] * 2)
    assert found["median_training_time_hrs_over_step"] == [0.05, 0.1] and found["final_training_time_in_hours"] == 0.1
    assert found["latency_correlation"] == pytest.approx(1.0) and found["posted_stop_trials_message"] is True
    assert (directory / "search/population_share=0.1/latency_correlation.png").exists()


def test_one_lucky_evaluation_is_enough_for_the_published_rule_only(searched):
    held, _, _ = searched(SHARES[:1])
    assert held.proxies[0].rounds == 10
    published, _, _ = searched(grid({"population_share": ["0.3"]}), hold=1, max_p=1.0)
    assert published.proxies[-1].rounds == 5


@pytest.mark.parametrize(
    ("options", "pool_options", "broken", "state"),
    [
        ({"max_p": 1e-9}, {}, (), "Ran till completion"),
        ({"desired_accuracy": 0.1, "hold": 9}, {}, (), "Met desired accuracy"),
        ({"time_limit_hours": 0.07, "hold": 9}, {}, (), "Exceeded training time limit"),
        ({"desired_latency_correlation": 0.9}, {"latency_noise": 50.0}, (), "Failed desired latency correlation"),
        ({}, {}, [f"c{number}" for number in range(12)], "Proxy task job failed"),
        ({}, {}, [f"c{number}" for number in range(6)], "Excess trial failures"),
        ({}, {}, ["c3", "c4"], "Met desired correlation"),
    ],
)
def test_each_end_has_its_published_words(searched, options, pool_options, broken, state):
    latency = "local" if "desired_latency_correlation" in options else "none"
    result, pool, directory = searched(SHARES[:1], broken, pool_options, more={"latency": latency}, **options)
    assert result.proxies[0].stopping_state == stats(directory, "population_share=0.1")["stopping_state"] == state
    assert result.best == ("population_share=0.1" if state == "Met desired correlation" else None)
    if state == "Failed desired latency correlation":
        assert not pool.log, "something was trained"
    if state == "Proxy task job failed":
        assert stats(directory, "population_share=0.1")["accuracy_correlation_over_step"] == [-5.0]


def test_a_proxy_that_costs_more_than_the_best_is_given_up_where_that_is_asked_for(searched):
    result, pool, _ = searched([SHARES[0], SHARES[2]], early_stop_proxy_task_if_not_best=True)
    assert [found.stopping_state for found in result.proxies] == ["Met desired correlation", "Exceeded best training time"]
    assert result.best == "population_share=0.1"
    assert not any(line.startswith("population_share=0.5/") and line.endswith(" 6") for line in pool.log)


def test_more_proxies_and_more_rounds_may_be_added_later(searched):
    first, _, _ = searched(SHARES[:1], rounds=None, max_p=1e-9, more={"evaluation_every": 5})
    assert first.proxies[0].stopping_state == "Ran till completion" and first.proxies[0].rounds == 100
    second, pool, _ = searched(SHARES[:2], max_p=1e-9, more={"evaluation_every": 5})
    assert [found.name for found in second.proxies] == ["population_share=0.1", "population_share=0.2"]
    assert pool.log and not any(line.startswith("population_share=0.1/") for line in pool.log), "a finished proxy was run again"


def test_a_proxy_that_ran_to_its_end_goes_on_when_it_is_given_more_rounds(tmp_path):
    pool = ScriptedPool()
    with workshop(tmp_path, pool) as opened:
        select(opened, SelectionOptions(12, 2, 10))
        few = search(opened, SHARES[:1], SearchOptions(max_p=1e-9, rounds=20))
        pool.log.clear()
        more = search(opened, SHARES[:1], SearchOptions(max_p=1e-9, rounds=40))
    assert few.proxies[0].rounds == 20 and more.proxies[0].rounds == 40
    assert len(pool.log) == 10 * 20 and min(int(line.split()[1]) for line in pool.log) == 21


def test_a_search_goes_on_in_another_directory(searched, tmp_path):
    _, pool, directory = searched(SHARES[:1])
    with workshop(tmp_path / "new", pool, rounds=100) as opened:
        select(opened, SelectionOptions(12, 2, 10), directory)
        pool.log.clear()
        result = search(opened, SHARES[:1], SearchOptions(), previous=directory)
    assert not pool.log and result.best == "population_share=0.1"


def test_references_that_differ_no_more_than_copies_of_one_are_refused_with_the_numbers(tmp_path):
    with workshop(tmp_path, ScriptedPool()) as opened:
        select(opened, SelectionOptions(5, 1, 5))
        # As `proxy variance` keeps it; the five references have scores from 0.095 to 0.197.
        opened.write("variance/copies.json", {"candidate": "c3", "scores": [0.1, 0.3], "settings": {}})
        with pytest.raises(errors.ModelError) as raised:
            search(opened, SHARES, SearchOptions())
    assert raised.value.exit_code == 4
    assert "The 5 references differ no more than chance does" in raised.value.message
    assert "standard deviation 0.04016, those of 2 copies of c3 0.1414." in raised.value.message


def test_a_search_needs_a_finished_selection_and_proxies_of_names_of_their_own(searched, tmp_path):
    with pytest.raises(errors.UsageError, match="holds no finished selection"), workshop(tmp_path / "empty", ScriptedPool()) as opened:
        search(opened, SHARES, SearchOptions())
    with pytest.raises(errors.UsageError, match="Two proxies have the name 'population_share=0.1'"):
        searched([SHARES[0], SHARES[0]])
    searched(SHARES[:1])
    changed = proxy_search.Proxy(SHARES[0].name, SHARES[1].dimensions)
    with pytest.raises(errors.UsageError, match="holds a proxy 'population_share=0.1' with other arguments"):
        searched([changed])


def killed_at_random(directory, log, kills, seed):
    """Runs the program until it ends well, killing it `kills` times."""
    command = [sys.executable, scripted_pool.__file__, directory, log]
    rng, started = random.Random(seed), time.monotonic()
    for _ in range(kills):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            # What a command takes is not known here, nor needed: a moment after its end kills nothing.
            process.wait(timeout=rng.uniform(0.5, 6.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - started


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.full)])
def test_killed_commands_come_to_the_same_state_and_run_no_finished_round_again(tmp_path, kills):
    """The program keeps a round before it notes it: a note that is there twice would be a round that was run again."""
    killed_at_random(tmp_path / "whole", tmp_path / "whole.log", 0, 0)
    killed_at_random(tmp_path / "killed", tmp_path / "killed.log", kills, kills)
    for name in ("selection/MODEL_SELECTION_STATE.json", "selection/selection.json", "search/SEARCH_CONTROLLER_STATE.json", "search/search.json"):
        whole, killed = ((tmp_path / run / name).read_text().replace(f"/{run}/", "/") for run in ("whole", "killed"))
        assert killed == whole, name
    lines = (tmp_path / "killed.log").read_text().splitlines()
    assert set(lines) == set((tmp_path / "whole.log").read_text().splitlines())
    # The round under way at a kill is run again; no other one.
    assert len(lines) - len(set(lines)) <= kills
