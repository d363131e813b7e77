"""The scripts that make the virtual environment, with interpreters that only pretend to: nothing is downloaded."""

from __future__ import annotations

import fcntl
import pathlib
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ("basename", "cat", "chmod", "cmp", "cp", "dirname", "grep", "mkdir", "rm", "sh")

# Evaluates the script's own test of the version, as an interpreter of {version} would.
PYTHON = """#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
case "$1 $2" in
  "-c "*) exec {real} -c 'import sys; sys.version_info = {version}; exec(sys.argv[1])' "$2";;
  "-m venv") mkdir -p "$3/bin"; cp "$VENV_PYTHON" "$3/bin/python";;
esac
"""
VENV_PYTHON = """#!/bin/sh
if [ "$1" = -c ]; then
  case "$2" in *tensorflow_federated*) [ -z "${HAS_NO_TFF:-}" ];; esac
  exit
fi
echo "venv $*" >> "$LOG"
case "$*" in
  *--require-hashes*) [ -z "${PIP_FAILS:-}" ];;
  *--editable*) printf '#!/bin/sh\\necho "ran $*"\\n' > .venv/bin/odp-task; chmod +x .venv/bin/odp-task;;
esac
"""


class Checkout:
    """A copy of the scripts, on a PATH where only the interpreters that `add_python` made are found."""

    def __init__(self, directory: pathlib.Path, busybox: bool = False):
        self.root, self._bin, self._log = directory / "checkout", directory / "bin", directory / "log"
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        (self.root / "requirements.lock").write_text("one==1 --hash=sha256:00\n")
        (self.root / "pyproject.toml").write_text("")
        self._bin.mkdir()
        self._log.write_text("")
        for tool in TOOLS:
            (self._bin / tool).symlink_to(shutil.which("busybox" if busybox else tool))
        (directory / "venv_python").write_text(VENV_PYTHON)
        (directory / "venv_python").chmod(0o755)
        self._environment = {"PATH": str(self._bin), "LOG": str(self._log), "VENV_PYTHON": str(directory / "venv_python")}

    def add_python(self, name: str, version: tuple[int, int], text: str = PYTHON) -> None:
        (self._bin / name).write_text(text.format(real=sys.executable, version=version))
        (self._bin / name).chmod(0o755)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        self._log.write_text("")
        command = [self._bin / "sh", self.root / "scripts" / "odp-task", *arguments]
        return subprocess.run(command, env={**self._environment, **environment}, cwd="/", capture_output=True, text=True)

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def steps(self) -> list[str]:
        """What the last run did beside asking for versions."""
        return [line for line in self._log.read_text().splitlines() if " -c " not in line and "support.py" not in line]


@pytest.fixture(params=["the tools of this system", "BusyBox"])
def checkout(request, tmp_path):
    if request.param == "BusyBox" and shutil.which("busybox") is None:
        pytest.skip("BusyBox is not installed")
    result = Checkout(tmp_path, busybox=request.param == "BusyBox")
    result.add_python("python3.11", (3, 11))
    return result


def test_the_first_use_installs_what_is_locked_and_the_second_nothing(checkout):
    process = checkout.run("build", "two words")
    assert (process.returncode, process.stdout) == (0, "ran build two words\n"), process.stderr
    assert "first use, installing 1 locked packages" in process.stderr
    made, installed, project, compiled = checkout.steps
    assert made == "python3.11 -m venv .venv"
    assert "--no-deps --require-hashes -r requirements.lock" in installed
    assert "--no-deps" in project and "--editable ." in project
    assert compiled.endswith("-m compileall -q src")
    process = checkout.run("build")
    assert (process.stdout, process.stderr, checkout.steps) == ("ran build\n", "", [])


def test_an_environment_whose_installation_failed_is_made_again(checkout):
    process = checkout.run("build", PIP_FAILS="1")
    assert process.returncode != 0
    assert process.stdout == ""
    assert (checkout.root / ".venv" / "bin" / "python").exists()
    process = checkout.run("build")
    assert (process.returncode, process.stdout) == (0, "ran build\n")
    assert ".venv is unfinished or made from another lock; making it again" in process.stderr
    assert checkout.steps[0] == "python3.11 -m venv .venv"


