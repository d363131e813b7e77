"""The task management server on loopback: it creates tasks, keeps to one active task of a kind, and says what it would start.

To try pushes out by hand: PYTHONPATH=tests python -m fakes.task_server --port 8082 --bucket demo
"""

from __future__ import annotations

import argparse
import re
import threading
import urllib.parse
from typing import Optional

from fakes.faults import FaultPlan, FaultyServer, Reply
from fakes.gcs import FakeGcs
from odp_taskbuilder.proto import task_pb2

_CREATE = re.compile(r"^/taskmanagement/v1/population/([^/:]+):create-task$")
_GET = re.compile(r"^/taskmanagement/v1/population/([^/:]+)/tasks/(\d+):get$")
_ACTIVE = (task_pb2.TaskStatus.CREATED, task_pb2.TaskStatus.OPEN)


class FakeTaskServer:
    """Tasks in memory.

    Attributes:
      tasks: population -> tasks, in the order of their ids.
      num_partitions: storage partitions, each with URLs of its own.
    """

    def __init__(self, plan: Optional[FaultPlan] = None, bucket: str = "bucket", num_partitions: int = 1):
        self.plan = plan or FaultPlan()
        self.bucket = bucket
        self.num_partitions = num_partitions
        self.tasks: dict[str, list[task_pb2.Task]] = {}
        self._lock = threading.Lock()

    def serve(self, port: int = 0) -> FaultyServer:
        return FaultyServer(self.plan, self.reply, port)

    def all_tasks(self) -> list[task_pb2.Task]:
        return [task for tasks in self.tasks.values() for task in tasks]

    def reply(self, method: str, path: str, headers: dict, body: bytes) -> Reply:
        with self._lock:
            if method == "POST" and (match := _CREATE.match(path)):
                return self._create(urllib.parse.unquote(match[1]), task_pb2.CreateTaskRequest.FromString(body).task)
            if method == "GET" and (match := _GET.match(path)):
                tasks = self.tasks.get(urllib.parse.unquote(match[1]), [])
                found = [task for task in tasks if task.task_id == int(match[2])]
                return _protobuf(task_pb2.GetTaskByIdResponse(task=found[0])) if found else Reply(404, b"unknown task")
        return Reply(404, b"unknown path")

    def _create(self, population: str, task: task_pb2.Task) -> Reply:
        tasks = self.tasks.setdefault(population, [])
        kind = task.info.WhichOneof("info")
        if any(other.status in _ACTIVE and other.info.WhichOneof("info") == kind for other in tasks):
            return Reply(500, b"internal error")  # The framework's answer to an uncaught FAILED_PRECONDITION.
        task.population_name = population
        task.task_id = 1 + max((other.task_id for other in tasks), default=0)
        task.status = task_pb2.TaskStatus.CREATED
        task.created_time.seconds = 1700000000
        for partition in range(self.num_partitions):
            folder = f"gs://{self.bucket}/{population}/{task.task_id}/0/s/{partition}"
            task.client_only_plan_url.append(f"{folder}/client_only_plan")
            task.server_phase_url.append(f"{folder}/server_phase")
            task.init_checkpoint_url.append(f"{folder}/checkpoint")
            task.metrics_url.append(f"{folder}/metrics")
        tasks.append(task)
        return _protobuf(task_pb2.CreateTaskResponse(task=task))


def can_start(task: task_pb2.Task, gcs: FakeGcs) -> bool:
    """Whether a round of the task would begin: the server looks only whether the objects exist."""
    needed = [*task.client_only_plan_url, *task.server_phase_url]
    if task.info.WhichOneof("info") == "training_info":
        needed += task.init_checkpoint_url
    return all(gcs.content(url) is not None for url in needed)


def _protobuf(message: object) -> Reply:
    return Reply(200, message.SerializeToString(), content_type="application/x-protobuf")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A task management server that keeps its tasks in memory.")
    parser.add_argument("--port", type=int, default=8082)
    parser.add_argument("--bucket", default="demo", help="Where tasks want their artifacts.")
    arguments = parser.parse_args()
    with FakeTaskServer(bucket=arguments.bucket).serve(arguments.port) as server:
        print(f"Listening on {server.url}", flush=True)
        threading.Event().wait()
