"""`odp-task inspect`."""

import json
import subprocess
import sys
import xml.etree.ElementTree

import pytest

from odp_taskbuilder.plan import checkpoint

# Runs the command, and says on the last line of stderr what it imported.
_SCRIPT = """
import atexit, sys
from odp_taskbuilder.cli.main import main
atexit.register(lambda: print([name for name in ('tensorflow', 'matplotlib') if name in sys.modules], file=sys.stderr))
main()
"""


def _run(*arguments):
    return subprocess.run([sys.executable, "-c", _SCRIPT, *map(str, arguments)], capture_output=True, text=True)


def test_json_of_the_published_artifacts_without_tensorflow(golden):
    run = _run("inspect", golden / "keras_dense" / "expected_mapreduce", "--json")
    assert run.returncode == 0, run.stderr
    assert run.stderr.splitlines()[-1:] == ["[]"]  # Before it, the stage where it takes long.
    document = json.loads(run.stdout)
    assert [file["kind"] for file in document["files"]] == ["Plan", "ClientOnlyPlan", "checkpoint"] * 2
    assert [
        (entry["task"], entry["plan_bytes"], entry["download_bytes"], entry["upload_bytes"]) for entry in document["traffic"]
    ] == [
        ("training", 31698, 806519, 806518),
        ("evaluation", 16846, 806384, 240),
    ]


@pytest.mark.parametrize("arguments", [["verify"], ["ops"], ["diff", "{}"]])
def test_neighbouring_commands_start_without_tensorflow_too(golden, arguments):
    artifacts = str(golden / "keras_dense" / "expected_mapreduce")
    run = _run(*(argument.replace("{}", artifacts) for argument in arguments), artifacts)
    assert (run.returncode, run.stderr.splitlines()) == (0, ["[]"])


def test_text_names_what_matters(golden):
    run = _run("inspect", golden / "keras_dense" / "expected_mapreduce")
    assert run.returncode == 0, run.stderr
    assert "plan.pb: Plan, MapReduce form, 151,342 bytes" in run.stdout
    assert "server/client_work/train/loss <- Identity_54:0" in run.stdout
    assert "noise multiplier: 0.22200349  (dp_event/noise_multiplier)" in run.stdout
    assert "module version 341912000" in run.stdout


def test_foreign_files_are_refused_with_one_message(tmp_path):
    path = tmp_path / "notes.pb"
    path.write_text("These are not the bytes of a plan.")
    run = _run("inspect", path, "--json")
    assert run.returncode == 9
    assert f"{path} is no Plan, ClientOnlyPlan or V1 checkpoint" in json.loads(run.stdout)["error"]["message"]
    assert "Traceback" not in run.stderr


def test_a_missing_file_is_a_usage_error(tmp_path):
    run = _run("inspect", tmp_path / "absent.pb")
    assert run.returncode == 2
    assert "does not exist" in run.stderr


def test_a_saved_model_is_called_by_its_name(golden):
    model = golden / "keras_dense" / "model"
    for path in (model, model / "saved_model.pb"):
        run = _run("inspect", path)
        assert run.returncode == 9
        assert f"{path} is a SavedModel" in run.stderr
        assert "`odp-task build`" in run.stderr


def test_numbers_that_json_lacks_are_strings(tmp_path):
    import numpy as np

    with open(tmp_path / "a.ckp", "wb") as file:
        value = np.full((2,), np.nan, np.float32)
        checkpoint.write_checkpoint(file, [checkpoint.CheckpointTensor("server/w", 1, (2,), lambda: value)])
    run = _run("inspect", tmp_path / "a.ckp", "--json")
    statistics = json.loads(run.stdout, parse_constant=lambda text: 1 / 0)["files"][0]["tensors"][0]["statistics"]
    assert (statistics["norm"], statistics["non_finite"]) == ("NaN", 2)


def test_picture_of_the_data_flow(golden, tmp_path):
    for name in ("a.svg", "b.svg"):
        run = _run("inspect", golden / "keras_dense" / "expected_mapreduce", "--graph", tmp_path / name)
        assert run.returncode == 0, run.stderr
    words = [text.text for text in xml.etree.ElementTree.parse(tmp_path / "a.svg").iter("{http://www.w3.org/2000/svg}text")]
    for expected in (
        "training, MapReduce form",
        "806,519 bytes",
        "806,518 bytes",
        "plan: 31,698 bytes",
        "server/eval/loss",
        "x float32[784]",
    ):
        assert expected in words
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_picture_needs_a_plan_and_a_known_format(golden, tmp_path):
    artifacts = golden / "keras_dense" / "expected_mapreduce"
    run = _run("inspect", artifacts / "initial_state.server.ckp", "--graph", tmp_path / "a.svg")
    assert (run.returncode, "There is no plan among these files" in run.stderr) == (2, True)
    run = _run("inspect", artifacts / "plan.pb", "--graph", tmp_path / "a.doc")
    assert (run.returncode, "Format 'doc' is not supported" in run.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []
