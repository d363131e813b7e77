"""P6: against servers that never come to an end, every command does."""

import dataclasses
import pathlib
import signal
import subprocess
import sys
import time

import google.cloud.storage  # noqa: F401  half a second of importing, which is not to count against the first deadline
import pytest
from fakes.faults import FaultPlan
from fakes.gcs import FakeGcs
from fakes.silence import endless_server
from fakes.task_server import FakeTaskServer
from pushing import HASTY, artifact_only_task, save_artifacts
from serving_process import build_request, config, wait_for_connection

from odp_taskbuilder import build_request as requests_of_builds
from odp_taskbuilder import errors
from odp_taskbuilder.base.stages import unannounced
from odp_taskbuilder.cli import main
from odp_taskbuilder.config import load_config, resolve
from odp_taskbuilder.config.build_options import BuildOptions
from odp_taskbuilder.push import push
from odp_taskbuilder.server import builder_client
from odp_taskbuilder.stores import inputs
from odp_taskbuilder.transport.deadline import Network

# Nothing but the deadline ends these: a server may be silent for a minute.
NETWORK = Network(deadline=0.7, silence=60, retry_for=60, first_pause=0.01, longest_pause=0.05)
TRICKLES = {
    "silent": b"",
    "headers": b"HTTP/1.1 200 OK\r\nX: xxx",
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nxxx",
}


@pytest.fixture(params=TRICKLES)
def endless(request):
    with endless_server(TRICKLES[request.param]) as url:
        yield url


def _ends(call, error, text="was not done within 0.7 seconds|the deadline has passed"):
    begin = time.monotonic()
    with pytest.raises(error, match=text):
        call()
    # As much again is left to a busy machine.
    assert time.monotonic() - begin < 10


def test_push_to_an_endless_task_server(endless, artifacts, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    _ends(lambda: push.push(artifacts, push.PushOptions(server=endless), NETWORK), errors.StorageError)


def test_push_to_endless_storage_names_the_tasks(endless, artifacts, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", endless)
    with FakeTaskServer().serve() as server:
        call = lambda: push.push(artifacts, push.PushOptions(server=server.url), NETWORK)  # noqa: E731
        _ends(
            call,
            errors.TaskServerError,
            r"(?s)(not done within 0.7 seconds|the deadline has passed).*Task 1 \(training\).*push --resume",
        )


def test_push_of_artifacts_to_endless_storage(endless, tmp_path, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", endless)
    tasks = {role: artifact_only_task(f"gs://bucket/{role}") for role in ("training", "evaluation")}
    artifacts = save_artifacts(tmp_path / "digits", **tasks)
    _ends(lambda: push.push(artifacts, network=NETWORK), errors.StorageError)


def test_asking_an_endless_task_builder(endless):
    _ends(
        lambda: builder_client.request_build(endless, build_request("gs://m", config()), network=NETWORK), errors.StorageError
    )


def test_reading_a_config_from_endless_storage(endless, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", endless)
    _ends(lambda: inputs.read_config("gs://bucket/config.pbtxt", NETWORK), errors.StorageError)


def test_credentials_from_an_endless_metadata_server(endless, monkeypatch):
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("GCE_METADATA_HOST", endless.removeprefix("http://"))
    request = build_request("gs://m", config())
    call = lambda: builder_client.request_build("http://198.51.100.1", request, network=NETWORK)  # noqa: E731
    _ends(call, errors.StorageError)


_CONFIG = pathlib.Path(__file__).resolve().parent.parent.parent / "configs" / "digits" / "train.pbtxt"
_MODEL_IN_BUCKET = ["--saved_model", "gs://bucket/model", "--task_config", str(_CONFIG)]
_CONFIG_IN_BUCKET = ["--saved_model", "model", "--task_config", "gs://bucket/config.pbtxt"]


@pytest.mark.parametrize(
    "command",
    [
        ["build", *_MODEL_IN_BUCKET],
        ["build", *_CONFIG_IN_BUCKET],
        ["build", "--sandbox", *_MODEL_IN_BUCKET],
        ["build", *_CONFIG_IN_BUCKET, "--task_builder_server", "http://127.0.0.1:9"],
        ["build", *_MODEL_IN_BUCKET, "--task_builder_server", "{endless}"],
        ["ops", *_MODEL_IN_BUCKET],
        ["ops", *_CONFIG_IN_BUCKET],
        ["metrics", "gs://bucket"],
        ["push", "{artifacts}", "--task_management_server", "{endless}"],
    ],
    ids=range(9),
)
def test_commands_end_by_their_deadline(command, endless, artifacts, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", endless)
    monkeypatch.chdir(tmp_path)
    arguments = [argument.format(endless=endless, artifacts=artifacts) for argument in command]
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGHUP)}
    begin = time.monotonic()
    try:
        code = main.run([*arguments, "--deadline", "0.7", "--request_timeout", "60"])
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    assert time.monotonic() - begin < 10
    err = capfd.readouterr().err
    assert code == errors.StorageError.exit_code, err
    assert "was not done within 0.7 seconds" in err or "the deadline has passed" in err


def test_the_upload_of_a_build_ends_by_its_deadline(endless, tmp_path, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", endless)
    tasks = {role: artifact_only_task(f"gs://bucket/{role}") for role in ("training", "evaluation")}
    artifacts = save_artifacts(tmp_path / "digits", **tasks)
    loaded = load_config(_CONFIG)
    request = requests_of_builds.BuildRequest(
        task_config=loaded,
        spec=resolve(loaded),
        options=BuildOptions(),
        destination=artifacts,
        overwrite=False,
        has_destinations=True,
        network=NETWORK,
    )
    _ends(lambda: request.upload(unannounced), errors.StorageError)


def test_a_stalled_answer_is_asked_for_again(artifacts, monkeypatch):
    plan = FaultPlan("stall", 7)
    gcs = FakeGcs(plan)
    with gcs.serve() as gcs_server, FakeTaskServer(plan).serve() as task_server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
        pushed = push.push(artifacts, push.PushOptions(server=task_server.url), dataclasses.replace(HASTY, retry_for=5))
    assert plan.num_fired == 1
    assert len(pushed) == 6


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("endless_part", ["tasks", "storage"])
def test_signals_end_a_push_that_waits(artifacts, endless_part, signum, code, monkeypatch):
    """P5."""
    with endless_server() as nowhere, FakeTaskServer().serve() as task_server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", nowhere)
        server = nowhere if endless_part == "tasks" else task_server.url
        command = [sys.executable, "-c", "from odp_taskbuilder.cli.main import main; main()", "push", str(artifacts)]
        process = subprocess.Popen(
            [*command, "--task_management_server", server], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_for_connection(process, server if endless_part == "tasks" else nowhere)
        begin = time.monotonic()
        process.send_signal(signum)
        out, err = process.communicate(timeout=20)
        assert time.monotonic() - begin < 5
    assert process.returncode == code
    assert (out, "Traceback" in err) == ("", False)
    if endless_part == "storage":
        assert "Task 1 (training) of population digits" in err
        assert f"odp-task push --resume {artifacts}" in err
