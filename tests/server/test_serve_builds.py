"""Builds through the server: what it answers, and what is where afterwards."""

import concurrent.futures
import contextlib
import json
import pathlib
import subprocess
import sys

import pytest
from fakes.faults import FaultPlan
from fakes.silence import endless_server
from fakes.task_server import can_start
from pushing import running_cloud
from serving_process import ERROR, PROTOBUF, build_request, config, make_model, parsed, requests, running_server, wait_until


@pytest.fixture(scope="module")
def cloud():
    with pytest.MonkeyPatch.context() as patch, running_cloud(patch) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("serve")
    make_model(root / "models" / "digits")
    make_model(root / "models_old" / "digits")
    (root / "models" / "way_out").symlink_to(root / "models_old")
    (root / "out").mkdir()
    return root


@pytest.fixture(scope="module")
def server(root, cloud):
    cloud.gcs.buckets |= {"models", "other"}
    for name in ("digits/saved_model.pb", "digits/variables/variables.index"):
        cloud.gcs.put("models", name, b"model" if name.endswith("pb") else b"index")
    options = ["--allow_read", str(root / "models"), "--allow_read", "gs://models/digits"]
    options += ["--allow_write", f"file://{root}/out", "--allow_write", "gs://bucket/artifacts"]
    options += ["--task_management_server", cloud.task_server.url, "--work_dir", str(root / "work")]
    with running_server(*options) as server:
        yield server


@pytest.fixture
def fresh(cloud):
    """The servers behind the server, without faults and with nothing in them but the model."""
    cloud.strike(FaultPlan())
    cloud.tasks.tasks.clear()
    cloud.gcs.objects = {key: stored for key, stored in cloud.gcs.objects.items() if key[0] == "models"}
    return cloud


def test_a_task_group_is_created_and_complete(server, root, fresh):
    response = parsed(server.post(build_request(root / "models" / "digits", config(evaluation=True))))
    group = response.task_group
    assert (group.training_task.task_id, group.eval_task.task_id) == (1, 2)
    assert [group.training_task, group.eval_task] == fresh.tasks.all_tasks()
    assert all(can_start(task, fresh.gcs) for task in fresh.tasks.all_tasks())
    assert group.training_task.min_client_version == "341912000"
    assert response.task_report.applied_algorithms.learning_algo == 1
    assert fresh.gcs.content("gs://bucket/digits/1/0/s/0/checkpoint") == b"checkpoint"


def test_a_model_in_a_bucket(server, fresh):
    response = parsed(server.post(build_request("gs://models/digits/", config())))
    assert response.task_group.training_task.task_id == 1, response


@pytest.mark.parametrize("place", ["file", "path", "gs"])
def test_artifacts_without_a_task_go_where_the_config_says(server, root, fresh, place):
    folder = {"file": f"file://{root}/out/a", "path": f"{root}/out/b", "gs": "gs://bucket/artifacts/c"}[place]
    response = parsed(
        server.post(build_request(root / "models" / "digits", config(folder=folder, evaluation=True)), artifacts=True)
    )
    assert list(response.task_group.eval_task.server_phase_url) == [f"{folder}/eval_plan.pb"], response
    assert response.task_group.training_task.population_name == ""
    if place == "gs":
        assert len([key for key in fresh.gcs.objects if key[0] == "bucket"]) == 6
    else:
        assert len(list(pathlib.Path(folder.removeprefix("file://")).iterdir())) == 6
    assert not any("taskmanagement" in entry.path for entry in fresh.plan.log)


