"""P1 and P2: every request of a push, every fault, once, for good, and followed by another; then the same push again."""

import pytest
from fakes.faults import FAULTS, TRANSIENT, FaultPlan
from fakes.task_server import can_start
from pushing import expected_content, run_hastily, running_cloud, save_artifacts

# Beyond 8 MiB the storage client uploads in chunks: one request to begin, two to send.
_CHUNKED_BYTES = (8 << 20) + 4096
# A push that nothing disturbs: look up the largest id, create, twice; look, upload, look again, six times; two more chunks.
_NUM_REQUESTS = 3 + 2 + 18 + 2


def _push(monkeypatch, capfd, cloud, artifacts, *options):
    return run_hastily(monkeypatch, capfd, "push", str(artifacts), "--task_management_server", cloud.task_server.url, *options)


def _check(monkeypatch, capfd, artifacts, plan):
    """Pushes under faults, looks at what is there, pushes again without faults, and looks again."""
    with running_cloud(monkeypatch) as cloud:
        cloud.strike(plan)
        journal = artifacts.with_name("digits.push.json")
        journal.unlink(missing_ok=True)
        code, _, err = _push(monkeypatch, capfd, cloud, artifacts)
        plan.over.set()

        assert plan.num_fired >= 1
        assert "Traceback" not in err
        assert cloud.gcs.unconditional_uploads == []
        if code == 0:
            assert cloud.is_complete(artifacts)
        else:
            assert not (plan.fault in TRANSIENT and not plan.persistent), err
            _check_failure(cloud, artifacts, code, err)

        there = {key: stored.generation for key, stored in cloud.gcs.objects.items()}
        cloud.strike(FaultPlan())
        options = ["--resume"] if "--resume" in err else []
        code, _, err = _push(monkeypatch, capfd, cloud, artifacts, *options)
        assert (code, cloud.is_complete(artifacts)) == (0, True), err
        assert {key: cloud.gcs.objects[key].generation for key in there} == there  # Nothing was sent twice.


def _check_failure(cloud, artifacts, code, err):
    assert code in (7, 8), err
    assert "http://127.0.0.1" in err or "gs://bucket/" in err
    for task in cloud.tasks.all_tasks():
        # What the server would start is whole, and ours.
        if can_start(task, cloud.gcs):
            assert all(cloud.gcs.content(url) == content for url, content in expected_content(artifacts, task).items())
        else:
            assert code == 8
            assert "odp-task push --resume" in err
    for entry in cloud.plan.log:
        if "create-task" in entry.path and entry.status == 200 and entry.fault is None:
            assert "Task 1 (training)" in err


@pytest.mark.parametrize("persistent", [False, True], ids=["once", "persistent"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_leaves_nothing_half_started_and_the_next_push_completes(fault, persistent, tmp_path, monkeypatch, capfd):
    artifacts = save_artifacts(tmp_path / "digits")
    # Every fault at another request, and, over all faults, at most of them.
    index = (FAULTS.index(fault) * 2 + persistent) * 7 % 23
    _check(monkeypatch, capfd, artifacts, FaultPlan(fault, index, persistent))


# Which request creates the first task, and which the second.
@pytest.mark.parametrize("index", [1, 4], ids=["first", "second"])
@pytest.mark.parametrize("then", FAULTS)
def test_a_task_whose_answer_is_lost_is_not_forgotten_whatever_comes_next(index, then, tmp_path, monkeypatch, capfd):
    artifacts = save_artifacts(tmp_path / "digits")
    _check(monkeypatch, capfd, artifacts, FaultPlan("done_answer_lost", index, then=then))


@pytest.mark.full
@pytest.mark.parametrize("then", FAULTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_after_every_other(fault, then, tmp_path, monkeypatch, capfd):
    artifacts = save_artifacts(tmp_path / "digits")
    for index in (1, 4, 12):  # At the creation of each task, and at an upload.
        _check(monkeypatch, capfd, artifacts, FaultPlan(fault, index, then=then))


@pytest.mark.full
@pytest.mark.parametrize("persistent", [False, True], ids=["once", "persistent"])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_request_index_with_a_chunked_upload(fault, persistent, tmp_path, monkeypatch, capfd):
    artifacts = save_artifacts(tmp_path / "digits", checkpoint_bytes=_CHUNKED_BYTES)
    for index in range(_NUM_REQUESTS):
        _check(monkeypatch, capfd, artifacts, FaultPlan(fault, index, persistent))


def test_an_undisturbed_push_has_the_requests_that_the_faults_are_spread_over(tmp_path, monkeypatch, capfd):
    artifacts = save_artifacts(tmp_path / "digits", checkpoint_bytes=_CHUNKED_BYTES)
    with running_cloud(monkeypatch) as cloud:
        code, _, err = _push(monkeypatch, capfd, cloud, artifacts)
        assert (code, cloud.is_complete(artifacts), len(cloud.plan.log)) == (0, True, _NUM_REQUESTS), err
