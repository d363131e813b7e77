"""`odp-task build --task_builder_server`: what reaches the server, and what is refused because it would not."""

import os
import pathlib
import subprocess
import sys

import pytest
from fakes.faults import FaultPlan, FaultyServer, Reply

from odp_taskbuilder.proto import task_builder_pb2

_DIGITS = pathlib.Path(__file__).resolve().parent.parent.parent / "configs" / "digits"
_ARTIFACTS = ("plan", "client_plan", "checkpoint")


@pytest.fixture
def server():
    """A task builder that notes what it is asked for, and says that it is done."""
    answer = task_builder_pb2.BuildTaskResponse(task_group=task_builder_pb2.TaskGroup())
    answer.task_group.training_task.task_id = 7

    def reply(method, path, headers, body):
        server.requests.append((path, task_builder_pb2.BuildTaskRequest.FromString(body)))
        return Reply(200, answer.SerializeToString(), content_type="application/x-protobuf")

    with FaultyServer(FaultPlan(), reply) as server:
        server.requests = []
        yield server


def _build(server, cwd, config, *options):
    command = [sys.executable, "-c", "from odp_taskbuilder.cli.main import main; main()", "build"]
    command += ["--saved_model", "gs://models/digits", "--task_config", str(config), "--task_builder_server", server.url]
    return subprocess.run([*command, *options], cwd=cwd, env=dict(os.environ), capture_output=True, text=True, timeout=60)


def _config_with_destinations(path, folder):
    text = (_DIGITS / "train.pbtxt").read_text(encoding="utf-8")
    for block, prefix in (("learning_process", ""), ("evaluation", "eval_")):
        building = "".join(f'{name}_url: "{folder}/{prefix}{name}" ' for name in _ARTIFACTS)
        text = text.replace(f"{block} {{", f"{block} {{ artifact_building {{ {building} }}", 1)
    path.write_text(text)
    return path


def test_the_config_is_sent_with_the_population_and_the_storage_path_of_the_command_line(server, tmp_path):
    config = _config_with_destinations(tmp_path / "config.pbtxt", "{storage_path}")
    options = ["--storage_path", "gs://bucket/plans/", "--population_name", "others", "--skip_dp_check"]
    process = _build(server, tmp_path, config, "--build_artifact_only", *options)
    assert process.returncode == 0, process.stderr
    ((path, request),) = server.requests
    assert path == "/taskbuilder/v1:build-artifacts"
    sent = request.task_config.federated_learning
    for building, prefix in ((sent.learning_process.artifact_building, ""), (sent.evaluation.artifact_building, "eval_")):
        urls = (building.plan_url, building.client_plan_url, building.checkpoint_url)
        assert urls == tuple(f"gs://bucket/plans/{prefix}{name}" for name in _ARTIFACTS)
    assert request.task_config.population_name == "others"
    assert (request.flags.skip_dp_check, request.flags.skip_flex_ops_check) == (True, False)
    assert "task_id: 7" in process.stdout


def test_a_placeholder_without_a_value_is_not_sent(server, tmp_path):
    config = _config_with_destinations(tmp_path / "config.pbtxt", "{storage_path}")
    process = _build(server, tmp_path, config, "--build_artifact_only")
    assert (process.returncode, server.requests) == (3, [])
    assert "still contains the placeholder {storage_path}" in process.stderr


@pytest.mark.parametrize(
    "options",
    [["--output", "elsewhere"], ["--overwrite"], ["--population", "3000000"], ["--sandbox"], ["--trust_model=true"], ["--compress_updates", "8"]],
    ids=lambda options: options[0],
)
def test_options_that_a_server_does_not_heed_are_refused(server, tmp_path, options):
    process = _build(server, tmp_path, _DIGITS / "train.pbtxt", *options)
    assert (process.returncode, server.requests) == (2, [])
    name = options[0].partition("=")[0]
    assert f"With --task_builder_server these options have no effect: {name}." in process.stderr
