"""The wheel's requirements resolve wherever it is said to run, with uv and with pip as they would there."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.full
@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11"])
@pytest.mark.parametrize("platform", ["Linux x86-64", "Linux aarch64", "macOS 12 arm64"])
def test_lock_and_wheel_resolve_with_uv_and_the_wheel_with_pip(platform, version):
    if shutil.which("uv") is None:
        pytest.skip("uv is not on PATH")
    command = [sys.executable, ROOT / "scripts" / "check-platforms", "--cell", platform, version]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (cell := re.search(rf"^{re.escape(platform)}, Python {re.escape(version)}: (\d+) / (\d+) / (\d+)$", done.stderr, re.MULTILINE)), done.stderr
    lock, by_uv, by_pip = map(int, cell.groups())
    # Each may choose other versions, whose requirements may differ by a few.
    assert lock > by_uv > 60 and abs(by_uv - by_pip) < 10


def test_a_cell_that_is_none_is_refused():
    done = subprocess.run([sys.executable, ROOT / "scripts" / "check-platforms", "--cell", "Solaris", "3.11"], capture_output=True, text=True)
    assert done.returncode == 2 and "--cell takes one of ['Linux x86-64'" in done.stderr
