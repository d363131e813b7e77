"""Asking a task builder server: what is sent, what its answers mean, and what happens when there is none."""

import concurrent.futures
import dataclasses
import socket

import pytest
from fakes.faults import FaultPlan, FaultyServer, Reply
from pushing import HASTY
from serving_process import ERROR, build_request, config, make_model, running_server

from odp_taskbuilder import errors
from odp_taskbuilder.proto import task_builder_pb2
from odp_taskbuilder.push import auth
from odp_taskbuilder.server import builder_client

REQUEST = build_request("gs://models/digits", config())
SUCCESS = task_builder_pb2.BuildTaskResponse(task_group=task_builder_pb2.TaskGroup())
SUCCESS.task_group.training_task.task_id = 7


class Builder:
    """Answers with what `answers` says, in turn; the last one for good."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []

    def __call__(self, method, path, headers, body):
        self.requests.append((method, path, headers, body))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def _protobuf(response, status=200, **headers):
    return Reply(status, response.SerializeToString(), headers, "application/x-protobuf")


def _ask(builder, plan=None, **options):
    with FaultyServer(plan or FaultPlan(), builder) as server:
        return builder_client.request_build(server.url, REQUEST, network=HASTY, **options)


@pytest.mark.parametrize(
    ("artifacts_only", "path"), [(False, "/taskbuilder/v1:build-task-group"), (True, "/taskbuilder/v1:build-artifacts")]
)
def test_request_and_answer(artifacts_only, path):
    builder = Builder(_protobuf(SUCCESS))
    assert _ask(builder, artifacts_only=artifacts_only) == SUCCESS
    ((method, requested, headers, body),) = builder.requests
    assert (method, requested) == ("POST", path)
    assert headers["Content-Type"] == "application/x-protobuf"
    assert "Authorization" not in headers  # This machine.
    assert task_builder_pb2.BuildTaskRequest.FromString(body) == REQUEST


def test_a_base_url_with_a_slash():
    builder = Builder(_protobuf(SUCCESS))
    with FaultyServer(FaultPlan(), builder) as server:
        builder_client.request_build(f"{server.url}/", REQUEST, network=HASTY)
    assert builder.requests[0][1] == "/taskbuilder/v1:build-task-group"


@pytest.mark.parametrize(
    "url", ["", "localhost:5000", "ftp://localhost", "undefined", "http://", "http://user:pass@localhost", "http://x/?key=1"]
)
def test_what_is_no_server(url):
    with pytest.raises(errors.TaskServerError, match="not the URL of a server"):
        builder_client.request_build(url, REQUEST, network=HASTY)


@pytest.mark.parametrize(
    ("error_type", "error"),
    [
        (ERROR.INVALID_REQUEST, errors.ConfigError),
        (ERROR.TASK_MANAGEMENT_ERROR, errors.TaskServerError),
        (ERROR.ARTIFACT_BUILDING_ERROR, errors.TaskServerError),
        (17, errors.TaskServerError),
    ],
)
def test_a_handled_failure_is_an_error_here(error_type, error):
    response = task_builder_pb2.BuildTaskResponse(
        error_info=task_builder_pb2.ErrorInfo(error_type=error_type, error_message="why")
    )
    assert _ask(Builder(_protobuf(response))) == response
    with pytest.raises(error, match=f"Failed to create task group. Error type: {error_type} .*; Error message: why"):
        builder_client.check_success(response)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xff"])
def test_an_unreadable_answer(body):
    with pytest.raises(errors.StorageError, match=r"Server returned unreadable response\."):
        _ask(Builder(Reply(200, body)))


@pytest.mark.parametrize("status", [301, 400, 404, 500, 504])
def test_an_error_status_is_not_asked_again(status):
    builder = Builder(Reply(status, b"no protobuf", {"Location": "http://127.0.0.1:1/"}))
    with pytest.raises(errors.TaskServerError, match=f"^{status}: "):
        _ask(builder)
    assert len(builder.requests) == 1


def test_a_lost_answer_is_not_asked_for_again():
    plan = FaultPlan("done_answer_lost", 0)
    with pytest.raises(errors.StorageError, match="Fail to connect") as failure:
        _ask(Builder(_protobuf(SUCCESS)), plan)
    assert "before asking again" in failure.value.next_step
    assert len(plan.log) == 1


def test_a_busy_server_is_asked_again_when_it_says_when():
    builder = Builder(Reply(503, headers={"Retry-After": "0"}), _protobuf(SUCCESS))
    assert _ask(builder) == SUCCESS
    assert len(builder.requests) == 2
    silent = Builder(Reply(503), _protobuf(SUCCESS))
    with pytest.raises(errors.TaskServerError, match="503"):
        _ask(silent)
    assert len(silent.requests) == 1


def test_nobody_listens():
    with pytest.raises(errors.StorageError, match="Fail to connect: http://127.0.0.1:9/taskbuilder") as failure:
        builder_client.request_build("http://127.0.0.1:9", REQUEST, network=HASTY)
    assert failure.value.next_step == "Start the server with: odp-task serve"


def test_a_server_that_is_only_starting_is_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    network = dataclasses.replace(HASTY, retry_for=20.0, longest_pause=0.05)
    builder = Builder(_protobuf(SUCCESS))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(builder_client.request_build, f"http://127.0.0.1:{port}", REQUEST, network=network)
        with pytest.raises(concurrent.futures.TimeoutError):
            answer.result(timeout=0.5)
        with FaultyServer(FaultPlan(), builder, port):
            assert answer.result(timeout=20) == SUCCESS
    assert len(builder.requests) == 1


def test_an_api_key_travels_in_a_header():
    builder = Builder(_protobuf(SUCCESS))
    _ask(builder, login=auth.Login(api_key="key-of-the-user"))
    _, path, headers, _ = builder.requests[0]
    assert headers["X-Goog-Api-Key"] == "key-of-the-user"
    assert "key" not in path
    assert "Authorization" not in headers


def test_a_gateway_that_wants_the_key_in_the_url_gets_it_there_after_its_refusal():
    builder = Builder(Reply(401, b"Method doesn't allow unregistered callers"), _protobuf(SUCCESS))
    assert _ask(builder, login=auth.Login(api_key="key of the user")) == SUCCESS
    _, path, headers, _ = builder.requests[1]
    assert path == "/taskbuilder/v1:build-task-group?key=key+of+the+user"
    assert "X-Goog-Api-Key" not in headers


def test_a_gateway_that_refuses_the_key_anyhow():
    builder = Builder(Reply(403))
    with pytest.raises(errors.TaskServerError) as failure:
        _ask(builder, login=auth.Login(api_key="key-of-the-user"))
    assert "key-of-the-user" not in str(failure.value)
    assert len(builder.requests) == 2


def test_a_real_server(tmp_path):
    make_model(tmp_path / "models" / "digits")
    request = build_request(tmp_path / "models" / "digits", config(folder=str(tmp_path / "out")))
    with running_server("--allow_read", str(tmp_path / "models"), "--allow_write", str(tmp_path / "out")) as server:
        response = builder_client.request_build(server.url, request, artifacts_only=True)
        builder_client.check_success(response)
    assert list(response.task_group.training_task.server_phase_url) == [f"{tmp_path}/out/plan.pb"]