def test_artifacts_that_are_something_else_are_not_overwritten(server, root, fresh):
    fresh.gcs.put("bucket", "artifacts/client_only_plan.pb", b"precious")
    response = parsed(
        server.post(build_request(root / "models" / "digits", config(folder="gs://bucket/artifacts")), artifacts=True)
    )
    assert response.error_info.error_type == ERROR.ARTIFACT_BUILDING_ERROR
    assert response.error_info.error_message.startswith("Artifact failed to upload for task 0: ")
    assert response.error_info.error_message.endswith(". Stop building remaining artifacts.")
    assert "exists already, with other content" in response.error_info.error_message
    assert fresh.gcs.content("gs://bucket/artifacts/client_only_plan.pb") == b"precious"
    assert fresh.gcs.content("gs://bucket/artifacts/plan.pb") is None


_BUILDING = "Artifact building failed for task 0: "
_STOP = ". Stop building remaining artifacts."
_FAILURES = {
    "error-config": (ERROR.INVALID_REQUEST, "Task config is invalid: the config's fault"),
    "error-privacy": (ERROR.INVALID_REQUEST, "Task config is invalid: epsilon 11"),
    "error-model": (
        ERROR.INVALID_REQUEST,
        "Failed to build learning algorithm based on `learning_process` config: the model's fault",
    ),
    "error-untrusted": (
        ERROR.INVALID_REQUEST,
        "Cannot load TFF functional model from {model}. ReadFile\n"
        "Save the model without these parts: this server loads no other.",
    ),
    "error-ops": (
        ERROR.ARTIFACT_BUILDING_ERROR,
        f"{_BUILDING}Cannot build the ClientOnlyPlan: Please contact Google to register these ops: {{}}{_STOP}",
    ),
    "error-defect": (ERROR.ARTIFACT_BUILDING_ERROR, f"{_BUILDING}The work on the model failed: RuntimeError: a defect{_STOP}"),
    "crash": (ERROR.ARTIFACT_BUILDING_ERROR, f"{_BUILDING}The work on the model crashed (SIGSEGV){_STOP}"),
    "garbage": (ERROR.ARTIFACT_BUILDING_ERROR, f"{_BUILDING}The build ended with something else than its report{_STOP}"),
    "memory-100000000000": (
        ERROR.ARTIFACT_BUILDING_ERROR,
        f"{_BUILDING}The work on the model needs more memory than it may use{_STOP}",
    ),
    "empty": (
        ERROR.ARTIFACT_BUILDING_ERROR,
        f"{_BUILDING}plan.pb has 0 bytes; the task server reads from 1 byte to 2 GiB{_STOP}",
    ),
    "link": (
        ERROR.ARTIFACT_BUILDING_ERROR,
        f"{_BUILDING}The sandboxed work left no file 'plan.pb': Too many levels of symbolic links{_STOP}",
    ),
}


@pytest.mark.parametrize("population", _FAILURES)
def test_a_failed_build_says_why_and_leaves_nothing(server, root, fresh, population):
    model = root / "models" / "digits"
    response = server.post(build_request(model, config(population)))
    error_type, text = _FAILURES[population]
    assert response.status_code == 200
    assert parsed(response).error_info.error_message == text.replace("{model}", str(model))
    assert parsed(response).error_info.error_type == error_type
    assert [entry for entry in fresh.plan.log if entry.method != "GET"] == []
    assert list((root / "work").glob("build-*")) == []


def test_an_empty_request(server, fresh):
    response = requests.post(f"{server.url}/taskbuilder/v1:build-task-group", b"", headers=PROTOBUF, timeout=10)
    info = parsed(response).error_info
    assert (response.status_code, info.error_type) == (200, ERROR.INVALID_REQUEST)
    assert info.error_message.startswith("Task config is invalid: [Invalid task config]: key `")
    assert "population_name is required and must be set to an non-empty string." in info.error_message


def test_a_model_that_is_not_there(server, root, fresh):
    model = root / "models" / "none"
    info = parsed(server.post(build_request(model, config()))).error_info
    assert info.error_type == ERROR.INVALID_REQUEST
    assert info.error_message.startswith(f"Cannot load TFF functional model from {model}.")


