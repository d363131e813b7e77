"""`odp-task serve` as a process of its own, with builds that take no time (fakes/builds.py), and requests to it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import requests

from odp_taskbuilder.proto import task_builder_pb2

_TESTS = pathlib.Path(__file__).resolve().parent
PROTOBUF = {"Content-Type": "application/x-protobuf"}
ERROR = task_builder_pb2.ErrorType


class Server:
    """A running server.

    Attributes:
      url: where it listens.
      log: its log so far, a dictionary for each line of JSON.
    """

    def __init__(self, process: subprocess.Popen):
        self.process = process
        self.log: list[dict] = []
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._listening.wait(30), self.log

    def _read(self) -> None:
        for line in self.process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"event": "text", "text": line}
            self.log.append(entry)
            if entry["event"] == "listening":
                self.url = f"http://127.0.0.1:{entry['port']}"
                self._listening.set()
        self._listening.set()

    def post(self, request: task_builder_pb2.BuildTaskRequest, artifacts: bool = False, **options) -> requests.Response:
        path = "/taskbuilder/v1:build-artifacts" if artifacts else "/taskbuilder/v1:build-task-group"
        return requests.post(self.url + path, request.SerializeToString(), **{"headers": PROTOBUF, "timeout": 60, **options})

    def settle(self) -> None:
        """Waits until the server has found out what its sandbox prevents; until then it has more children than it keeps."""
        end = time.monotonic() + 60
        while not any(entry["event"] == "sandbox" for entry in self.log):
            assert time.monotonic() < end, self.log
            time.sleep(0.02)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        self.process.send_signal(signum)
        code = self.process.wait(30)
        self._reader.join(10)
        return code

    def descendants(self) -> list[int]:
        """Process ids of all that the server has started, and what they have started."""
        found, waiting = [], [self.process.pid]
        while waiting:
            parent = waiting.pop()
            with contextlib.suppress(OSError):
                for task in os.listdir(f"/proc/{parent}/task"):
                    children = [int(pid) for pid in pathlib.Path(f"/proc/{parent}/task/{task}/children").read_text().split()]
                    found += children
                    waiting += children
        return found


@contextlib.contextmanager
def running_server(*options: str, build: str = "fakes.builds:build", env=None):
    function = ["--build_function", build] if build else []
    command = [
        sys.executable,
        "-c",
        "from odp_taskbuilder.cli.main import main; main()",
        "serve",
        "--port",
        "0",
        # What the kernel of the machine grants is not what these tests are about.
        "--accept_weaker_sandbox",
        *function,
        *options,
    ]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(_TESTS), **(env or {})}
    )
    try:
        yield Server(process)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)
        process.stderr.close()


def wait_until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def wait_for_connection(process: subprocess.Popen, url: str) -> None:
    """Waits until a process has a connection to a server."""
    port = f":{int(url.rpartition(':')[2]):04X} 01 "
    wait_until(lambda: port in pathlib.Path(f"/proc/{process.pid}/net/tcp").read_text())


def config(population: str = "digits", folder: str = "", evaluation: bool = False) -> task_builder_pb2.TaskConfig:
    """A valid task config; with a folder also destinations for artifact-only builds."""
    result = task_builder_pb2.TaskConfig(mode=task_builder_pb2.TaskMode.TRAINING_ONLY, population_name=population)
    result.policies.model_release_policy.num_max_training_rounds = 10
    learning = result.federated_learning.learning_process
    learning.runtime_config.report_goal = 2
    result.differential_privacy.clip_norm = 0.1
    result.differential_privacy.noise_multiplier = 1.0
    destinations = [("", learning.artifact_building)]
    if evaluation:
        result.mode = task_builder_pb2.TaskMode.TRAINING_AND_EVAL
        result.federated_learning.evaluation.report_goal = 2
        result.federated_learning.evaluation.source_training_task_id = 1
        result.federated_learning.evaluation.evaluation_traffic = 0.1
        destinations.append(("eval_", result.federated_learning.evaluation.artifact_building))
    for prefix, building in destinations if folder else ():
        building.plan_url = f"{folder}/{prefix}plan.pb"
        building.client_plan_url = f"{folder}/{prefix}client_only_plan.pb"
        building.checkpoint_url = f"{folder}/{prefix}initial_state.server.ckp"
    return result


def build_request(model: object, task_config: task_builder_pb2.TaskConfig) -> task_builder_pb2.BuildTaskRequest:
    request = task_builder_pb2.BuildTaskRequest(task_config=task_config)
    request.saved_model.uri = str(model)
    return request


def parsed(response: requests.Response) -> task_builder_pb2.BuildTaskResponse:
    assert response.headers["Content-Type"] == "application/x-protobuf"
    return task_builder_pb2.BuildTaskResponse.FromString(response.content)


def make_model(path: pathlib.Path) -> pathlib.Path:
    (path / "variables").mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(b"model")
    (path / "variables" / "variables.index").write_bytes(b"index")
    return path
