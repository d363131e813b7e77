"""What a worker adds up itself is, to the last bit, what the server plan's own accumulation makes of the same updates."""

import pytest

from odp_taskbuilder.simulation.deployment import load_deployment


@pytest.mark.parametrize("form, is_summed", [("plain", True), ("plain_daf", True), ("private", True), ("compressed", False)])
def test_a_worker_sums_as_the_plan_does_and_leaves_to_it_what_is_no_sum(form, is_summed, tasks, clients, tmp_path):
    # They load TensorFlow; collecting the tests should not.
    from odp_taskbuilder.proto import plan_pb2
    from odp_taskbuilder.runtime import client_runtime, server_runtime
    from odp_taskbuilder.simulation.jobs import Cohort, WorkerSetup
    from odp_taskbuilder.simulation.worker import ClientWorker

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

    (tmp_path / "scratch").mkdir()
    worker = ClientWorker(WorkerSetup({1: task}, {1: str(clients / "train")}, str(tmp_path / "scratch")))
    ids = tuple(path.stem for path in paths)
    cohort = Cohort(task_id=1, checkpoint=str(checkpoint), client_ids=ids, directory=str(tmp_path))
    # The first session tries it out.
    for number in range(2):
        session = cohort.session(number, ids)
        assert worker(session).reports == len(ids)
        assert (tmp_path / f"partial_{number}").read_bytes() == (tmp_path / "expected").read_bytes()
    assert worker.tasks[1].adds_up is is_summed
    assert (tmp_path / "scratch" / "sum").exists() is is_summed
