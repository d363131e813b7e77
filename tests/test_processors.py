"""The same inputs give the same bytes whatever processor builds them."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import processor_settings
import pytest

from odp_taskbuilder.artifacts import checkpoint_reader

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIGITS = ROOT / "configs" / "digits"
# ADAPTIVE_TREE needs noise below a tenth of the report goal, which no target of 6 allows at a goal of 500.
TRAINING_ONLY = ("TRAINING_AND_EVAL", "TRAINING_ONLY")
KINDS = {
    "FIXED_GAUSSIAN": (),
    "ADAPTIVE_GAUSSIAN": (TRAINING_ONLY,),
    "TREE_AGGREGATION": (TRAINING_ONLY,),
    "ADAPTIVE_TREE": (
        TRAINING_ONLY,
        ("report_goal: 500", "report_goal: 10000"),
        ("minimum_separation: 1", "minimum_separation: 100"),
    ),
}
# The noise of a tree is drawn from a clock's seed when a task is built; its first values stand in the checkpoint.
DRAWN = ("/value_generator_state/seeds", "/tree_state/level_buffer")

BUILD = """
import os, pathlib, sys
from odp_taskbuilder import build
for config in sorted(pathlib.Path(sys.argv[2]).glob("*.pbtxt")):
    build(sys.argv[1], config, pathlib.Path(sys.argv[3]) / config.stem)
sys.stderr.flush()
os._exit(0)  # TFF's executors print a traceback when Python winds down
"""


def write_configs(directory: pathlib.Path) -> dict[str, pathlib.Path]:
    """A calibrated config of each kind of aggregator."""
    directory.mkdir(exist_ok=True)
    written = {}
    text = (DIGITS / "train.pbtxt").read_text()
    for kind, changes in KINDS.items():
        changed = text.replace("FIXED_GAUSSIAN", kind)
        for old, new in changes:
            assert old in changed
            changed = changed.replace(old, new)
        written[kind] = directory / f"{kind}.pbtxt"
        written[kind].write_text(changed)
    return written


@pytest.fixture(scope="module")
def configs(tmp_path_factory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("configs")
    write_configs(directory)
    return directory


def build_all(configs: pathlib.Path, output: pathlib.Path, setting: str) -> pathlib.Path:
    command = [sys.executable, "-c", BUILD, DIGITS / "saved_model", configs, output]
    done = subprocess.run(
        list(map(str, command)), env=processor_settings.environment(setting), capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return output


@pytest.fixture(scope="module")
def built_here(configs, tmp_path_factory) -> pathlib.Path:
    return build_all(configs, tmp_path_factory.mktemp("here"), "oneDNN on")


def files_of(directory: pathlib.Path) -> dict[str, pathlib.Path]:
    return {str(path.relative_to(directory)): path for path in sorted(directory.rglob("*")) if path.is_file()}


def tensors_not_drawn(path: pathlib.Path) -> dict[str, object]:
    with checkpoint_reader.open_checkpoint(path) as checkpoint:
        values = {info.name: checkpoint.read(info.name) for info in checkpoint.tensors}
    kept = {name: value for name, value in values.items() if not any(drawn in name for drawn in DRAWN)}
    assert len(kept) < len(values), "this checkpoint holds nothing drawn: compare its bytes"
    return {name: value.tolist() if value.dtype == object else value.tobytes() for name, value in kept.items()}


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(setting, marks=() if setting == "all of an old processor" else pytest.mark.full)
        for setting in processor_settings.SETTINGS
        if setting != "oneDNN on"
    ],
)
def test_every_file_of_calibrated_builds_is_byte_equal_under_the_settings_of_another_processor(
    setting, configs, built_here, tmp_path
):
    here, there = files_of(built_here), files_of(build_all(configs, tmp_path, setting))
    assert here.keys() == there.keys()
    assert {name.split("/")[0] for name in here} == set(KINDS)
    different = {name for name in here if here[name].read_bytes() != there[name].read_bytes()}
    trees = {
        f"{kind}/digits/{file}" for kind in KINDS if "TREE" in kind for file in ("initial_state.server.ckp", "manifest.json")
    }
    assert different == trees
    for name in different:
        if name.endswith(".ckp"):
            assert tensors_not_drawn(here[name]) == tensors_not_drawn(there[name])
