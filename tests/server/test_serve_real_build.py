"""The real build behind the server: what the sandbox lets through, and what it says when it fails."""

import pathlib
import shutil

import pytest
from google.protobuf import text_format
from serving_process import ERROR, build_request, parsed, running_server

from odp_taskbuilder.proto import plan_pb2, task_builder_pb2

EXAMPLE = pathlib.Path(__file__).resolve().parent.parent.parent / "configs" / "digits"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("real")
    shutil.copytree(EXAMPLE / "saved_model", root / "models" / "digits")
    shutil.copytree(EXAMPLE / "saved_model", root / "models" / "broken")
    (root / "models" / "broken" / "saved_model.pb").write_bytes(b"\x0a\xff no model")
    return root


@pytest.fixture(scope="module")
def server(root):
    with running_server("--allow_read", str(root / "models"), "--allow_write", str(root / "out"), build="") as server:
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
    assert response.task_group.training_task.min_client_version == "341912000", response
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
