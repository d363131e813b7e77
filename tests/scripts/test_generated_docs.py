"""Pages of docs/ that are made from the program are up to date."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_generated_pages_are_current(tmp_path):
    subprocess.run([sys.executable, ROOT / "scripts" / "generate-docs", tmp_path], check=True)
    pages = list(tmp_path.iterdir())
    assert pages
    for page in pages:
        assert page.read_text() == (ROOT / "docs" / page.name).read_text(), f"run scripts/generate-docs: {page.name} is old"
