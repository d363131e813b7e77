"""One round of a task on made-up examples, from its files alone: what servers and devices would do, in a sandbox.

Plans are programs. Those of strangers run without network, and cannot write or read anything but what they are given.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from odp_taskbuilder import errors, sandbox
from odp_taskbuilder.artifacts import artifact_set
from odp_taskbuilder.artifacts.checkpoint_reader import open_checkpoint
from odp_taskbuilder.artifacts.client_graph import ClientGraph, describe_client_graph
from odp_taskbuilder.data import tfrecord
from odp_taskbuilder.data.synthetic import Feature, SyntheticClientData
from odp_taskbuilder.inspection import wild_clients
from odp_taskbuilder.inspection.wild_clients import WildUpdate, WildUpdates
from odp_taskbuilder.ops.tflite import read_tflite

_CLIENTS = 2
# Enough for a full batch and a partial one, without making a large batch size costly.
_MAX_EXAMPLES = 40
# Imported once for all rounds, before the sandboxes are entered.
_PRELOAD = ("odp_taskbuilder.runtime.client_runtime", "odp_taskbuilder.runtime.server_runtime")
# Labels are 0 or 1: in range for any classifier.
_CLASSES = 2
_LIMITS = sandbox.SandboxLimits(wall_seconds=300, cpu_seconds=600)


@dataclasses.dataclass(frozen=True)
class TrialRound:
    """What one round did.

    Attributes:
      plan_bytes, download_bytes: what each device downloaded.
      upload_bytes: sizes of the updates, one per device.
      client_seconds: what the client plan took, by device.
      metrics: what the server published.
    """

    plan_bytes: int
    download_bytes: int
    upload_bytes: tuple[int, ...]
    client_seconds: tuple[float, ...]
    metrics: Mapping[str, float]


class TrialRounds:
    """Runs rounds, each in a sandbox of its own.

        with TrialRounds() as trial:
            trial.run(directory, "", directory / "initial_state.server.ckp")

    Entering takes about 5 s, in which TensorFlow is loaded, and a round about 2 s.
    """

    def __enter__(self) -> TrialRounds:
        self._zygote = sandbox.Zygote(preload=_PRELOAD)
        return self

    def __exit__(self, *exception: object) -> None:
        self._zygote.close()

    def run(self, directory: pathlib.Path, prefix: str, checkpoint: pathlib.Path) -> TrialRound:
        """Runs one round of a task.

        Args:
          directory: of the artifacts.
          prefix: of the task's file names.
          checkpoint: the server checkpoint to start from.

        Raises:
          ArtifactError: server or device could not do its part.
          ModelError: the process that ran them crashed, or was ended at a limit.
        """
        result = self._in_sandbox("_run_round", directory, prefix, checkpoint)
        return TrialRound(
            int(result["plan_bytes"]),
            int(result["download_bytes"]),
            tuple(map(int, result["upload_bytes"])),
            tuple(map(float, result["client_seconds"])),
            {str(name): float(value) for name, value in result["metrics"].items()},
        )

    def run_wild_clients(self, directory: pathlib.Path, prefix: str, checkpoint: pathlib.Path) -> WildUpdates:
        """Runs the client plan on examples that nobody would send.

        Args:
          As for `run`.

        Raises:
          As `run`. A device that fails on such examples is none: it reports nothing.
        """
        result = self._in_sandbox("_run_wild_clients", directory, prefix, checkpoint)
        updates = (
            WildUpdate(
                str(update["client"]),
                None if update["failure"] is None else str(update["failure"]),
                tuple(map(str, update["not_finite"])),
                None if update["norm"] is None else float(update["norm"]),
            )
            for update in result["updates"]
        )
        return WildUpdates(None if result["clip"] is None else float(result["clip"]), tuple(updates))

    def _in_sandbox(self, function: str, directory: pathlib.Path, prefix: str, checkpoint: pathlib.Path) -> dict[str, Any]:
        plan, client_plan = (
            directory.resolve() / (prefix + name) for name in (artifact_set.PLAN, artifact_set.CLIENT_ONLY_PLAN)
        )
        files = {"plan": str(plan), "client_only_plan": str(client_plan), "checkpoint": str(checkpoint.resolve())}
        with tempfile.TemporaryDirectory(prefix="odp-task-") as scratch:
            return self._zygote.run(f"{__name__}:{function}", files, scratch=scratch, readable=files.values(), limits=_LIMITS)


def _run_round(plan: str, client_only_plan: str, checkpoint: str) -> dict[str, Any]:
    """Runs in the sandbox, whose working directory is its scratch directory."""
    from odp_taskbuilder.runtime.client_runtime import ClientRuntime, load_client_only_plan
    from odp_taskbuilder.runtime.server_runtime import load_plan, open_server

    server = open_server(load_plan(plan))
    client_plan = load_client_only_plan(client_only_plan)
    graph = describe_client_graph(read_tflite(client_plan.tflite_graph), client_plan.tflite_graph, client_only_plan)
    data = SyntheticClientData(
        _features(graph),
        num_clients=_CLIENTS,
        num_examples=min(_MAX_EXAMPLES, (graph.batch_size or 1) + 1),
        classes=_CLASSES,
        seed=0,
    )
    server.write_client_checkpoint(checkpoint, "client_checkpoint")
    device = ClientRuntime(client_plan)
    updates, seconds = [], []
    for client_id in data.client_ids:
        tfrecord.write_records(pathlib.Path("examples"), data.examples(client_id))
        start = time.monotonic()
        device.run("examples", "client_checkpoint", f"update_{client_id}")
        seconds.append(time.monotonic() - start)
        updates.append(f"update_{client_id}")
    server.aggregate_updates(updates, "partial")
    metrics = server.apply(checkpoint, ["partial"], "new_checkpoint")
    return {
        "plan_bytes": os.path.getsize(client_only_plan),
        "download_bytes": os.path.getsize("client_checkpoint"),
        "upload_bytes": [os.path.getsize(update) for update in updates],
        "client_seconds": seconds,
        "metrics": metrics,
    }


def _run_wild_clients(plan: str, client_only_plan: str, checkpoint: str) -> dict[str, Any]:
    """Runs in the sandbox, whose working directory is its scratch directory."""
    from odp_taskbuilder.runtime.client_runtime import ClientRuntime, load_client_only_plan
    from odp_taskbuilder.runtime.server_runtime import load_plan, open_server

    client_plan = load_client_only_plan(client_only_plan)
    graph = describe_client_graph(read_tflite(client_plan.tflite_graph), client_plan.tflite_graph, client_only_plan)
    open_server(load_plan(plan)).write_client_checkpoint(checkpoint, "client_checkpoint")
    clip = wild_clients.clip_of(_tensors("client_checkpoint"))
    device = ClientRuntime(client_plan)
    updates = []
    for client, records in wild_clients.wild_clients(_features(graph)):
        tfrecord.write_records(pathlib.Path("examples"), records)
        try:
            device.run("examples", "client_checkpoint", "update")
            update = wild_clients.check_update(client, _tensors("update"), clip)
        except errors.ArtifactError as error:
            update = WildUpdate(client, error.message, (), None)
        updates.append(dataclasses.asdict(update))
    return {"clip": clip, "updates": updates}


def _features(graph: ClientGraph) -> list[Feature]:
    return [Feature(feature.name, feature.dtype, feature.shape) for feature in graph.features]


def _tensors(checkpoint: str) -> dict[str, np.ndarray]:
    with open_checkpoint(checkpoint) as opened:
        return {tensor.name: opened.read(tensor.name) for tensor in opened.tensors}
