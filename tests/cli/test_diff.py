"""`odp-task diff`."""

import json
import subprocess
import sys

_COMMAND = [sys.executable, "-c", "from odp_taskbuilder.cli.main import main; main()", "diff"]


def _run(*arguments):
    return subprocess.run([*_COMMAND, *map(str, arguments)], capture_output=True, text=True)


def test_the_two_published_forms(golden):
    sets = golden / "keras_dense"
    run = _run(sets / "expected_mapreduce", sets / "expected_distribute_aggregate")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[0] == "plan.pb"
    assert "  form: MapReduce -> DistributeAggregate" in run.stdout.splitlines()
    assert "  client > tflite > ops > L2Loss: 4 times -> (absent)" in run.stdout.splitlines()


def test_verdict_as_exit_code(golden):
    sets = golden / "keras_dense"
    plans = [sets / form / "plan.pb" for form in ("expected_mapreduce", "expected_distribute_aggregate")]
    assert _run(*plans, "--exit_code").returncode == 9
    same = _run(plans[0], plans[0], "--exit_code", "--json")
    assert (same.returncode, json.loads(same.stdout)) == (0, {"schema_version": 1, "differences": []})


def test_a_file_against_a_directory_is_a_usage_error(golden):
    run = _run(golden / "keras_dense" / "expected_mapreduce", golden / "keras_dense" / "expected_mapreduce" / "plan.pb")
    assert run.returncode == 2
    assert "one is a directory, the other a file" in run.stderr
