"""Built artifacts to push, and the two servers to push them to."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import random
import signal

from fakes.faults import FaultPlan
from fakes.gcs import FakeGcs
from fakes.task_server import FakeTaskServer
from google.protobuf import text_format

from odp_taskbuilder.artifacts import artifact_set, directory
from odp_taskbuilder.cli import main
from odp_taskbuilder.proto import task_pb2
from odp_taskbuilder.transport import deadline

# Retries at full speed; a stalled server is given up after a seventh of a second.
PACE = {"connect_timeout": 2.0, "silence": 0.15, "retry_for": 0.4, "first_pause": 0.001, "longest_pause": 0.004}
HASTY = deadline.Network(deadline=20.0, **PACE)

_FILES = {"checkpoint": "initial_state.server.ckp", "client_only_plan": "client_only_plan.pb", "server_phase": "plan.pb"}


def training_task() -> task_pb2.Task:
    task = task_pb2.Task(population_name="digits", total_iteration=10, min_aggregation_size=2, max_aggregation_size=3)
    task.min_client_version, task.max_client_version = "341912000", "999999999"
    task.info.traffic_weight = 100
    task.info.training_info.eligibility_task_info.eligibility_policies.add().min_sep_policy.minimum_separation = 3
    return task


def evaluation_task() -> task_pb2.Task:
    task = task_pb2.Task(population_name="digits", total_iteration=10, min_aggregation_size=2, max_aggregation_size=2)
    task.min_client_version, task.max_client_version = "0", "999999999"
    task.info.traffic_weight = 10
    task.info.evaluation_info.check_point_selector.iteration_selector.size = 1
    task.info.evaluation_info.training_population_name = "digits"
    task.info.evaluation_info.training_task_id = 1
    return task


def artifact_only_task(folder: str, prefix: str = "") -> task_pb2.Task:
    return task_pb2.Task(
        min_client_version="341912000",
        client_only_plan_url=[f"{folder}/{prefix}client_only_plan.pb"],
        server_phase_url=[f"{folder}/{prefix}plan.pb"],
        init_checkpoint_url=[f"{folder}/{prefix}initial_state.server.ckp"],
    )


def save_artifacts(
    target: pathlib.Path, *, seed: int = 0, checkpoint_bytes: int = 3000, training=None, evaluation=None
) -> pathlib.Path:
    """Writes a directory as `odp-task build` does, with random bytes for plans and checkpoints."""
    rng = random.Random(seed)

    def artifacts(task, num_bytes):
        checkpoint = rng.randbytes(num_bytes)
        text = text_format.MessageToString(task)
        return artifact_set.TaskArtifacts(
            rng.randbytes(2000), rng.randbytes(1000), lambda path: path.write_bytes(checkpoint), text
        )

    built = artifact_set.ArtifactSet(
        artifacts(training or training_task(), checkpoint_bytes), artifacts(evaluation or evaluation_task(), 500), ""
    )
    directory.save(built, target, form="MapReduce", inputs={}, overwrite=True)
    return target


def expected_content(artifacts: pathlib.Path, task: task_pb2.Task) -> dict[str, bytes]:
    """What belongs at each destination of a task that the server created."""
    prefix = "eval_" if task.info.WhichOneof("info") == "evaluation_info" else ""
    urls = [*task.client_only_plan_url, *task.server_phase_url, *task.init_checkpoint_url]
    return {url: (artifacts / f"{prefix}{_FILES[url.rpartition('/')[2]]}").read_bytes() for url in urls}


class Cloud:
    """A bucket server and a task server that share a fault plan."""

    def __init__(self):
        self.gcs = FakeGcs()
        self.tasks = FakeTaskServer()

    def strike(self, plan: FaultPlan) -> FaultPlan:
        """Starts a new log, with other faults."""
        self.plan = self.gcs_server.plan = self.task_server.plan = plan
        return plan

    def is_complete(self, artifacts: pathlib.Path) -> bool:
        """Whether both tasks are there, once, with exactly these artifacts."""
        kinds = sorted(task.info.WhichOneof("info") for task in self.tasks.all_tasks())
        return kinds == ["evaluation_info", "training_info"] and all(
            self.gcs.content(url) == content
            for task in self.tasks.all_tasks()
            for url, content in expected_content(artifacts, task).items()
        )


@contextlib.contextmanager
def running_cloud(monkeypatch):
    cloud = Cloud()
    with cloud.gcs.serve() as cloud.gcs_server, cloud.tasks.serve() as cloud.task_server:
        cloud.strike(FaultPlan())
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud.gcs_server.url)
        yield cloud
        cloud.plan.over.set()


def run_hastily(monkeypatch, capfd, *args: str) -> tuple[int, str, str]:
    """Runs a command in this process without its pauses; returns exit code, stdout and stderr."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with monkeypatch.context() as patch:
            hasty = functools.partial(_hasty, deadline.Network)
            patch.setattr(deadline, "Network", hasty)
            code = main.run(args)
    finally:
        signal.signal(signal.SIGTERM, handler)
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def _hasty(network: type, **values: float) -> deadline.Network:
    return network(**{**PACE, "deadline": values.get("deadline", 20.0)})
