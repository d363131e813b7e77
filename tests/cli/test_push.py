"""`odp-task push` as a command: what it prints, and what it ends with."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from click import testing
from fakes.gcs import FakeGcs
from fakes.task_server import FakeTaskServer

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import artifact_set, directory
from odp_taskbuilder.cli.main import cli

_TASK = """
population_name: "digits" total_iteration: 10 min_aggregation_size: 2 max_aggregation_size: 2
min_client_version: "0" max_client_version: "999999999" info { traffic_weight: 100 training_info {} }
"""


@pytest.fixture
def artifacts(tmp_path):
    task = artifact_set.TaskArtifacts(b"plan", b"client plan", lambda path: path.write_bytes(b"checkpoint"), _TASK)
    directory.save(artifact_set.ArtifactSet(task, None, ""), tmp_path / "digits", form="MapReduce", inputs={})
    return tmp_path / "digits"


@pytest.fixture
def gcs():
    fake = FakeGcs()
    with fake.serve() as fake.server:
        yield fake


@pytest.fixture
def tasks():
    fake = FakeTaskServer()
    with fake.serve() as fake.server:
        yield fake


def _run(*args, gcs=None, **env):
    environment = {**os.environ, **({"STORAGE_EMULATOR_HOST": gcs.server.url} if gcs else {}), **env}
    command = [sys.executable, "-c", "from odp_taskbuilder.cli.main import main; main()", "push", *map(str, args)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_a_push_in_words(artifacts, gcs, tasks):
    process = _run(artifacts, "--task-management-server", tasks.server.url, gcs=gcs)
    assert (process.returncode, process.stdout) == (0, "Task 1 (training) is complete.\n")
    assert "gs://bucket/digits/1/0/s/0/server_phase: written\n" in process.stderr


@pytest.mark.parametrize("task", ["", 'min_client_version: "3" client_only_plan_url: "" server_phase_url: "" init_checkpoint_url: ""'])
@pytest.mark.parametrize("options", [(), ("--task_management_server", "http://localhost:1"), ("--resume",)])
def test_artifacts_without_tasks_and_destinations_are_told_to_lead_nowhere(tmp_path, task, options):
    built = artifact_set.TaskArtifacts(b"plan", b"client plan", lambda path: path.write_bytes(b"checkpoint"), task)
    directory.save(artifact_set.ArtifactSet(built, None, ""), tmp_path / "digits", form="MapReduce", inputs={})
    done = testing.CliRunner().invoke(cli, ["push", str(tmp_path / "digits"), *options])
    assert isinstance(done.exception, errors.UsageError)
    assert "was built with --build_artifact_only from a config that names no destinations: there is no task to create" in str(done.exception)


def test_a_push_as_json_with_the_server_of_the_environment(artifacts, gcs, tasks):
    process = _run(artifacts, "--json", gcs=gcs, TASK_MANAGEMENT_SERVER_URL=tasks.server.url)
    assert process.returncode == 0, process.stderr
    folder = "gs://bucket/digits/1/0/s/0"
    assert json.loads(process.stdout) == {
        "schema_version": 1,
        "artifacts": [
            {"task": "training", "task_id": 1, "url": f"{folder}/{name}", "outcome": "written"}
            for name in ("checkpoint", "client_only_plan", "server_phase")
        ]
    }


def test_an_error_as_json(artifacts, gcs):
    process = _run(artifacts, "--json", "--task_management_server", "undefined", gcs=gcs)
    assert process.returncode == 8
    error = json.loads(process.stdout)["error"]
    assert (error["class"], error["exit_code"]) == ("TaskServerError", 8)
    assert "is not the URL of a server" in error["message"]


def test_exit_codes(artifacts, gcs, tasks, tmp_path):
    assert _run(tmp_path / "none").returncode == 2
    assert _run(artifacts, "--resume", "--task_management_server", tasks.server.url, gcs=gcs).returncode == 2
    assert _run(tmp_path).returncode == 9
    nobody = _run(artifacts, "--task_management_server", "http://127.0.0.1:9", "--deadline", "4", gcs=gcs)
    assert nobody.returncode == 7
    assert "http://127.0.0.1:9" in nobody.stderr
    gcs.buckets.clear()
    incomplete = _run(artifacts, "--task_management_server", tasks.server.url, gcs=gcs)
    assert incomplete.returncode == 8
    assert f"odp-task push --resume {artifacts}" in incomplete.stderr
    assert not any("Traceback" in process.stderr for process in (nobody, incomplete))


def test_a_push_loads_no_tensorflow(artifacts, gcs, tasks):
    script = (
        "import sys\nfrom odp_taskbuilder.cli.main import run\n"
        "assert run(sys.argv[1:]) == 0\nassert not {'tensorflow', 'tensorflow_federated'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", script, "push", str(artifacts), "--task_management_server", tasks.server.url]
    process = subprocess.run(
        command, env={**os.environ, "STORAGE_EMULATOR_HOST": gcs.server.url}, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr


def test_googles_client_says_nothing_of_versions_to_come(artifacts, gcs, tasks):
    process = _run(artifacts, "--task_management_server", tasks.server.url, gcs=gcs)
    assert "Warning" not in process.stderr


def test_the_journal_is_beside_the_artifacts(artifacts, gcs, tasks):
    _run(artifacts, "--task_management_server", tasks.server.url, gcs=gcs)
    journal = json.loads(pathlib.Path(f"{artifacts}.push.json").read_text())
    assert journal["tasks"]["training"]["task_id"] == 1
    # So that the directory is still what the build wrote, and nothing else.
    directory.check_destination(artifacts)