def test_a_model_inside_of_the_request(server, fresh):
    request = build_request("", config())
    request.saved_model.inline_resource.data = b"zip"
    info = parsed(server.post(request)).error_info
    assert info.error_type == ERROR.INVALID_REQUEST
    assert "models inside of requests are not supported" in info.error_message


def test_a_task_server_that_refuses(server, root, fresh):
    fresh.strike(FaultPlan("403", 1))
    info = parsed(server.post(build_request(root / "models" / "digits", config()))).error_info
    assert info.error_type == ERROR.TASK_MANAGEMENT_ERROR
    assert info.error_message.startswith("Failed to create tasks by task management service: 403: ")
    assert fresh.tasks.all_tasks() == []


def _run(command: list[str]) -> dict:
    """What a command prints as JSON."""
    process = subprocess.run(
        [sys.executable, "-c", "from odp_taskbuilder.cli.main import main; main()", *command, "--json"],
        capture_output=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_a_failed_upload_names_its_task_and_is_finished_by_push(server, root, fresh):
    # 3 + 2 requests to the task server, the training task's six, then the evaluation's checkpoint: looked for, refused.
    fresh.strike(FaultPlan("403", 12, persistent=True))
    response = parsed(server.post(build_request(root / "models" / "digits", config(evaluation=True))))
    info = response.error_info
    assert info.error_type == ERROR.ARTIFACT_BUILDING_ERROR
    assert info.error_message.startswith(
        "Artifact failed to upload for task 2: Cannot upload to gs://bucket/digits/2/0/s/0/checkpoint: "
    )
    assert "Task 1 (training) of population digits" in info.error_message
    assert "gs://bucket/digits/1/0/s/0/server_phase" in info.error_message
    assert not any(can_start(task, fresh.gcs) for task in fresh.tasks.all_tasks())
    assert response.task_report.applied_algorithms.learning_algo == 1

    fresh.strike(FaultPlan())
    command = info.error_message.rpartition("finish it with: odp-task ")[2].split()
    assert len(_run(command)["artifacts"]) == 6
    assert all(can_start(task, fresh.gcs) for task in fresh.tasks.all_tasks())


def test_a_work_directory_that_vanished(root, fresh):
    places = ["--allow_read", str(root / "models"), "--allow_write", str(root / "out")]
    with running_server(*places, "--work_dir", str(root / "vanishing")) as server:
        (root / "vanishing").rmdir()
        request = build_request(root / "models" / "digits", config(folder=f"{root}/out/vanished"))
        response = server.post(request, artifacts=True)
        assert (response.status_code, parsed(response).error_info.error_type) == (200, ERROR.ARTIFACT_BUILDING_ERROR)
        text = "The server cannot work in its directory: No such file or directory"
        assert parsed(response).error_info.error_message == f"{_BUILDING}{text}{_STOP}"
        (root / "vanishing").mkdir()
        assert parsed(server.post(request, artifacts=True)).HasField("task_group")


def test_a_server_that_was_killed_leaves_the_next_one_nothing_but_unfinished_pushes(root, fresh):
    work = root / "killed"
    options = ["--allow_read", str(root / "models"), "--work_dir", str(work), "--workers", "2"]
    options += ["--task_management_server", fresh.task_server.url]
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(endless_server())
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(2))
        server = stack.enter_context(running_server(*options, env={"STORAGE_EMULATOR_HOST": nowhere}))
        requests_lost = [
            pool.submit(server.post, build_request(root / "models" / "digits", config(name))) for name in ("digits", "sleep-60")
        ]
        wait_until(lambda: fresh.tasks.all_tasks() and len(list(work.glob("build-*/scratch"))) == 2)
        wait_until(lambda: '"task_id": 1' in "".join(path.read_text() for path in work.glob("build-*/artifacts.push.json")))
        server.process.kill()
        assert all(isinstance(lost.exception(), requests.ConnectionError) for lost in requests_lost)
    with running_server(*options) as server:
        (unfinished,) = work.iterdir()
        assert unfinished.name.startswith("unfinished-")
        (entry,) = [entry for entry in server.log if entry["event"] == "unfinished push"]
        assert entry["command"] == f"odp-task push --resume {unfinished}/artifacts"
    assert _run(entry["command"].split()[1:])["artifacts"][0]["task_id"] == 1
    assert all(can_start(task, fresh.gcs) for task in fresh.tasks.all_tasks())
    with running_server(*options) as server:
        assert list(work.iterdir()) == []
        assert not any(entry["event"] == "unfinished push" for entry in server.log)


