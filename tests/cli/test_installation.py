"""Commands before and after `odp-task setup`, `doctor`, and the examples of `new`: in processes that see another environment than this."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = pathlib.Path(importlib.util.find_spec("click").submodule_search_locations[0]).parent
TFF_NAMES = ("tensorflow_federated", "tensorflow_privacy", "google_vizier", "vizier")
MISSING = "Error: TensorFlow Federated is not installed completely: run `odp-task setup` once.\n"
CONFIG = ROOT / "configs" / "digits" / "train.pbtxt"
MODEL = ROOT / "configs" / "digits" / "saved_model"


def link_packages(folder: pathlib.Path, without: tuple[str, ...]) -> None:
    folder.mkdir()
    for path in PACKAGES.iterdir():
        if not path.name.startswith(without) and path.suffix != ".pth":
            (folder / path.name).symlink_to(path)


def run(packages: pathlib.Path, *arguments: object, before: str = "", **environment: str) -> subprocess.CompletedProcess:
    """Runs odp-task with the packages of a directory, and no others."""
    program = f"import os, sys\n{before}\nfrom odp_taskbuilder.cli.main import run\nsys.exit(run(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-S", "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{packages}", **environment},
        cwd="/",
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> pathlib.Path:
    """What the wheel brings, without what `odp-task setup` adds."""
    folder = tmp_path_factory.mktemp("bare") / "packages"
    link_packages(folder, TFF_NAMES)
    return folder


@pytest.fixture(scope="module")
def without_runtime(tmp_path_factory) -> pathlib.Path:
    """What `odp-task setup` leaves: a placeholder in place of TFF's worker."""
    folder = tmp_path_factory.mktemp("without_runtime") / "packages"
    link_packages(folder, ("tensorflow_federated",))
    (source,) = PACKAGES.glob("tensorflow_federated-*.dist-info")
    for name in ("tensorflow_federated", "tensorflow_federated/data", source.name):
        (folder / name).mkdir()
        for path in (PACKAGES / name).iterdir():
            if path.name not in ("data", "worker_binary", "RECORD"):
                (folder / name / path.name).symlink_to(path)
    placeholder = folder / "tensorflow_federated" / "data" / "worker_binary"
    placeholder.write_text("#!/bin/sh\nexit 2\n")
    lines = (source / "RECORD").read_text().splitlines()
    kept = [line for line in lines if "worker_binary" not in line]
    record = [*kept, f"tensorflow_federated/data/worker_binary,,{placeholder.stat().st_size}"]
    (folder / source.name / "RECORD").write_text("\n".join(record) + "\n")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ("build", "--saved_model", MODEL, "--task_config", CONFIG),
        ("build", "--sandbox", "--saved_model", MODEL, "--task_config", CONFIG),
        ("ops", "--saved_model", MODEL, "--task_config", CONFIG),
        ("serve", "--port", "0"),
        ("new", "emnist_cnn", "/nonexistent/example"),
    ],
    ids=lambda command: " ".join(map(str, command[:2])),
)
def test_before_setup_a_command_that_needs_graphs_ends_with_the_one_line_that_helps(bare, command):
    process = run(bare, *command)
    assert (process.returncode, process.stderr, process.stdout) == (2, MISSING, "")


def test_before_setup_commands_that_need_no_graph_work(bare, tmp_path):
    for command in (
        ("validate", CONFIG),
        ("privacy", "epsilon", "--report_goal", 500, "--rounds", 10, "--noise_multiplier", 1),
        ("scan", MODEL),
        ("init", "--saved_model", MODEL, "--output", tmp_path / "job.pbtxt"),
        ("new", "digits", tmp_path / "example"),
        ("data", "partition", "digits", "--clients", 2, "--output", tmp_path / "clients"),
    ):
        process = run(bare, *command)
        assert process.returncode == 0, (command, process.stderr)


def test_the_engine_tff_without_its_runtime_says_what_is_missing_and_which_engine_does_the_job(bare, without_runtime):
    command = ("simulate", "artifacts", "--engine", "tff", "--rounds", 1, "--clients_per_round", 500, "--data", "synthetic")
    process = run(without_runtime, *command)
    assert process.returncode == 2
    assert "TensorFlow Federated's own runtime is not installed" in process.stderr
    assert "--engine local" in process.stderr
    assert run(bare, *command).stderr == MISSING


def test_doctor_names_what_is_missing_with_its_cure_and_ends_with_2(bare):
    # Without metadata of odp-task the requirements are unknown: it is installed beside the links.
    info = next(PACKAGES.glob("odp_task-*.dist-info"))
    assert (bare / info.name).exists()
    process = run(bare, "doctor", "--json")
    assert process.returncode == 2, process.stderr
    answer = json.loads(process.stdout)
    assert not answer["can_build"] and not answer["tff_runtime"]
    (fault,) = [fault for fault in answer["faults"] if "Not set up" in fault["message"]]
    assert "tensorflow-federated is missing" in fault["message"] and "google-vizier is missing" in fault["message"]
    assert fault["cure"] == "Run `odp-task setup`."
    assert answer["versions"]["dp-accounting"] == "0.4.3"
    assert answer["processors"] >= 1


def test_doctor_finds_nothing_that_prevents_builds_where_this_suite_runs(without_runtime):
    process = run(without_runtime, "doctor", "--json")
    answer = json.loads(process.stdout)
    assert [fault["message"] for fault in answer["faults"] if fault["prevents_builds"]] == []
    assert process.returncode == 0 and answer["can_build"]
    text = run(without_runtime, "doctor").stdout
    assert "Tasks can be built here." in text and "own runtime: not installed" in text


def test_an_example_is_written_with_its_program_and_the_next_commands_and_nothing_is_overwritten(bare, tmp_path):
    directory = tmp_path / "my first task"
    process = run(bare, "new", "digits", directory)
    assert process.returncode == 0
    written = {path.name for path in directory.iterdir()}
    assert written >= {"make_model.py", "saved_model", "train.pbtxt", "try_out.pbtxt"}
    assert written == {path.name for path in (ROOT / "configs" / "digits").iterdir() if path.name != "__pycache__"}
    assert [line.split()[:2] for line in process.stdout.splitlines()] == [
        ["odp-task", "build"],
        ["odp-task", "data"],
        ["odp-task", "simulate"],
        ["odp-task", "metrics"],
    ]
    assert f"--saved_model '{directory}/saved_model'" in process.stdout
    assert "configs/digits" not in (directory / "train.pbtxt").read_text()
    assert (directory / "saved_model" / "saved_model.pb").read_bytes() == (MODEL / "saved_model.pb").read_bytes()
    assert run(bare, "validate", directory / "train.pbtxt").returncode == 0
    again = run(bare, "new", "digits", directory)
    assert again.returncode == 2
    assert "not an empty directory" in again.stderr


@pytest.mark.parametrize("command", [("--version",), ("-h",), ("validate", CONFIG), ("build", "-h"), ("doctor", "--json")], ids=str)
def test_on_windows_every_command_says_one_line_that_names_wsl(bare, command):
    # What Windows lacks; and modules that would look for their Windows half, which this machine lacks.
    missing = "sys.modules.update(dict.fromkeys(('fcntl', 'resource', 'pwd', 'grp', 'termios')))"
    before = f"import click, signal, subprocess; sys.platform = 'win32'; del signal.SIGHUP, signal.SIGALRM; {missing}"
    process = run(bare, *command, before=before)
    assert process.returncode == 2
    assert process.stderr.startswith("Error: odp-task does not run on Windows itself") and process.stderr.count("\n") == 1
    assert "WSL" in process.stderr
