"""Every shell block of README and docs runs as it is printed, page by page; links lead somewhere.

A block is shell if it is fenced as `sh`, or indented and begins with a command. All blocks of a page run in one shell, in a directory that
looks like the checkout. In front of a block, comments that readers do not see say more:

    <!-- first: COMMAND -->       makes what the block needs
    <!-- not run: REASON -->      why it cannot run here
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
_COMMANDS = ("odp-task", "scripts/", ".venv/bin/", "pip ", "uv ", "echo ", "printf ", "export ", "eval ", "PYTHONPATH=", "git ", "adb ", "npm ", "sed ")
# Words of commands that take more than a few seconds.
_LONG = re.compile(r"\b(build|simulate|proxy|serve|setup|verify|new|android|make_model\.py|ops --saved_model)\b")
_COMMENT = re.compile(r"^<!-- (first|not run): (.*) -->$")
# What a reader has beside the page: a checkout.
_CHECKOUT = ("docs", "schemas", "scripts", "src", "tests", "pyproject.toml", "requirements.lock", "README.md")


@dataclasses.dataclass(frozen=True)
class Block:
    line: int
    text: str
    first: tuple[str, ...]
    not_run: str = ""


def shell_blocks(page: str) -> list[Block]:
    """The shell blocks of a page."""
    blocks, first, not_run = [], [], ""
    lines = iter(enumerate([*page.splitlines(), ""], 1))
    before = ""
    for number, line in lines:
        comment = _COMMENT.match(line)
        if comment:
            if comment[1] == "first":
                first.append(comment[2])
            else:
                not_run = comment[2]
        text = []
        if line.startswith("```"):
            is_shell = line[3:].strip() in ("sh", "shell", "bash")
            for _, inner in lines:
                if inner.startswith("```"):
                    break
                text.append(inner)
        elif line.startswith("    ") and (not before or before.startswith("<!--")):
            inner = line
            while inner.startswith("    "):
                text.append(inner[4:])
                _, inner = next(lines)
            is_shell = text[0].startswith(_COMMANDS)
        if text and is_shell:
            blocks.append(Block(number, "\n".join(text), tuple(first), not_run))
            first, not_run = [], ""
        before = line if not text else ""
    return blocks


def run_page(page: pathlib.Path, directory: pathlib.Path) -> None:
    for name in _CHECKOUT:
        (directory / name).symlink_to(ROOT / name)
    # A copy: programs there write beside themselves.
    shutil.copytree(ROOT / "configs", directory / "configs")
    (directory / ".venv").symlink_to(pathlib.Path(sys.prefix))
    script = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for block in shell_blocks(page.read_text(encoding="utf-8")):
        if not block.not_run:
            script += [*block.first, f"echo '--- {page.name}:{block.line}' >&2", block.text]
    environment = {**os.environ, "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHON": sys.executable}
    done = subprocess.run(["bash", "-c", "\n".join(script)], cwd=directory, capture_output=True, text=True, env=environment, timeout=3000)
    assert done.returncode == 0, f"{done.stdout[-1500:]}\n{done.stderr[-3000:]}"


def is_long(page: pathlib.Path) -> bool:
    blocks = [block for block in shell_blocks(page.read_text(encoding="utf-8")) if not block.not_run]
    return any(_LONG.search("\n".join([*block.first, block.text])) for block in blocks)


def has_blocks(page: pathlib.Path) -> bool:
    return any(not block.not_run for block in shell_blocks(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", [page for page in PAGES if has_blocks(page) and not is_long(page)], ids=lambda page: page.name)
def test_blocks_run_as_printed(page, tmp_path):
    run_page(page, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("page", [page for page in PAGES if has_blocks(page) and is_long(page)], ids=lambda page: page.name)
def test_long_blocks_run_as_printed(page, tmp_path):
    run_page(page, tmp_path)


def test_blocks_are_told_from_output_and_pictures():
    page = """text
    no block: a paragraph goes on

    odp-task one
    and more

    task config --config--> TaskSpec

<!-- first: touch x -->
<!-- not run: costs money -->
    pip install x

```sh
odp-task two
```

```python
build()
```
"""
    assert shell_blocks(page) == [
        Block(4, "odp-task one\nand more", ()),
        Block(11, "pip install x", ("touch x",), "costs money"),
        Block(13, "odp-task two", ()),
    ]


def test_blocks_that_fail_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n    echo fine > made\n    odp-task validate no_such_file\n")
    (tmp_path / "run").mkdir()
    with pytest.raises(AssertionError, match="page.md:3"):
        run_page(page, tmp_path / "run")
    assert (tmp_path / "run" / "made").read_text() == "fine\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]*(?:#[^)\s]*)?)\)", text):
        place, _, anchor = target.partition("#")
        if place.startswith(("http://", "https://")):
            continue
        other = (page.parent / place).resolve() if place else page
        assert other.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.M)
            slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{page.name} links to {target}"
