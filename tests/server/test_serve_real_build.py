"""The real build behind the server: what the sandbox lets through, and what it says when it fails."""

import pathlib
import shutil
import subprocess
import sys

import pytest
import refused_models
from google.protobuf import text_format
from serving_process import ERROR, build_request, parsed, running_server

from odp_taskbuilder.proto import plan_pb2, task_builder_pb2

ODP_TASK = pathlib.Path(sys.executable).with_name("odp-task")
EXAMPLE = pathlib.Path(__file__).resolve().parent.parent.parent / "configs" / "digits"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("real")
    shutil.copytree(EXAMPLE / "saved_model", root / "models" / "digits")
    shutil.copytree(EXAMPLE / "saved_model", root / "models" / "broken")
    (root / "models" / "broken" / "saved_model.pb").write_bytes(b"\x0a\xff no model")
    for op in refused_models.ADDITIONS:
        refused_models.save(root / "models" / op, op, root / "canary")
    return root


@pytest.fixture(scope="module")
def server(root):
    places = ("--allow_read", str(root / "models"), "--allow_write", str(root / "out"))
    # Nothing listens there: a refused model is refused before any task is created.
    with running_server(*places, "--task_management_server", "http://127.0.0.1:9", build="") as server:
        yield server


@pytest.fixture
def config(root):
    config = text_format.Parse((EXAMPLE / "train.pbtxt").read_text(), task_builder_pb2.TaskConfig())
    for prefix, part in (("", config.federated_learning.learning_process), ("eval_", config.federated_learning.evaluation)):
        part.artifact_building.plan_url = f"{root}/out/{prefix}plan.pb"
        part.artifact_building.client_plan_url = f"{root}/out/{prefix}client_only_plan.pb"
        part.artifact_building.checkpoint_url = f"{root}/out/{prefix}initial_state.server.ckp"
    return config


def test_artifacts_and_report(server, root, config):
    response = parsed(server.post(build_request(root / "models" / "digits", config), artifacts=True, timeout=300))
    assert response.task_group.training_task.min_client_version == "341812000", response
    assert 5.9 < response.task_report.dp_hyperparameters.dp_epsilon <= 6
    for prefix in ("", "eval_"):
        plan = plan_pb2.Plan.FromString((root / "out" / f"{prefix}plan.pb").read_bytes())
        client_plan = plan_pb2.ClientOnlyPlan.FromString((root / "out" / f"{prefix}client_only_plan.pb").read_bytes())
        assert plan.phase[0].client_phase == client_plan.phase


def test_a_config_that_is_not_private_enough(server, root, config):
    config.differential_privacy.noise_multiplier = 0.01
    info = parsed(server.post(build_request(root / "models" / "digits", config), artifacts=True, timeout=300)).error_info
    assert info.error_type == ERROR.INVALID_REQUEST
    assert info.error_message.startswith("Task config is invalid: ")
    assert "noise_multiplier 0.01 spends epsilon" in info.error_message


def test_a_model_that_is_none(server, root, config):
    model = root / "models" / "broken"
    info = parsed(server.post(build_request(model, config), artifacts=True, timeout=300)).error_info
    assert info.error_type == ERROR.INVALID_REQUEST
    assert info.error_message.startswith(f"Cannot load TFF functional model from {model}. ")
    assert "build-" not in info.error_message  # The path of the copy.


@pytest.mark.parametrize("artifacts", [False, True], ids=["build-task-group", "build-artifacts"])
@pytest.mark.parametrize("op", refused_models.ADDITIONS)
def test_a_model_that_the_scan_refuses_is_refused_at_both_endpoints(server, root, config, op, artifacts):
    model = root / "models" / op
    config.population_name = f"refused-{op}"
    info = parsed(server.post(build_request(model, config), artifacts=artifacts, timeout=300)).error_info
    assert info.error_type == ERROR.INVALID_REQUEST
    assert info.error_message.startswith(f"Cannot load TFF functional model from {model}. ")
    assert op in info.error_message
    assert "this server loads no other" in info.error_message
    assert not (root / "canary").exists()


@pytest.mark.parametrize("artifact_only", [(), ("--build_artifact_only=true",)])
def test_a_build_by_a_server_says_that_the_model_is_refused(server, root, config, tmp_path, artifact_only):
    (tmp_path / "config.pbtxt").write_text(text_format.MessageToString(config))
    command = (ODP_TASK, "build", "--saved_model", root / "models" / "WriteFile", "--task_config", tmp_path / "config.pbtxt")
    done = subprocess.run(
        [*map(str, command), "--task_builder_server", server.url, *artifact_only], capture_output=True, text=True, timeout=300
    )
    assert done.returncode != 0
    assert "WriteFile" in done.stderr
    assert "this server loads no other" in done.stderr
