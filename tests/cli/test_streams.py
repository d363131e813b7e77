"""The answer of a command, and its exit code, do not depend on what the terminal can show or whether anyone listens."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-c", "from odp_taskbuilder.cli.main import main; main()"]
CONFIG = 'mode: TRAINING_ONLY\npopulaton_name: "digits"  # ทดสอบ 😀\n'


@pytest.fixture
def config(tmp_path) -> pathlib.Path:
    """A config with a misspelt field, in a directory and with a comment that most encodings lack the characters of."""
    directory = tmp_path / "โฟลเดอร์"
    directory.mkdir()
    (directory / "😀.pbtxt").write_text(CONFIG, encoding="utf-8")
    return directory / "😀.pbtxt"


def run(*args, encoding="utf-8", cwd=None, **kwargs):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    return subprocess.run([*COMMAND, *map(str, args)], env=environment, cwd=cwd, stdin=subprocess.DEVNULL, check=False, **kwargs)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-8", "utf-16"])
def test_an_encoding_that_lacks_characters_costs_neither_the_answer_nor_the_exit_code(encoding, config):
    done = run("validate", config, encoding=encoding, capture_output=True)
    text = done.stdout.decode(encoding)
    assert done.returncode == 3
    assert "task_config has no field 'populaton_name'" in text
    assert ("ทดสอบ" if encoding.startswith("utf") else "\\u0e17") in text


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_json_is_json_in_every_encoding(encoding, config):
    done = run("validate", config.name, "--json", encoding=encoding, cwd=config.parent, capture_output=True)
    (checked,) = json.loads(done.stdout.decode(encoding))["configs"]
    assert done.returncode == 3
    assert checked["source"] == "😀.pbtxt"


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", ">&- 2>&- <&-", "2>&-"])
def test_closed_streams_cost_nothing_but_what_would_be_printed_there(closed, config):
    script = f'exec "$@" {closed}'
    done = subprocess.run(["sh", "-c", script, "sh", *COMMAND, "validate", str(config)], check=False, capture_output=True)
    assert done.returncode == 3
    assert b"Traceback" not in done.stderr + done.stdout


def test_a_reader_that_leaves_is_no_defect():
    program = "import sys; from odp_taskbuilder.cli import main; sys.exit(main.run(['privacy', '--help']))"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        error = process.stderr.read()
        assert process.wait() in (0, 141)
    assert b"defect" not in error
