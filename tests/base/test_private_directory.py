"""What killed processes left is removed by the next one; what others use stays."""

import signal
import subprocess
import sys

from odp_taskbuilder.base.private_directory import private_directory

OWNER = """
import pathlib, signal, sys
from odp_taskbuilder.base.private_directory import private_directory
with private_directory(pathlib.Path(sys.argv[1]), "work-") as directory:
    (directory / "file").write_text("large")
    print(directory, flush=True)
    signal.pause()
"""


def test_only_directories_of_living_owners_stay(tmp_path):
    (tmp_path / "other").mkdir()
    owner = subprocess.Popen([sys.executable, "-c", OWNER, tmp_path], stdout=subprocess.PIPE, text=True)
    used = owner.stdout.readline().strip()
    try:
        with private_directory(tmp_path, "work-") as own:
            assert {str(path) for path in tmp_path.iterdir()} == {used, str(own), str(tmp_path / "other")}
            assert own.stat().st_mode & 0o777 == 0o700
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert {str(path) for path in tmp_path.iterdir()} == {used, str(tmp_path / "other")}
    with private_directory(tmp_path, "work-") as own:
        assert set(tmp_path.iterdir()) == {own, tmp_path / "other"}
