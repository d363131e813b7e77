"""What the image is made from; scripts/check-container builds it and runs it."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "scripts" / "container" / "locked_requirements.py"


def locked_requirements(folder: pathlib.Path, names: list[str], lock: str) -> subprocess.CompletedProcess:
    (folder / "report.json").write_text(json.dumps({"install": [{"metadata": {"name": name}} for name in names]}))
    (folder / "lock").write_text(lock)
    return subprocess.run([sys.executable, PROGRAM, folder / "report.json", folder / "lock"], capture_output=True, text=True)


def test_of_the_lock_the_image_gets_what_the_wheel_requires_by_its_hashes(tmp_path):
    one = 'dm-tree==1 ; python_full_version < "3.10" \\\n    --hash=sha256:00\ndm-tree==2 \\\n    --hash=sha256:11 \\\n    --hash=sha256:22\n'
    process = locked_requirements(tmp_path, ["odp-task", "DM_tree"], f"{one}pytest==3 \\\n    --hash=sha256:33\n")
    assert (process.returncode, process.stdout) == (0, one)


def test_what_the_lock_lacks_is_not_installed_without_a_hash(tmp_path):
    process = locked_requirements(tmp_path, ["one", "Two"], "one==1 \\\n    --hash=sha256:00\n")
    assert process.returncode != 0
    assert process.stderr == "not in the lock: two\n"


def test_no_place_is_written_into_what_makes_the_image():
    for path in [ROOT / "scripts" / "check-container", *(ROOT / "scripts" / "container").iterdir()]:
        if path.is_file():
            assert not re.search(r"index-url|https?://(?!127\.0\.0\.1)|/simple\b", path.read_text()), path
