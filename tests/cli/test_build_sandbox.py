"""`odp-task build --sandbox`: the same artifacts from a good model, and nothing from a hostile one."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from test_build import EXAMPLE, run

from odp_taskbuilder import sandbox

# In a process of its own: TensorFlow is not for the test's. Saves a model that writes a file when it is loaded, and proves it.
MAKE_HOSTILE = """
import json, os, pathlib, sys
import hostile_models
folder = pathlib.Path(sys.argv[1])
targets = hostile_models.Targets(folder / "canaries", 1)
hostile_models.save_harmless(folder / "model", lambda module: hostile_models.resource_initializer(module, targets))
print(json.dumps(hostile_models.achieved(folder / "model", targets)), flush=True)
os._exit(0)
"""


# Of two of the model's weights travel codes, of the others themselves.
COMPRESSED = ("--compress_updates", "8", "--compress_above", "100", "--compress_model")


def build_example(tmp_path, *options):
    model, config = EXAMPLE / "saved_model", EXAMPLE / "train.pbtxt"
    process = run("build", "--saved_model", model, "--task_config", config, "--json", *options, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout), process.stderr


def test_a_sandboxed_build_gives_the_same_result_and_says_what_protects(tmp_path):
    plain, _ = build_example(tmp_path, "--output", "plain", *COMPRESSED)
    sandboxed, said = build_example(tmp_path, "--output", "sandboxed", "--sandbox", *COMPRESSED)
    assert sandboxed.pop("directory") != plain.pop("directory")
    assert len(plain["files"]) == 9
    assert sandboxed == plain
    manifests = [(tmp_path / output / "digits" / "manifest.json").read_bytes() for output in ("plain", "sandboxed")]
    assert manifests[0] == manifests[1]
    expected = {"update_bits": 8, "model_bits": 7, "above": 100, "evaluation": False}
    assert json.loads(manifests[0])["compression"] == expected
    assert any("travel in 8 bits" in sentence for sentence in plain["privacy"]["assumptions"])
    assert any("download 2 of 4 tensors with 2,368 of 2,410 values in 7 bits" in notice for notice in plain["notices"])
    assert all(str(protection) in said for protection in sandbox.available())


def test_compressed_artifacts_are_verified_with_a_round(tmp_path):
    """Codes of 8 bits take one byte or two: the size of an update depends on them."""
    build_example(tmp_path, "--output", "built", *COMPRESSED)
    process = run("verify", "--run", "built/digits", cwd=tmp_path)
    assert process.returncode == 0, process.stdout
    assert "0 findings: holds." in process.stdout


@pytest.mark.parametrize("options", [(), ("--sandbox",)])
def test_a_model_is_scanned_before_its_files_are_read_through(tmp_path, options):
    model = tmp_path / "model"
    shutil.copytree(EXAMPLE / "saved_model", model)
    with open(model / "variables" / "more", "wb") as file:
        file.truncate(1 << 42)  # A sparse file, which would take an hour to digest.
    output = tmp_path / "output"
    process = run("build", "--saved_model", model, "--task_config", EXAMPLE / "train.pbtxt", "--output", output, *options, cwd=tmp_path)
    assert process.returncode == 4, process.stderr
    assert "variables/more: no part of the variables" in process.stderr
    assert not output.exists()


def test_a_model_that_writes_when_it_is_loaded_writes_nothing(tmp_path):
    missing = [str(protection) for protection in sandbox.available() if not protection.in_force]
    if missing:
        pytest.skip(f"not in force on this machine: {missing}")
    canaries = tmp_path / "canaries"
    canaries.mkdir()
    made = subprocess.run(
        [sys.executable, "-c", MAKE_HOSTILE, tmp_path],
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).resolve().parents[1])},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout.splitlines()[-1]) == ["wrote"]
    before = set(tmp_path.rglob("*"))

    arguments = ["build", "--saved_model", tmp_path / "model", "--task_config", EXAMPLE / "train.pbtxt"]
    process = run(*arguments, "--trust_model", "--sandbox", cwd=tmp_path)

    assert process.returncode == 4, process.stderr
    assert "with the rights of the sandbox" in process.stderr
    assert "TensorFlow cannot load the model" in process.stderr
    assert "Traceback" not in process.stderr
    assert list(canaries.iterdir()) == []
    assert set(tmp_path.rglob("*")) == before
