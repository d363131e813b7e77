"""A person at a terminal sees that work goes on, whatever it is that takes long; pipes see none of that."""

import errno
import os
import pathlib
import pty
import select
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIGITS = ROOT / "configs" / "digits"
BLOCKED = [sys.executable, pathlib.Path(__file__).with_name("blocked_command.py")]
MODEL = ("--saved_model", DIGITS / "saved_model", "--task_config", DIGITS / "train.pbtxt")
TASK = ("--report_goal", 2000, "--rounds", 10)
# A machine that shows nothing for so long is broken; nothing waits for this to pass.
_NEVER = 120

LONG = {
    "privacy noise": ("odp_taskbuilder.privacy:privacy_budget", ["privacy", "noise", *TASK], "calibrating the noise"),
    "privacy epsilon": (
        "odp_taskbuilder.privacy:privacy_budget",
        ["privacy", "epsilon", *TASK, "--noise_multiplier", 1],
        "accounting",
    ),
    "privacy curve": (
        "odp_taskbuilder.privacy:curve_point",
        ["privacy", "curve", "--over", "noise", "--from", 1, "--to", 2, *TASK],
        "accounting: 1 of 20",
    ),
    "scan": ("odp_taskbuilder.model.admission:examine", ["scan", DIGITS / "saved_model"], "scanning the model"),
    "build": ("odp_taskbuilder.build:budget_meanwhile", ["build", *MODEL, "--output", "{scratch}"], "privacy accounting"),
    "data partition": (
        "odp_taskbuilder.data.partitioned_dataset:load_pool",
        ["data", "partition", "digits", "--clients", 5, "--output", "{scratch}/clients"],
        "reading the dataset",
    ),
    "data encode": (
        "odp_taskbuilder.data.rows:encode_rows",
        ["data", "encode", "{scratch}/rows.json", *MODEL],
        "encoding the rows",
    ),
    "data describe": ("odp_taskbuilder.data.describe:describe", ["data", "describe", "{scratch}"], "reading the examples"),
    "simulate": (
        "odp_taskbuilder.cli.simulate:simulate",
        ["simulate", "x", "--data", "x", "--rounds", 1, "--clients_per_round", 1],
        "starting the processes",
    ),
    "verify --run": ("odp_taskbuilder.inspection.verify:verify", ["verify", "{scratch}", "--run"], "running a round"),
    "inspect": ("odp_taskbuilder.inspection.inspect:inspect", ["inspect", "{scratch}"], "reading the files"),
    "diff": ("odp_taskbuilder.inspection.diff:diff", ["diff", "{scratch}", "{scratch}"], "comparing"),
    **{
        f"proxy {command}": ("odp_taskbuilder.proxy.workshop:opened", ["proxy", command, "--dir", "{scratch}"], "training")
        for command in ("variance", "select", "search", "rank")
    },
    "push": ("odp_taskbuilder.push.push:push", ["push", "{scratch}"], "pushing"),
    "report": ("odp_taskbuilder.cli.report:read_runs", ["report", "x", "--output", "{scratch}/x.html"], "reading the metrics"),
    "metrics": ("odp_taskbuilder.cli.metrics:read_runs", ["metrics", "x"], "reading the metrics"),
}


def _read(terminal):
    """What came to the terminal since the last time; waits for something to come."""
    assert select.select([terminal], [], [], _NEVER)[0], "nothing is shown any more"
    try:
        return os.read(terminal, 1 << 16).decode(errors="replace")
    except OSError as error:
        if error.errno != errno.EIO:  # The other side was closed.
            raise
        return ""


@pytest.mark.parametrize("command", LONG)
def test_a_terminal_shows_what_goes_on_again_and_again(tmp_path, command):
    place, arguments, stage = LONG[command]
    fifo, scratch = tmp_path / "fifo", tmp_path / "scratch"
    os.mkfifo(fifo)
    scratch.mkdir()
    (scratch / "one.tfrecord").touch()
    (scratch / "rows.json").touch()
    arguments = [str(argument).format(scratch=scratch) for argument in arguments]
    terminal, end = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen([*BLOCKED, fifo, place, *arguments], stdin=end, stdout=end, stderr=end, env=environment)
    os.close(end)
    try:
        shown, parts = "", 0
        # The command stands still, so whatever comes is the sign that it is at work.
        while parts < 10:
            part = _read(terminal)
            assert part, shown
            shown += part
            parts += stage in shown
        assert process.poll() is None
        with open(fifo, "wb"):
            pass
        while part := _read(terminal):
            shown += part
    finally:
        process.kill()
        os.close(terminal)
    assert "Error: Released." in shown
    assert shown.count(stage) >= 10


def test_a_pipe_sees_no_animation(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    command = [*BLOCKED, tmp_path / "fifo", "odp_taskbuilder.privacy:privacy_budget", "privacy", "noise", *map(str, TASK)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with open(tmp_path / "fifo", "wb"):
        pass
    stdout, stderr = process.communicate(timeout=_NEVER)
    assert (stdout, stderr) == ("", "Error: Released.\n")


def test_rows_of_a_curve_come_before_the_last_one_is_computed():
    arguments = ["privacy", "curve", "--over", "rounds", "--from", 1, "--to", 1000, "--steps", 500, "--report_goal", 2000]
    command = [sys.executable, "-c", "from odp_taskbuilder.cli.main import main; main()", *map(str, arguments), "--noise_multiplier", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        heading, columns, first = (process.stdout.readline() for _ in range(3))
        process.kill()
    assert columns.split() == ["rounds", "epsilon"] and first.split()[0] == "1"
