"""README's plan of the house is the house."""

from __future__ import annotations

import pathlib
import re
import sys

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "odp_taskbuilder"
SECTION = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Architecture")[2]


def floors_in_readme() -> list[set[str]]:
    block = SECTION.partition("says what belongs in it):\n\n")[2].partition("\n\n")[0]
    return [{name.removesuffix(".py") for name in line.split()} for line in block.splitlines()]


def test_the_floors_in_the_readme_are_those_that_are_checked():
    (layers, *_) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    checked = [{name.strip() for name in layer.split("|")} for layer in layers["layers"]]
    assert floors_in_readme() == [*checked, set(layers["exhaustive_ignores"])]


def test_every_room_says_what_it_is_for_and_what_not():
    rooms = [path for path in PACKAGE.iterdir() if (path / "__init__.py").exists()]
    assert {room.name for room in rooms} <= set().union(*floors_in_readme())
    for room in rooms:
        text = (room / "__init__.py").read_text(encoding="utf-8")
        assert re.match(r'"""\S', text), f"{room.name} does not say what it is for"
        assert room.name == "proto" or re.search(r"^Uses ", text, re.MULTILINE), f"{room.name} does not say what it may use"


def test_the_files_of_typical_changes_are_there():
    rows = re.findall(r"^\| (a |an)[^|]*\| (.*) \|$", SECTION, flags=re.MULTILINE)
    assert len(rows) >= 10
    files = [name for _, cell in rows for name in re.findall(r"`([\w/.]+)`", cell)]
    missing = [name for name in files if not (PACKAGE / name).exists() and not (ROOT / name).exists()]
    assert not missing
