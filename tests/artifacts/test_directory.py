"""Output to a directory: complete or absent, and never over somebody else's files."""

import os
import pathlib
import resource
import signal
import stat
import subprocess
import sys

import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import artifact_set, directory, manifest


def _artifacts(text="a", evaluation=False):
    def write_checkpoint(path):
        path.write_bytes(b"checkpoint " + text.encode())

    task = artifact_set.TaskArtifacts(b"plan", b"client plan", write_checkpoint, f"task {text}")
    return artifact_set.ArtifactSet(task, task if evaluation else None, "report")


def _save(destination, text="a", **options):
    return directory.save(_artifacts(text), destination, form="MapReduce", inputs={"task_config": "0" * 64}, **options)


def test_files_of_a_training_and_an_evaluation_task(tmp_path):
    directory.save(_artifacts(evaluation=True), tmp_path / "out", form="MapReduce", inputs={})
    assert sorted(os.listdir(tmp_path / "out")) == [
        "client_only_plan.pb",
        "eval_client_only_plan.pb",
        "eval_initial_state.server.ckp",
        "eval_plan.pb",
        "eval_task.pbtxt",
        "initial_state.server.ckp",
        "manifest.json",
        "plan.pb",
        "report.pbtxt",
        "task.pbtxt",
    ]
    assert (tmp_path / "out" / "initial_state.server.ckp").read_bytes() == b"checkpoint a"


def test_same_artifacts_give_the_same_bytes_anywhere(tmp_path):
    for name in ("first", "second"):
        _save(tmp_path / name)
    for file in (tmp_path / "first").iterdir():
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes()


def test_destination_gets_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        _save(tmp_path / "out")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750


def test_nobody_else_can_look_into_the_unfinished_directory(tmp_path):
    with directory.staged_directory(tmp_path / "out") as staging:
        assert stat.S_IMODE(staging.parent.stat().st_mode) == 0o700
        assert staging.parent.parent == tmp_path


def test_building_again_replaces_the_former_output(tmp_path):
    _save(tmp_path / "out", "a")
    _save(tmp_path / "out", "b")
    assert (tmp_path / "out" / "task.pbtxt").read_text() == "task b"
    assert os.listdir(tmp_path) == ["out"]


def test_former_output_behind_a_symbolic_link_is_replaced_where_it_is(tmp_path):
    _save(tmp_path / "real", "a")
    (tmp_path / "link").symlink_to("real")
    _save(tmp_path / "link", "b")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "task.pbtxt").read_text() == "task b"


def test_an_empty_directory_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    _save(tmp_path / "out")
    assert (tmp_path / "out" / "plan.pb").read_bytes() == b"plan"


@pytest.mark.parametrize("manifest_text", [None, "{}", '{"producer": "odp-task"}', "[" * 100000])
def test_a_directory_with_other_files_is_refused(tmp_path, manifest_text):
    (tmp_path / "thesis.tex").write_text("three years of work")
    if manifest_text is not None:
        (tmp_path / "manifest.json").write_text(manifest_text)
    with pytest.raises(errors.StorageError, match=r"not a former output of odp-task: .*thesis\.tex"):
        _save(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "three years of work"


def test_a_file_added_to_the_former_output_is_not_lost(tmp_path):
    _save(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("remember")
    with pytest.raises(errors.StorageError, match=r"notes\.txt"):
        _save(tmp_path / "out", "b")
    assert (tmp_path / "out" / "notes.txt").read_text() == "remember"
    assert (tmp_path / "out" / "task.pbtxt").read_text() == "task a"


def test_overwrite_replaces_any_directory(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other.txt").write_text("other")
    _save(tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "other.txt").exists()
    assert (tmp_path / "out" / "plan.pb").read_bytes() == b"plan"


def test_a_file_in_the_way_is_refused_even_with_overwrite(tmp_path):
    (tmp_path / "out").write_text("text")
    with pytest.raises(errors.StorageError, match="exists and is not a directory"):
        _save(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out").read_text() == "text"


@pytest.mark.parametrize("below", ["out", "a/b/out"])
@pytest.mark.parametrize("parent", ["file", "/proc"])
def test_a_place_that_nothing_can_be_made_in_is_found_before_a_build(tmp_path, parent, below):
    """Also for root, whom permissions do not stop."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(errors.StorageError) as refusal:
        directory.check_destination(tmp_path / parent / below)
    assert f"Cannot write {tmp_path / parent / below}: " in refusal.value.message
    assert refusal.value.message.endswith(f"({tmp_path / parent})")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError, errors.ModelError("no")])
def test_after_a_failure_nothing_is_left(tmp_path, failure):
    with (
        pytest.raises(failure if isinstance(failure, type) else type(failure)),
        directory.staged_directory(tmp_path / "a" / "b" / "out") as staging,
    ):
        (staging / "plan.pb").write_bytes(b"half a plan")
        raise failure
    assert os.listdir(tmp_path) == []


def test_a_destination_that_appears_meanwhile_is_not_overwritten(tmp_path):
    with (
        pytest.raises(errors.StorageError, match="not a former output"),
        directory.staged_directory(tmp_path / "out") as staging,
    ):
        (staging / "plan.pb").write_bytes(b"plan")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "other.txt").write_text("other")
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(tmp_path / "out") == ["other.txt"]


def test_two_builds_into_one_destination_do_not_mix(tmp_path):
    with directory.staged_directory(tmp_path / "out") as first:
        _save(tmp_path / "out", "second")
        assert first.is_dir(), "the second build took the first one's directory for abandoned"
        _artifacts("first").write_files(first)
        (first / "manifest.json").write_text(manifest.make_manifest(first, form="MapReduce", inputs={}).to_json())
    assert (tmp_path / "out" / "task.pbtxt").read_text() == "task first"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("initial", ["absent", "former"])
@pytest.mark.parametrize("how", ["kill", "interrupt", "disk full"])
def test_output_is_old_or_new_whatever_step_is_struck(tmp_path, how, initial):
    script = pathlib.Path(__file__).with_name("interrupted_save.py")
    run = subprocess.run([sys.executable, str(script), str(tmp_path), how, initial], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 30


@pytest.mark.parametrize("limit", [0, 3, 10, 500])
def test_a_full_disk_is_reported_with_path_and_reason(tmp_path, limit):
    _save(tmp_path / "out", "a")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(errors.StorageError) as refusal:
            _save(tmp_path / "out", "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert f"Cannot write {tmp_path / 'out'}: File too large" in refusal.value.message
    assert (tmp_path / "out" / "task.pbtxt").read_text() == "task a"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc", "a/b", "a\\b", "a\0b"])
def test_population_names_stay_inside_the_output(tmp_path, name):
    with pytest.raises(errors.UsageError):
        directory.population_directory(tmp_path, name)
    assert directory.population_directory(tmp_path, "my_population.v1") == tmp_path / "my_population.v1"
