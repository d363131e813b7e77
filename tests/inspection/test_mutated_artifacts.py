"""No damage makes `inspect` or `verify` fail with a traceback, hang, or take more than a bounded amount of memory."""

import json
import pathlib
import subprocess
import sys

import handmade_artifacts as handmade
import pytest

from odp_taskbuilder.artifacts import manifest


def _run(folder, count):
    script = pathlib.Path(__file__).with_name("mutate_artifacts.py")
    run = subprocess.run([sys.executable, str(script), str(folder), str(count), "1"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    outcomes = json.loads(run.stdout)
    assert sum(outcomes.values()) == count
    # Both kinds occur: damage that is refused, and damage that still can be read.
    assert min(outcomes["refused"], outcomes["inspected"]) > count / 20


def _published(golden, tmp_path):
    for name in ("plan.pb", "client_only_plan.pb", "initial_state.server.ckp"):
        (tmp_path / name).write_bytes((golden / "keras_dense" / "expected_mapreduce" / name).read_bytes())
    (tmp_path / "manifest.json").write_text(manifest.make_manifest(tmp_path, form="MapReduce", inputs={}).to_json())
    return tmp_path


def test_300_damaged_files(tmp_path):
    _run(handmade.save(tmp_path / "out"), 300)


def test_30_damaged_published_files(golden, tmp_path):
    _run(_published(golden, tmp_path), 30)


@pytest.mark.full
def test_10000_damaged_files(tmp_path):
    _run(handmade.save(tmp_path / "out"), 10_000)


@pytest.mark.full
def test_2000_damaged_published_files(golden, tmp_path):
    _run(_published(golden, tmp_path), 2_000)