def test_an_environment_of_another_lock_or_without_its_interpreter_is_made_again(checkout):
    checkout.run()
    (checkout.root / "requirements.lock").write_text("one==2 --hash=sha256:00\n")
    assert "making it again" in checkout.run().stderr
    (checkout.root / ".venv" / "bin" / "python").unlink()
    assert "making it again" in checkout.run().stderr
    assert checkout.run().stderr == ""


def test_a_change_of_the_project_alone_installs_only_that(checkout):
    checkout.run()
    (checkout.root / "pyproject.toml").write_text("[project]\n")
    process = checkout.run()
    assert process.returncode == 0
    project, compiled = checkout.steps
    assert "--editable ." in project and compiled.endswith("-m compileall -q src")


def test_an_interpreter_that_fits_is_found_among_others(tmp_path):
    checkout = Checkout(tmp_path)
    checkout.add_python("python3.11", (3, 11), "#!/bin/sh\nexit 127\n")  # A version manager's shim for what is not installed.
    checkout.add_python("python3", (3, 12))
    checkout.add_python("python", (3, 9))
    assert checkout.run().returncode == 0
    assert checkout.steps[0] == "python -m venv .venv"


def test_without_an_interpreter_that_fits_the_refusal_says_what_is_needed(tmp_path):
    checkout = Checkout(tmp_path)
    for name, version in (("python3", (3, 12)), ("python", (3, 8))):
        checkout.add_python(name, version)
    process = checkout.run("build")
    assert process.returncode != 0
    assert "needs Python 3.9, 3.10 or 3.11" in process.stderr
    assert "PYTHON=/path/to/python3.11" in process.stderr
    assert not (checkout.root / ".venv").exists()
    # Whoever names one is heard.
    checkout.add_python("elsewhere", (3, 10))
    assert checkout.run("build", PYTHON="elsewhere").stdout == "ran build\n"


def test_a_second_first_use_waits_for_the_one_that_is_at_work(checkout):
    with open(checkout.root / ".venv.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(checkout.run, "build")
            while "LOCK_EX" not in checkout.log:
                time.sleep(0.01)
            assert checkout.steps == [] and not (checkout.root / ".venv").exists()
            fcntl.flock(held, fcntl.LOCK_UN)
            assert waiting.result().stdout == "ran build\n"


def test_where_the_lock_has_no_tff_setup_adds_it(checkout):
    process = checkout.run("build", HAS_NO_TFF="1")
    assert process.stdout == "ran build\n"
    assert process.stderr.rstrip().endswith("ran setup")
    assert checkout.run("build", HAS_NO_TFF="1").stderr == ""


@pytest.mark.parametrize("shell", ["dash", "busybox"])
def test_no_script_needs_more_of_a_shell_than_the_standard_has(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    scripts = [path for path in (ROOT / "scripts").rglob("*") if path.is_file() and path.read_text().startswith("#!/bin/sh")]
    assert len(scripts) >= 4
    for script in [*scripts, ROOT / "scripts" / "lib.sh"]:
        command = [shell, *(["sh"] if shell == "busybox" else []), "-n", script]
        assert subprocess.run(command, capture_output=True, text=True).stderr == ""
        text = script.read_text()
        # What dash and BusyBox forgive, or GNU's tools alone have.
        assert not re.search(r"\[\[|\bsed -i\b|\breadlink -f\b|\bgrep -P\b|\bdate -d\b|\bcp -a\b|\blocal \w|\bstat -c\b|\bnproc\b|\bflock \d", text), script


def test_the_lock_has_a_hash_for_each_package_and_no_address():
    lock = (ROOT / "requirements.lock").read_text()
    packages = re.split(r"\n(?! )", lock.strip())
    assert len(packages) > 100
    for package in packages:
        assert re.match(r"[A-Za-z0-9._-]+==\S+", package), package
        assert re.findall(r"--hash=sha256:[0-9a-f]{64}\b", package), package
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host", lock)
