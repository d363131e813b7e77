"""The journal of a push, and what a second push does with what the first one left."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest
from fakes.faults import FaultPlan, FaultyServer, Reply, json_reply
from pushing import HASTY, artifact_only_task, evaluation_task, expected_content, save_artifacts, training_task

from odp_taskbuilder import errors
from odp_taskbuilder.proto import task_pb2
from odp_taskbuilder.push import auth, push

FIRST_CREATE, SECOND_CREATE, FIRST_UPLOAD = 1, 4, 6


def _push(cloud, artifacts, **options):
    return push.push(artifacts, push.PushOptions(server=cloud.task_server.url, **options), HASTY)


def _journal(artifacts: pathlib.Path) -> dict:
    return json.loads(artifacts.with_name(f"{artifacts.name}.push.json").read_text())


def test_the_task_id_is_in_the_journal_before_the_first_upload(cloud, artifacts):
    seen = []
    cloud.gcs_server.reply = lambda *request: seen.append(_journal(artifacts)) or cloud.gcs.reply(*request)
    _push(cloud, artifacts)
    assert {role: entry["task_id"] for role, entry in seen[0]["tasks"].items()} == {"training": 1, "evaluation": 2}
    assert seen[0]["tasks"]["training"]["urls"]["plan"] == ["gs://bucket/digits/1/0/s/0/server_phase"]


def test_every_change_of_the_journal_is_synced_to_disk_before_the_next_request(cloud, artifacts, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")) or fsync(descriptor)
    )
    requests = []
    cloud.gcs_server.reply = lambda *request: requests.append(len(synced)) or cloud.gcs.reply(*request)
    _push(cloud, artifacts)
    # Two tasks, each asked for and named: file and directory of four journals, before the buckets hear of anything.
    assert requests[0] == 8
    assert synced[0].endswith(".digits.push.json.new")
    assert synced[1] == str(artifacts.parent)


def test_order_of_uploads(cloud, artifacts):
    urls = [pushed.url.removeprefix("gs://bucket/digits/") for pushed in _push(cloud, artifacts)]
    assert urls == [
        "1/0/s/0/checkpoint",
        "1/0/s/0/client_only_plan",
        "2/0/s/0/checkpoint",
        "2/0/s/0/client_only_plan",
        "2/0/s/0/server_phase",
        "1/0/s/0/server_phase",
    ]


def test_every_partition_gets_the_artifacts(cloud, artifacts):
    cloud.tasks.num_partitions = 2
    assert len(_push(cloud, artifacts)) == 12
    assert cloud.is_complete(artifacts)


def test_pushing_again_sends_nothing_and_creates_nothing(cloud, artifacts):
    _push(cloud, artifacts)
    cloud.strike(FaultPlan())
    assert {pushed.outcome.value for pushed in _push(cloud, artifacts)} == {"identical"}
    assert [entry.method for entry in cloud.plan.log if entry.method != "GET"] == []


def test_what_the_server_has_compressed_meanwhile_counts_as_identical(cloud, artifacts):
    _push(cloud, artifacts)
    cloud.gcs.gzip_in_place()
    cloud.strike(FaultPlan())
    assert {pushed.outcome.value for pushed in _push(cloud, artifacts)} == {"identical"}
    assert [entry.method for entry in cloud.plan.log if entry.method != "GET"] == []


@pytest.mark.parametrize("content_encoding", [None, "gzip"])
def test_an_object_with_other_content_is_refused_and_with_overwrite_replaced(cloud, artifacts, content_encoding):
    import gzip

    foreign = b"somebody else's plan"
    cloud.gcs.put(
        "bucket", "digits/1/0/s/0/client_only_plan", gzip.compress(foreign) if content_encoding else foreign, content_encoding
    )
    with pytest.raises(errors.TaskServerError, match="client_only_plan exists already, with other content") as failure:
        _push(cloud, artifacts)
    assert "--overwrite" in str(failure.value)
    assert cloud.gcs.content("gs://bucket/digits/1/0/s/0/client_only_plan") == foreign
    assert cloud.gcs.content("gs://bucket/digits/1/0/s/0/server_phase") is None
    outcomes = {
        pushed.url.rpartition("/")[2]: pushed.outcome.value
        for pushed in _push(cloud, artifacts, overwrite=True)
        if pushed.role == "training"
    }
    assert outcomes == {"checkpoint": "identical", "client_only_plan": "replaced", "server_phase": "written"}
    assert cloud.is_complete(artifacts)


def test_a_created_task_whose_answer_was_lost_is_found_again_in_the_same_push(cloud, artifacts):
    cloud.strike(FaultPlan("done_answer_lost", FIRST_CREATE))
    _push(cloud, artifacts)
    assert cloud.is_complete(artifacts)
    assert sum("create-task" in entry.path for entry in cloud.plan.log) == 2


def test_a_created_task_whose_answer_was_lost_is_found_again_by_the_next_push(cloud, artifacts):
    plan = cloud.strike(FaultPlan("done_answer_lost", FIRST_CREATE, persistent=True))
    with pytest.raises(errors.TaskServerError, match="is not known"):
        _push(cloud, artifacts)
    assert plan.num_fired > 1
    assert len(cloud.tasks.all_tasks()) == 1
    cloud.strike(FaultPlan())
    _push(cloud, artifacts, resume=True)
    assert cloud.is_complete(artifacts)
    assert sum("create-task" in entry.path for entry in cloud.plan.log) == 1  # The evaluation task.


def test_a_created_task_is_not_forgotten_when_credentials_to_look_for_it_cannot_be_had(cloud, artifacts, monkeypatch):
    monkeypatch.setattr(auth, "access_token", lambda http: "access-token")

    def iam(method, path, headers, body):
        return json_reply(503, {}) if cloud.tasks.all_tasks() else json_reply(200, {"token": "a.b.c"})

    login = auth.Login(impersonate_service_account="robot@p.iam.gserviceaccount.com")
    cloud.strike(FaultPlan("done_answer_lost", FIRST_CREATE))
    with FaultyServer(FaultPlan(), iam) as server:
        monkeypatch.setattr(auth, "_IAM_CREDENTIALS", server.url)
        with pytest.raises(errors.TaskServerError, match="Cannot act as robot@p.iam") as failure:
            _push(cloud, artifacts, login=login)
    assert "Whether the training task of population digits was created" in str(failure.value)
    command = f"odp-task push --resume {artifacts} --impersonate_service_account robot@p.iam.gserviceaccount.com"
    assert failure.value.next_step.endswith(command)
    _push(cloud, artifacts, resume=True)
    assert cloud.is_complete(artifacts)


def test_nothing_is_asked_for_that_cannot_be_noted(cloud, artifacts):
    # In the way of what is written first; permissions would not stop a superuser.
    in_the_way = artifacts.with_name(".digits.push.json.new")
    in_the_way.mkdir()
    with pytest.raises(errors.StorageError, match=r"Cannot write the journal .*digits\.push\.json") as failure:
        _push(cloud, artifacts)
    assert "make that place writable" in failure.value.next_step
    assert "--resume" not in str(failure.value)
    assert cloud.tasks.all_tasks() == []
    in_the_way.rmdir()
    _push(cloud, artifacts)
    assert cloud.is_complete(artifacts)


def test_a_task_of_somebody_else_is_not_taken_for_ours(cloud, artifacts):
    other = training_task()
    other.total_iteration = 99
    assert cloud.tasks._create("digits", other).status == 200
    with pytest.raises(
        errors.TaskServerError, match="Population digits has training task 1, which is CREATED. .*: nothing was created."
    ):
        _push(cloud, artifacts)
    assert not artifacts.with_name("digits.push.json").exists() or _journal(artifacts)["tasks"] == {}
    assert len(cloud.tasks.all_tasks()) == 1


def _earlier_tasks(cloud, *tasks):
    """Fills the population with tasks of a kind and a status each."""
    for number, (kind, status) in enumerate(tasks, start=1):
        task = task_pb2.Task(task_id=number, status=status, total_iteration=5)
        getattr(task.info, f"{kind}_info").SetInParent()
        cloud.tasks.tasks.setdefault("digits", []).append(task)


def test_an_open_evaluation_is_noticed_before_anything_is_created_and_the_training_task_goes_alone(cloud, artifacts):
    done, open_ = task_pb2.TaskStatus.COMPLETED, task_pb2.TaskStatus.OPEN
    _earlier_tasks(cloud, ("training", done), ("evaluation", open_))
    with pytest.raises(errors.TaskServerError) as failure:
        _push(cloud, artifacts)
    assert "Population digits has evaluation task 2, which is OPEN." in failure.value.message
    assert f"`odp-task push --training_only {artifacts}`" in failure.value.next_step
    assert not artifacts.with_name("digits.push.json").exists()
    assert len(cloud.tasks.all_tasks()) == 2 and cloud.gcs.objects == {}

    pushed = _push(cloud, artifacts, training_only=True)
    assert {done.role for done in pushed} == {"training"}
    assert [task.info.WhichOneof("info") for task in cloud.tasks.all_tasks()[2:]] == ["training_info"]
    # The evaluation task follows when the other one has ended, and nothing is sent twice.
    cloud.tasks.all_tasks()[1].status = done
    sent = dict(cloud.gcs.objects)
    _push(cloud, artifacts)
    evaluation = cloud.tasks.all_tasks()[3]
    assert evaluation.info.evaluation_info.training_task_id == 3
    assert all(cloud.gcs.objects[key] is stored for key, stored in sent.items())
    assert all(cloud.gcs.content(url) == content for url, content in expected_content(artifacts, evaluation).items())


def test_all_that_is_in_the_way_is_told_at_once(cloud, artifacts):
    created, open_ = task_pb2.TaskStatus.CREATED, task_pb2.TaskStatus.OPEN
    _earlier_tasks(cloud, ("evaluation", open_), ("training", created))
    with pytest.raises(errors.TaskServerError) as failure:
        _push(cloud, artifacts)
    assert "training task 2, which is CREATED. Population digits has evaluation task 1, which is OPEN." in failure.value.message
    assert "--training_only" not in failure.value.next_step and "another population" in failure.value.next_step


@pytest.mark.parametrize(("options", "source"), [({}, 8), ({"source_training_task_id": 5}, 5)])
def test_the_evaluation_reads_the_checkpoints_of_the_training_task_that_is_created_with_it(cloud, artifacts, options, source):
    _earlier_tasks(cloud, *[("training", task_pb2.TaskStatus.COMPLETED)] * 7)
    _push(cloud, artifacts, **options)
    training, evaluation = cloud.tasks.all_tasks()[7:]
    assert (training.task_id, evaluation.task_id) == (8, 9)
    assert evaluation.info.evaluation_info.training_task_id == source


def test_an_evaluation_of_another_population_keeps_its_source(cloud, tmp_path):
    task = evaluation_task()
    task.info.evaluation_info.training_population_name = "letters"
    task.info.evaluation_info.training_task_id = 4
    _earlier_tasks(cloud, ("training", task_pb2.TaskStatus.COMPLETED))
    _push(cloud, save_artifacts(tmp_path / "digits", evaluation=task))
    assert cloud.tasks.all_tasks()[-1].info.evaluation_info.training_task_id == 4


def test_options_about_tasks_that_are_not_there_are_refused(cloud, artifacts):
    with pytest.raises(errors.UsageError, match="is for an evaluation task, and none is pushed"):
        _push(cloud, artifacts, training_only=True, source_training_task_id=1)
    assert cloud.tasks.all_tasks() == []


def test_ids_beyond_many_earlier_tasks(cloud, artifacts):
    for number in range(1, 38):
        done = task_pb2.Task(task_id=number, status=task_pb2.TaskStatus.COMPLETED)
        cloud.tasks.tasks.setdefault("digits", []).append(done)
    cloud.strike(FaultPlan("done_answer_lost", 12 + 37))
    _push(cloud, artifacts)
    assert cloud.plan.log[12 + 37].method == "POST"
    assert [task.task_id for task in cloud.tasks.all_tasks()[37:]] == [38, 39]
    assert sum("create-task" in entry.path for entry in cloud.plan.log) == 2


def test_a_server_for_which_every_task_exists(cloud, artifacts):
    answer = task_pb2.GetTaskByIdResponse(task=task_pb2.Task(task_id=1)).SerializeToString()
    cloud.task_server.reply = lambda *request: Reply(200, answer)
    with pytest.raises(errors.TaskServerError, match="says that every task exists"):
        _push(cloud, artifacts)


def test_a_refused_task_leaves_no_trace(cloud, artifacts):
    cloud.strike(FaultPlan("403", FIRST_CREATE))
    with pytest.raises(errors.TaskServerError, match="Failed to create tasks by task management service: 403"):
        _push(cloud, artifacts)
    assert _journal(artifacts)["tasks"] == {}
    # So other artifacts may be pushed next.
    save_artifacts(artifacts, seed=1)
    _push(cloud, artifacts)
    assert cloud.is_complete(artifacts)


def test_a_second_task_that_is_refused_leaves_the_first_one_named(cloud, artifacts):
    cloud.strike(FaultPlan("403", SECOND_CREATE))
    with pytest.raises(errors.TaskServerError) as failure:
        _push(cloud, artifacts)
    assert "Task 1 (training) of population digits" in str(failure.value)
    assert f"odp-task push --resume {artifacts}" in failure.value.next_step


def test_other_artifacts_do_not_finish_an_unfinished_push(cloud, artifacts):
    cloud.strike(FaultPlan("403", FIRST_UPLOAD))
    with pytest.raises(errors.TaskServerError):
        _push(cloud, artifacts)
    save_artifacts(artifacts, seed=1)
    cloud.strike(FaultPlan())
    with pytest.raises(errors.TaskServerError, match="unfinished") as failure:
        _push(cloud, artifacts)
    assert "Task 1 (training)" in str(failure.value)
    assert cloud.plan.log == []
    save_artifacts(artifacts, seed=0)
    _push(cloud, artifacts, resume=True)
    assert cloud.is_complete(artifacts)


def test_after_a_complete_push_other_artifacts_become_new_tasks(cloud, artifacts):
    _push(cloud, artifacts)
    for task in cloud.tasks.all_tasks():
        task.status = task_pb2.TaskStatus.COMPLETED
    save_artifacts(artifacts, seed=1)
    assert {pushed.task_id for pushed in _push(cloud, artifacts)} == {3, 4}


def test_a_task_that_was_cancelled_meanwhile_is_not_filled(cloud, artifacts):
    cloud.strike(FaultPlan("403", FIRST_UPLOAD))
    with pytest.raises(errors.TaskServerError):
        _push(cloud, artifacts)
    cloud.tasks.tasks["digits"][0].status = task_pb2.TaskStatus.CANCELED
    cloud.strike(FaultPlan())
    with pytest.raises(errors.TaskServerError, match="Task 1 of population digits is CANCELED"):
        _push(cloud, artifacts)


def test_a_task_that_is_stored_otherwise_than_it_was_sent_gets_no_artifacts(cloud, artifacts):
    def reply(method, path, headers, body):
        return cloud.tasks.reply(method, path, headers, body.replace(b"341912000", b"341912001"))

    cloud.task_server.reply = reply
    with pytest.raises(errors.TaskServerError, match="created task 1, but not as it was sent"):
        _push(cloud, artifacts)
    assert cloud.gcs.objects == {}


def test_resume_without_an_earlier_push(cloud, artifacts):
    with pytest.raises(errors.UsageError, match="no push of .* to resume"):
        _push(cloud, artifacts, resume=True)
    assert cloud.plan.log == []


def test_resume_remembers_the_server(cloud, artifacts):
    cloud.strike(FaultPlan("403", FIRST_UPLOAD))
    with pytest.raises(errors.TaskServerError):
        _push(cloud, artifacts)
    cloud.strike(FaultPlan())
    push.push(artifacts, push.PushOptions(resume=True), HASTY)
    assert cloud.is_complete(artifacts)


def test_a_damaged_journal_is_not_overwritten(cloud, artifacts):
    journal = artifacts.with_name("digits.push.json")
    journal.write_text('{"version": 1, "tasks"')
    with pytest.raises(errors.StorageError, match="journal of an earlier push"):
        _push(cloud, artifacts)
    assert cloud.plan.log == []
    assert journal.read_text() == '{"version": 1, "tasks"'


def test_two_pushes_of_the_same_directory_do_not_meet(cloud, artifacts):
    inside, leave = threading.Event(), threading.Event()
    cloud.task_server.reply = lambda *request: inside.set() or leave.wait(10) and cloud.tasks.reply(*request)
    patient = push.push
    first = threading.Thread(target=lambda: patient(artifacts, push.PushOptions(server=cloud.task_server.url)))
    first.start()
    assert inside.wait(10)
    with pytest.raises(errors.StorageError, match="Another push"):
        _push(cloud, artifacts)
    leave.set()
    first.join()
    assert cloud.is_complete(artifacts)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://x/y",
        "gs://",
        "gs://bucket",
        "gs://bucket/",
        "gs:///object",
        "gs://bucket/a/../b",
        "gs://bucket//a",
        "file:///etc/passwd",
        "/tmp/x",
    ],
)
def test_destinations_that_a_server_must_not_name(cloud, artifacts, url):
    def reply(method, path, headers, body):
        answer = cloud.tasks.reply(method, path, headers, body)
        if method == "POST":
            task = task_pb2.CreateTaskResponse.FromString(answer.body).task
            task.server_phase_url[0] = url
            answer.body = task_pb2.CreateTaskResponse(task=task).SerializeToString()
        return answer

    cloud.task_server.reply = reply
    expected = url or "empty URI"
    with pytest.raises(errors.TaskServerError) as failure:
        _push(cloud, artifacts)
    assert f"Cannot build artifacts because createTask returns invalid URLs: {expected}" in str(failure.value)
    assert cloud.gcs.objects == {}


def test_a_damaged_artifact_is_not_pushed(cloud, artifacts):
    plan = bytearray((artifacts / "plan.pb").read_bytes())
    plan[100] ^= 1
    (artifacts / "plan.pb").write_bytes(plan)
    with pytest.raises(errors.ArtifactError, match=r"plan\.pb"):
        _push(cloud, artifacts)
    assert cloud.plan.log == []


@pytest.mark.parametrize("name", ["plan.pb", "eval_client_only_plan.pb", "initial_state.server.ckp"])
def test_a_missing_artifact_is_named(cloud, artifacts, name):
    (artifacts / name).unlink()
    with pytest.raises(errors.ArtifactError, match=name.replace(".", r"\.")):
        _push(cloud, artifacts)
    assert cloud.plan.log == []


def test_a_directory_without_tasks(cloud, tmp_path):
    with pytest.raises(errors.ArtifactError, match=r"no task\.pbtxt"):
        _push(cloud, tmp_path)


def test_artifacts_with_destinations_are_uploaded_and_no_task_is_created(cloud, tmp_path):
    artifacts = save_artifacts(
        tmp_path / "digits",
        training=artifact_only_task("gs://bucket/plans"),
        evaluation=artifact_only_task("gs://bucket/plans", "eval_"),
    )
    pushed = push.push(artifacts, network=HASTY)
    assert [p.url.rpartition("/")[2] for p in pushed][-1] == "plan.pb"
    assert {name: stored.data for (_, name), stored in cloud.gcs.objects.items()} == {
        f"plans/{path.name}": path.read_bytes() for path in artifacts.iterdir() if path.suffix in (".pb", ".ckp")
    }
    assert not any("taskmanagement" in entry.path for entry in cloud.plan.log)
    assert {p.outcome.value for p in push.push(artifacts, network=HASTY)} == {"identical"}


def test_artifacts_with_local_destinations(tmp_path):
    out = tmp_path / "out"
    artifacts = save_artifacts(
        tmp_path / "digits",
        training=artifact_only_task(f"file://{out}/training"),
        evaluation=artifact_only_task(str(out), "eval_"),
    )
    push.push(artifacts, network=HASTY)
    assert (out / "training" / "plan.pb").read_bytes() == (artifacts / "plan.pb").read_bytes()
    assert (out / "eval_plan.pb").read_bytes() == (artifacts / "eval_plan.pb").read_bytes()


def test_artifacts_with_destinations_take_no_server(cloud, tmp_path):
    artifacts = save_artifacts(
        tmp_path / "digits", training=artifact_only_task("gs://bucket/a"), evaluation=artifact_only_task("gs://bucket/b")
    )
    with pytest.raises(errors.UsageError, match="no task is created"):
        _push(cloud, artifacts)


_KILLED = """
import os, pathlib, signal, sys
from odp_taskbuilder.push import journal, push
steps = int(sys.argv[3])
original = getattr(journal.Journal, sys.argv[4])
def stop(self, *args):
    if sys.argv[5] == "after":
        original(self, *args)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(journal.Journal, sys.argv[4], stop)
push.push(pathlib.Path(sys.argv[1]), push.PushOptions(server=sys.argv[2]))
"""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", ["note_request", "note_task", "note_uploaded"])
def test_a_killed_push_is_finished_by_the_next_one(cloud, artifacts, step, moment):
    process = subprocess.run(
        [sys.executable, "-c", _KILLED, str(artifacts), cloud.task_server.url, "0", step, moment],
        capture_output=True,
        timeout=60,
    )
    assert process.returncode == -signal.SIGKILL
    _push(cloud, artifacts)
    assert cloud.is_complete(artifacts)