def test_builds_of_a_server_that_lives_are_left_alone_by_others_in_the_same_place(root, fresh):
    work = root / "shared"
    places = ["--allow_read", str(root / "models"), "--allow_write", str(root / "out"), "--work_dir", str(work)]
    request = build_request(root / "models" / "digits", config("sleep-2", f"{root}/out/shared"))
    with running_server(*places) as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.post, request, artifacts=True)
        wait_until(lambda: list(work.glob("build-*/scratch")))
        with running_server(*places):
            pass
        assert parsed(answer.result()).HasField("task_group")


def test_no_task_management_server(root):
    environment = {"TASK_MANAGEMENT_SERVER_URL": "", "GOOGLE_CLOUD_PROJECT": "", "GCE_METADATA_HOST": "127.0.0.1:9"}
    with running_server("--allow_read", str(root / "models"), env=environment) as server:
        info = parsed(server.post(build_request(root / "models" / "digits", config()))).error_info
    assert (info.error_type, info.error_message) == (ERROR.TASK_MANAGEMENT_ERROR, "Cannot find task management server.")


_OUTSIDE = [
    "{root}/models_old/digits",
    "{root}/models/../models_old/digits",
    "{root}/models/way_out/digits",
    "file://{root}/models_old/digits",
    "file://{root}/models/%2e%2e/models_old/digits",
    "file://elsewhere{root}/models/digits",
    "/",
    "digits",
    "gs://models",
    "gs://models/digits_old",
    "gs://models/digits/../other",
    "gs://models/digits/%2e%2e/other",
    "gs://models/digits%2f..%2fother",
    "gs://models//digits",
    "gs://other/digits",
    "gs://models.example.com/digits",
    "gs:///digits",
    "gs://",
    "http://127.0.0.1/digits",
    "s3://models/digits",
]


@pytest.mark.parametrize("model", _OUTSIDE)
def test_a_model_outside_of_the_allowed_places_is_refused_before_anything_is_contacted(server, root, fresh, model):
    info = parsed(server.post(build_request(model.format(root=root), config()))).error_info
    assert info.error_type == ERROR.INVALID_REQUEST
    assert "does not read models from" in info.error_message or "Not a usable URL" in info.error_message
    assert fresh.plan.log == []


@pytest.mark.parametrize(
    "folder",
    [
        "{root}/outside",
        "{root}/out/../outside",
        "file://{root}/models",
        "gs://other/a",
        "gs://bucket",
        "gs://bucket/artifacts_old",
    ],
)
def test_a_destination_outside_of_the_allowed_places_is_refused_before_anything_is_contacted(server, root, fresh, folder):
    request = build_request(root / "models" / "digits", config(folder=folder.format(root=root)))
    info = parsed(server.post(request, artifacts=True)).error_info
    assert info.error_type == ERROR.INVALID_REQUEST
    assert "does not write artifacts to" in info.error_message
    assert fresh.plan.log == []
    assert not (root / "outside").exists()


def test_nothing_is_allowed_by_default(root, fresh):
    with running_server() as server:
        info = parsed(server.post(build_request(root / "models" / "digits", config()))).error_info
        assert "does not read models from" in info.error_message
        request = build_request("gs://models/digits", config(folder="gs://bucket/a"))
        assert "does not read models from" in parsed(server.post(request, artifacts=True)).error_info.error_message
    assert fresh.plan.log == []
