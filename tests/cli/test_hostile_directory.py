"""No command runs what lies in the directory that the user happens to be in: a stranger's artifacts may come with anything beside them."""

import os
import pathlib
import pkgutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ODP_TASK = pathlib.Path(sys.executable).with_name("odp-task")
DIGITS = ROOT / "configs" / "digits"
# Each tells on itself, and is no use as what it stands in front of.
_MODULE = """
import os
open(os.path.join(os.path.dirname(__file__), "executed"), "w").close()
raise ImportError(f"{__name__} of the working directory")
"""


def _importable():
    standard = os.path.dirname(os.__file__)
    names = {found.name for found in pkgutil.iter_modules([standard, f"{standard}/lib-dynload"])}
    return sorted(names | {"odp_taskbuilder", "numpy", "tensorflow", "sitecustomize", "usercustomize"})


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Full of modules, with artifacts among them."""
    directory = tmp_path_factory.mktemp("stranger")
    for name in _importable():
        (directory / f"{name}.py").write_text(_MODULE)
    return directory


def _run(directory, *arguments):
    done = subprocess.run([ODP_TASK, *map(str, arguments)], cwd=directory, capture_output=True, text=True)
    assert not (directory / "executed").exists(), arguments
    return done


def test_nothing_that_lies_in_the_working_directory_is_executed(directory):
    build = ["build", "--no_cache", "--saved_model", DIGITS / "saved_model", "--task_config", DIGITS / "try_out.pbtxt"]
    assert _run(directory, *build, "--output", "out").returncode == 0
    artifacts = next((directory / "out").iterdir())
    commands = [
        ["doctor"],
        ["scan", DIGITS / "saved_model"],
        ["inspect", artifacts],
        ["ops", artifacts],
        ["verify", artifacts, "--run"],
        ["simulate", artifacts, "--data", "synthetic?clients=50&examples=3&classes=10", "--rounds", "1", "--clients_per_round", "10"],
        [*build, "--output", "two", "--sweep", "batch_size=2,3", "--jobs", "2"],
    ]
    for command in commands:
        done = _run(directory, *command)
        # Python before 3.11 has no way to start other processes without looking there: such commands say so instead.
        refused = sys.version_info < (3, 11) and done.returncode == 2 and "The working directory" in done.stderr
        assert refused or done.returncode == 0 or command == ["doctor"], (command, done.stderr)
