"""What macOS lacks is not needed: commands in processes where calls that Linux alone has are missing, /tmp is a link, names differ in case."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import directory

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIGITS = ROOT / "configs" / "digits"
LINUX_ONLY = ("sched_getaffinity", "sched_setaffinity", "memfd_create", "pidfd_open", "eventfd", "setns", "unshare", "posix_fadvise", "sendfile")

# Read by every interpreter that starts: by this command's children as well.
SITE_CUSTOMIZE = f"""
import ctypes, os, pathlib, select
for name in {LINUX_ONLY!r}:
    if hasattr(os, name):
        delattr(os, name)
del select.epoll

class WithoutLinuxCalls(ctypes.CDLL):
    def __getattr__(self, name):
        if name == "renameat2":
            raise AttributeError(name)
        # sandbox/kernel.py asks no other system for these.
        if name in ("unshare", "prctl", "syscall", "setns", "mount", "umount2", "capset"):
            raise OSError(38, "this protection exists on Linux only")
        return super().__getattr__(name)
ctypes.CDLL = WithoutLinuxCalls

for name in ("open", "read_text", "read_bytes", "glob", "iterdir"):
    def refuse(self, *args, _former=getattr(pathlib.Path, name), **kwargs):
        if str(self).startswith(("/proc", "/sys")):
            raise FileNotFoundError(2, "No such file or directory", str(self))
        return _former(self, *args, **kwargs)
    setattr(pathlib.Path, name, refuse)
access = os.access
os.access = lambda path, mode, **options: not str(path).startswith("/dev/shm") and access(path, mode, **options)
"""
# What the system decides, as on macOS; the rest of Python and TensorFlow goes by the true name.
RUN = """
import sys
from odp_taskbuilder.cli.main import run
from odp_taskbuilder.simulation import processes
if __name__ == "__main__":
    processes.START_METHOD = "spawn"
    sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Runs odp-task as far as possible as on another system, with a link for temporary files; returns stdout."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITE_CUSTOMIZE)
    (folder / "run.py").write_text(RUN)
    (folder / "true_tmp").mkdir()
    (folder / "tmp").symlink_to(folder / "true_tmp")

    def run(*arguments: object) -> str:
        process = subprocess.run(
            [sys.executable, folder / "run.py", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(folder / "site"), "TMPDIR": str(folder / "tmp"), "PYTHONWARNINGS": "ignore"},
            cwd=folder / "tmp",
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        return process.stdout

    return run


@pytest.mark.full
def test_build_verify_and_simulate_need_nothing_that_linux_alone_has(elsewhere):
    options = ("--saved_model", DIGITS / "saved_model", "--task_config", DIGITS / "try_out.pbtxt")
    elsewhere("build", *options, "--output", "out")
    # Replacing a former output takes two renames where directories cannot be exchanged.
    elsewhere("build", *options, "--output", "out")
    simulate = ("simulate", "out/digits", "--data", "synthetic", "--rounds", 1, "--clients_per_round", 10, "--json")
    assert elsewhere(*simulate, "--workers", 2)
    assert elsewhere("doctor", "--json")


def test_a_population_whose_name_differs_only_in_case_is_not_replaced_where_the_file_system_ignores_case(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    directory.check_destination(tmp_path / "Digits")  # Two directories, as this file system has it.
    (tmp_path / "Digits").symlink_to("digits")
    # As a file system that ignores case tells it: the name that was asked for leads there, and is not listed.
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [name for name in listed(path) if name != "Digits"])
    with pytest.raises(errors.StorageError, match="ignores case"):
        directory.check_destination(tmp_path / "Digits")
    directory.check_destination(tmp_path / "digits")


@pytest.mark.parametrize(
    "command",
    [("serve", "--port", "0"), ("build", "--sandbox", "--saved_model", DIGITS / "saved_model", "--task_config", DIGITS / "train.pbtxt")],
    ids=["serve", "build --sandbox"],
)
def test_without_the_linux_kernel_models_of_unknown_origin_are_refused_in_a_sentence(command):
    # Only what odp-task asks for: the modules below it are imported as what they are.
    program = "import sys, subprocess, selectors, http.server, requests, google.auth.transport.requests\nfrom odp_taskbuilder.cli import main, build, serve\n"
    program += "sys.platform = 'darwin'\nsys.exit(main.run(sys.argv[1:]))"
    process = subprocess.run([sys.executable, "-c", program, *map(str, command)], capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr.startswith("Error: Models of unknown origin are built on Linux only") and process.stderr.count("\n") == 1
    assert "--trust_model" in process.stderr
