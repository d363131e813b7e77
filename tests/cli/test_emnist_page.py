"""The commands of docs/emnist.md run, on an excerpt that is made here."""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "emnist.md").read_text()
PYTHON = pathlib.Path(sys.executable)
COMMANDS = [line.strip() for line in PAGE.splitlines() if line.startswith("    ")]


@pytest.fixture
def place(tmp_path):
    """A directory with the example configs, and sixty pictures as the npm package has them: bars, one place a class."""
    shutil.copytree(
        ROOT / "configs" / "emnist_cnn", tmp_path / "configs" / "emnist_cnn", ignore=shutil.ignore_patterns("saved_model")
    )
    digits = tmp_path / "package" / "src" / "digits"
    digits.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for digit in range(10):
        pictures = rng.random((16, 28, 28)) / 4
        pictures[:, 2 * digit : 2 * digit + 4] = 1
        (digits / f"{digit}.json").write_text(json.dumps({"data": [round(float(value), 3) for value in pictures.ravel()]}))
    return tmp_path


def run(command, place, **replaced):
    """Runs a line of the page as a shell does, with the program of this environment."""
    words = command
    for old, new in {".venv/bin/python": str(PYTHON), **replaced}.items():
        words = words.replace(old, new)
    environment = {**os.environ, "PATH": f"{PYTHON.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(words, shell=True, cwd=place, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{words}\n{done.stderr[-3000:]}"
    return done


def commands(*beginnings):
    found = [command for command in COMMANDS if command.startswith(beginnings)]
    assert len(found) >= len(beginnings)
    return found


@pytest.mark.filterwarnings("ignore:'protected_args':DeprecationWarning")
def test_every_command_has_the_options_that_it_is_given(tmp_path, monkeypatch):
    import click

    from odp_taskbuilder.cli.main import cli

    monkeypatch.chdir(tmp_path)
    for name in ("plain", "noise_0.5", "noise_4.0", "compressed"):
        (tmp_path / name / "emnist_cnn").mkdir(parents=True)
        (tmp_path / "runs" / name).mkdir(parents=True)
    for name in ("download.json", "client.tfrecord", "app/AndroidManifest.xml", "app/res/xml/odp_settings.xml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "clients" / "train").mkdir(parents=True)
    (tmp_path / "clients" / "train" / "client_00.tfrecord").touch()
    checked = 0
    for words in (shlex.split(command)[1:] for command in COMMANDS if command.startswith("odp-task ")):
        command, context = cli, cli.make_context("odp-task", list(words))
        while isinstance(command, click.Group):
            name, command, rest = command.resolve_command(context, [*context.protected_args, *context.args])
            context = command.make_context(name, rest, parent=context)
        checked += 1
    assert checked >= 15


def test_data_and_the_app_s_side_of_the_page(place):
    run(commands("odp-task data partition")[0], place, **{"--clients 50": "--clients 12"})
    assert len(list((place / "clients" / "train").iterdir())) == 12
    (app,) = commands("odp-task android noise_0.5/emnist_cnn")
    # Before a build: the page's build is of the digits' features, too.
    digits = ROOT / "configs" / "digits"
    run(
        app, place, **{"noise_0.5/emnist_cnn": f"--saved_model {digits / 'saved_model'} --task_config {digits / 'train.pbtxt'}"}
    )
    for command in commands("odp-task android download", "odp-task android check"):
        run(command, place)
    entries = json.loads((place / "download.json").read_text())["contents"]
    assert entries[0]["key"] == "emnist_cnn/00000000"


@pytest.mark.full
def test_every_command_of_the_page(place):
    """All but those that need a network or a server."""
    skipped = ("npm", "odp-task push", "odp-task android serve-download")
    smaller = {"--clients 50": "--clients 12", "--rounds 10": "--rounds 2", "--clients_per_round 10": "--clients_per_round 3"}
    for command in COMMANDS:
        if not command.startswith(skipped):
            run(command, place, **smaller)
    assert (place / "noise.png").read_bytes().startswith(b"\x89PNG")
    for name in ("plain", "noise_0.5", "noise_4.0", "compressed"):
        assert (place / "runs" / name).is_dir()
