"""Tunings of the digits with real builds and real rounds, whose commands are killed."""

import collections
import json
import os
import random
import re
import signal
import subprocess

import pytest
from real_trainings import DATA, SPACE

pytestmark = pytest.mark.full


def final_state(directory):
    """What a tuning holds at its end, without what it took and where it lies."""
    state = {}
    for name in ("selection/MODEL_SELECTION_STATE.json", "selection/selection.json", "search/SEARCH_CONTROLLER_STATE.json", "search/search.json"):
        text = (directory / name).read_text().replace(directory.name, "")
        state[name] = without_times(json.loads(text))
    return state


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if not re.search("time|hours|hrs|seconds", key)}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def recorded_rounds(directory):
    """(Trial, round) -> how many times its end was noted."""
    found = collections.Counter()
    for path in directory.glob("trials/**/seconds.jsonl"):
        for number in re.findall(r'"round": (\d+), "seconds": [\d.e-]+}', path.read_text()):
            found[str(path.relative_to(directory)), int(number)] += 1
    return found


def test_tunings_that_are_killed_at_twenty_moments_come_to_the_same_state_and_run_no_finished_round_again(place):
    place.partition(6)
    select = ["select", *SPACE, *DATA, "--start", 7, "--final", 5, "--remove", 1, "--full_rounds", 12, "--clients_per_round", 4, "--evaluation_every", 2, "--engine", "local"]
    search = ["search", "--vary", "clients_per_round=2,3", "--desired_accuracy_correlation", 1, "--cost", "client_updates", "--engine", "local"]
    for command in (select, search):
        place.proxy(command[0], "--dir", "whole", *command[1:])
    rng, kills = random.Random(17), 0
    for command, killed_at_most in ((select, 10), (search, 20)):
        while True:
            with place.start("proxy", command[0], "--dir", "killed", *command[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
                try:
                    # Times of a command are not known here: a moment after its end kills nothing, and is none of the twenty.
                    _, messages = process.communicate(timeout=rng.uniform(0.5, 9) if kills < killed_at_most else 3000)
                except subprocess.TimeoutExpired:
                    os.kill(process.pid, signal.SIGKILL)
                    kills += 1
                    process.communicate(timeout=60)
                    continue
            assert process.returncode == 0, messages
            break
    assert kills >= 15
    assert final_state(place.directory / "killed") == final_state(place.directory / "whole")
    rounds = recorded_rounds(place.directory / "killed")
    assert max(rounds.values()) == 1
    # A kill may come between a round and its note.
    assert set(recorded_rounds(place.directory / "whole")) >= set(rounds) and sum(rounds.values()) >= sum(recorded_rounds(place.directory / "whole").values()) - kills
