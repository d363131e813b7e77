"""`simulate --noise_as_deployed`: few clients, the noise of a whole report goal, and no epsilon of their own."""

import json
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from runs import files, weights

from odp_taskbuilder import errors
from odp_taskbuilder.cli.main import cli
from odp_taskbuilder.simulation import simulate
from odp_taskbuilder.simulation.round_options import RoundOptions

# As build_tasks.py configures the task `private`: noise multiplier, clip, report goal.
NOISE, CLIP, GOAL = 0.5, 0.5, 10


@pytest.fixture
def simulated(tasks, clients, tmp_path):
    """Runs `private` on the clients of the given numbers; returns the run directory."""

    def simulated(*numbers, rounds=1, name=None, per_round=None, **options):
        data = tmp_path / "-".join(map(str, numbers))
        data.mkdir(exist_ok=True)
        for path in [sorted((clients / "train").iterdir())[number] for number in numbers]:
            shutil.copy(path, data)
        directory = tmp_path / (name or f"run-{data.name}-{options}")
        options = simulate.SimulationOptions(
            data=str(data),
            evaluation_data=str(clients / "test"),
            run_directory=directory,
            rounds=RoundOptions(
                rounds=rounds, clients_per_round=per_round or len(numbers), noise_as_deployed=True, evaluation_every=2, **options
            ),
            num_workers=1,
        )
        simulate.simulate(tasks / "private" / "digits", options)
        return directory

    return simulated


def step(directory):
    return weights(directory, 1) - weights(directory, 0)


def test_the_noise_on_the_mean_is_that_of_the_report_goal(simulated):
    steps = [step(simulated(0, 1, noise_seed=seed)) for seed in range(6)]
    # What the two clients sent is the same each time: the rest is noise.
    noise = np.std(steps, axis=0, ddof=1)
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(NOISE * CLIP / GOAL, rel=0.03)


def test_each_client_counts_as_many_times_as_it_stands_for(simulated):
    # The same seed draws the same noise, whoever takes part.
    first, second, both = (step(simulated(*numbers, noise_seed=7)) for numbers in ((0,), (1,), (0, 1)))
    assert np.abs(both - (first + second) / 2).max() < 1e-6
    assert np.abs(first - second).max() > 1e-3


def test_a_noise_seed_repeats_a_run_also_one_that_was_interrupted(simulated):
    whole = simulated(*range(4), rounds=4, per_round=2, noise_seed=3, name="whole")
    simulated(*range(4), rounds=2, per_round=2, noise_seed=3, name="resumed")
    resumed = simulated(*range(4), rounds=4, per_round=2, noise_seed=3, name="resumed")
    assert files(resumed) == files(whole)
    other = simulated(*range(4), rounds=4, per_round=2, noise_seed=4, name="other")
    assert np.abs(weights(other, 4) - weights(whole, 4)).max() > 1e-3


def test_a_run_does_not_change_its_noise_when_it_is_resumed(simulated):
    simulated(0, 1, noise_seed=0, name="run")
    with pytest.raises(errors.UsageError, match="--noise_seed was 0 and is not given"):
        simulated(0, 1, name="run")


def test_no_epsilon_is_claimed(tasks, clients, tmp_path):
    command = ["simulate", str(tasks / "private" / "digits"), "--data", str(clients / "train"), "--rounds", "1"]
    command += ["--clients_per_round", "2", "--run_dir", str(tmp_path / "run")]
    refused = CliRunner().invoke(cli, command)
    assert isinstance(refused.exception, errors.UsageError) and "from 10 (the report goal)" in str(refused.exception)
    done = CliRunner().invoke(cli, [*command, "--noise_as_deployed"])
    assert done.exit_code == 0, done.output
    assert re.search(r"privacy: none claimed. Rounds were weighed as if 10 clients", done.stdout)
    assert "epsilon" not in done.output.replace(str(tmp_path), "")
    document = json.loads(CliRunner().invoke(cli, [*command, "--noise_as_deployed", "--json"]).stdout)
    assert document["privacy"] is None and document["noise_of_reports"] == 10
    changed = CliRunner().invoke(cli, [*command, "--clients_per_round", "10"])
    assert isinstance(changed.exception, errors.UsageError) and "--noise_as_deployed was given and is not given" in str(changed.exception)


def test_a_cohort_larger_than_the_task_takes_is_refused(simulated):
    with pytest.raises(errors.UsageError, match="1001 clients per round are asked for; the task's rounds take at most"):
        simulated(0, 1, per_round=1001)
