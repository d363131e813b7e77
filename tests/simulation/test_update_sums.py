"""What a worker adds up itself is what the server plan's own accumulation makes of the same updates."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from odp_taskbuilder.simulation.deployment import load_deployment


@dataclasses.dataclass
class Updates:
    """Updates of five clients in files, and the server that takes them."""

    task: Any
    server: Any
    checkpoint: Any
    clients: list
    files: list


@pytest.fixture
def updates_of(tasks, clients, tmp_path):
    def updates_of(form):
        # They load TensorFlow; collecting the tests should not.
        from odp_taskbuilder.proto import plan_pb2
        from odp_taskbuilder.runtime import client_runtime, server_runtime

        deployment = load_deployment(tasks / form / "digits", 1000, 24.0)
        task = deployment.training
        server = server_runtime.open_server(plan_pb2.Plan.FromString(task.plan), keep_session=True)
        checkpoint = tmp_path / "checkpoint"
        server.write_client_checkpoint(deployment.initial_checkpoint, checkpoint)
        device = client_runtime.ClientRuntime(plan_pb2.ClientOnlyPlan.FromString(task.client_only_plan))
        paths = sorted((clients / "train").iterdir())[:5]
        updates = []
        for path in paths:
            updates.append(tmp_path / f"update_{path.stem}")
            device.run(path, checkpoint, updates[-1])
        server.aggregate_updates(updates, tmp_path / "expected")
        return Updates(task, server, checkpoint, [path.stem for path in paths], updates)

    return updates_of


@pytest.mark.parametrize("form, is_summed", [("plain", True), ("plain_daf", True), ("private", True), ("compressed", False)])
def test_a_worker_sums_as_the_plan_does_and_leaves_to_it_what_is_no_sum(form, is_summed, updates_of, clients, tmp_path):
    from odp_taskbuilder.simulation.jobs import Cohort, WorkerSetup
    from odp_taskbuilder.simulation.worker import ClientWorker

    updates = updates_of(form)
    (tmp_path / "scratch").mkdir()
    worker = ClientWorker(WorkerSetup({1: updates.task}, {1: str(clients / "train")}, str(tmp_path / "scratch")))
    ids = tuple(updates.clients)
    cohort = Cohort(task_id=1, checkpoint=str(updates.checkpoint), client_ids=ids, directory=str(tmp_path))
    # The first session tries it out.
    for number in range(2):
        session = cohort.session(number, ids)
        assert worker(session).reports == len(ids)
        assert (tmp_path / f"partial_{number}").read_bytes() == (tmp_path / "expected").read_bytes()
    assert worker.tasks[1].adds_up is is_summed
    assert (tmp_path / "scratch" / "sum").exists() is is_summed


def test_a_sum_of_decoded_updates_goes_to_the_plan_as_codes_again(updates_of, tmp_path):
    from odp_taskbuilder.artifacts.coded_tensors import decoded
    from odp_taskbuilder.simulation.update_sums import adds_up, adds_up_decoded, coded_sums, read_tensors, write_tensors

    updates = updates_of("compressed")
    read = [read_tensors(path) for path in updates.files]
    total = {
        name: np.sum([decoded(update)[name] for update in read], axis=0, dtype=np.int64 if value.dtype.kind == "i" else np.float64)
        for name, value in decoded(read[0]).items()
    }
    paths = [tmp_path / "sum_0", tmp_path / "sum_1"]
    for path, part in zip(paths, coded_sums(total, read[0])):
        write_tensors(path, part)
    updates.server.aggregate_updates(paths, tmp_path / "coded")
    expected, found = read_tensors(tmp_path / "expected"), read_tensors(tmp_path / "coded")
    assert expected.keys() == found.keys() and any(value.size > 1000 for value in expected.values())
    for name, value in expected.items():
        assert np.linalg.norm(np.ravel(found[name] - value)) <= 5e-7 * np.linalg.norm(np.ravel(value)), name
    # That a plan does so is tried out.
    assert adds_up_decoded(updates.server, read[0], tmp_path)
    assert not adds_up(updates.server, read[0], tmp_path)

    class TakesTheLast:
        def aggregate_updates(self, paths, partial):
            updates.server.aggregate_updates(paths[-1:], partial)

    assert not adds_up_decoded(TakesTheLast(), read[0], tmp_path)
