"""`odp-task metrics` prints what a run directory holds and writes what it is asked for."""

import json
import pathlib
import subprocess
import sys

import pytest

from odp_taskbuilder.metrics.run import format_metrics

ODP_TASK = pathlib.Path(sys.executable).with_name("odp-task")


def metrics(*args, cwd):
    return subprocess.run([ODP_TASK, "metrics", *args], cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.fixture
def runs(tmp_path):
    for name, factor in (("plain", 1.0), ("private", 2.0)):
        for number in (1, 2):
            path = tmp_path / name / "digits" / "1" / str(number) / "s" / "0"
            path.mkdir(parents=True)
            values = {"server/client_work/train/loss": factor / number, "communication/broadcast_bytes": 1000.0}
            (path / "metrics").write_bytes(format_metrics(values))
    return tmp_path


def test_runs_are_tabulated_side_by_side_without_what_a_simulation_adds(runs):
    done = metrics("plain", "private", cwd=runs)
    assert done.stdout == (
        "plain\nround  train/loss\n    1           1\n    2         0.5\n\n"
        "private\nround  train/loss\n    1           2\n    2           1\n"
    )  # fmt: skip
    asked = metrics("plain", "--metric", "broadcast_*", cwd=runs)
    assert asked.stdout.splitlines()[1].split() == ["round", "communication/broadcast_bytes"]


def test_json_and_csv_hold_everything(runs):
    done = metrics("plain", "--json", "--csv", "m.csv", cwd=runs)
    (run,) = json.loads(done.stdout)
    assert run["run"] == "digits task 1"
    assert run["rounds"]["2"] == {"server/client_work/train/loss": 0.5, "communication/broadcast_bytes": 1000.0}
    assert (runs / "m.csv").read_text().splitlines()[2] == "digits task 1,2,0.5,1000.0"


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (("none",), 7, "No such file"),
        (("plain", "--population", "letters"), 2, "plain holds no metrics of population 'letters'"),
        (("plain", "--metric", "loss", "--metric", "zzz"), 2, "no metric 'zzz'.\nThere are: server/client_work/train/loss, "),
        (("plain", "--plot", "noext"), 2, "Cannot plot to noext: its suffix names no format"),
        (("plain", "--csv", "/dev/full"), 7, "Cannot write /dev/full"),
        ((), 2, "Missing argument"),
    ],
)
def test_exit_codes(arguments, code, message, runs):
    done = metrics(*arguments, cwd=runs)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
