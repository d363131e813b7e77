"""From an empty environment to simulated tasks, with what the package index has: the wheel, `odp-task setup`, the examples, their next commands."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# `odp-task build` and everything that it needs.
MAX_BYTES = 2 * 10**9


@dataclasses.dataclass
class Installation:
    """An environment that the wheel was installed into, and the commands of it."""

    prefix: pathlib.Path
    bin: pathlib.Path
    environment: dict[str, str]
    seconds: float = 0.0

    def run(self, *command: object, cwd: pathlib.Path) -> str:
        start = time.monotonic()
        process = subprocess.run([*map(str, command)], env=self.environment, cwd=cwd, capture_output=True, text=True)
        self.seconds += time.monotonic() - start
        assert process.returncode == 0, f"{command}: {process.stderr[-3000:]}"
        return process.stdout

    @property
    def num_bytes(self) -> int:
        return sum(path.lstat().st_size for path in self.prefix.rglob("*") if path.is_file() and not path.is_symlink())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("dist")
    # Hatchling is among the packages of the lock.
    program = f"import hatchling.build; print(hatchling.build.build_wheel({str(folder)!r}))"
    name = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()[-1]
    return folder / name


def interpreter(version: str) -> str:
    for candidate in (f"python{version}", *map(str, pathlib.Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))):
        path = shutil.which(candidate)
        if path and subprocess.run([path, "-c", "import venv, ensurepip"], capture_output=True).returncode == 0:
            return path
    pytest.skip(f"Python {version} is not installed")


def install(installer: str, version: str, wheel: pathlib.Path, folder: pathlib.Path) -> Installation:
    python = interpreter(version)
    if installer != "pip" and shutil.which("uv") is None:
        pytest.skip("uv is not on PATH")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"UV_TOOL_DIR": str(folder / "tools"), "UV_TOOL_BIN_DIR": str(folder / "bin"), "UV_CACHE_DIR": str(folder / "cache")}
    if installer == "uv tool":
        made = Installation(folder / "tools" / "odp-task", folder / "bin", environment)
        made.run("uv", "tool", "install", "--python", python, wheel, cwd=folder)
    else:
        made = Installation(folder / "venv", folder / "venv" / "bin", environment)
        made.run(python, "-m", "venv", made.prefix, cwd=folder)
        made.run(made.bin / "python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    made.environment["PATH"] = f"{made.bin}{os.pathsep}{environment['PATH']}"
    return made


@pytest.mark.full
@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11"])
@pytest.mark.parametrize("installer", ["pip", "uv tool"])
def test_from_an_empty_environment_to_the_next_commands_of_the_examples(installer, version, wheel, tmp_path, capsys):
    made = install(installer, version, wheel, tmp_path)
    installed = {path.name for path in made.bin.iterdir()}
    assert {"odp-task", "task_builder", "task_builder_client"} <= installed
    assert not installed & {"serve", "ray", "pytest", "gcp-storage-emulator"}, "commands of packages that no user needs"
    made.run("odp-task", "setup", cwd=tmp_path)
    seconds, num_bytes = made.seconds, made.num_bytes
    with capsys.disabled():
        print(f"\n{installer}, Python {version}: {num_bytes:,} bytes, {seconds:.0f} s, load {os.getloadavg()[1]:.0f}")
    assert num_bytes < MAX_BYTES
    assert json.loads(made.run("odp-task", "doctor", "--json", cwd=tmp_path))["can_build"]
    for example, directory in (("digits", "first task"), ("emnist_cnn", "second task")):
        made.run("sh", "-euc", made.run("odp-task", "new", example, directory, cwd=tmp_path), cwd=tmp_path)
        assert (tmp_path / directory / "odp_artifacts" / example / "manifest.json").is_file()
    assert (tmp_path / "first task" / "metrics.png").stat().st_size > 1000
