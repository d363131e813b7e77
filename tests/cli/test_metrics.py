"""`odp-task metrics` prints what a run directory holds and writes what it is asked for."""

import gzip
import json
import pathlib
import resource
import subprocess
import sys

import pytest
from click.testing import CliRunner

from odp_taskbuilder import errors
from odp_taskbuilder.cli.main import cli
from odp_taskbuilder.metrics.run import format_metrics

ODP_TASK = pathlib.Path(sys.executable).with_name("odp-task")


def metrics(*args, cwd, **options):
    return subprocess.run([ODP_TASK, "metrics", *args], cwd=cwd, capture_output=True, text=True, timeout=60, **options)


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
    (run,) = json.loads(done.stdout)["runs"]
    assert run["run"] == "digits task 1"
    assert run["rounds"]["2"] == {"server/client_work/train/loss": 0.5, "communication/broadcast_bytes": 1000.0}
    assert done.stderr == "Wrote m.csv.\n"
    assert (runs / "m.csv").read_text().splitlines()[2] == "digits task 1,2,0.5,1000.0"


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (("none",), 7, "No such file"),
        (("plain", "--population_name", "letters"), 2, "plain holds no metrics of population 'letters'"),
        (("plain", "--metric", "loss", "--metric", "zzz"), 2, "no metric 'zzz'.\nThere are: server/client_work/train/loss, "),
        (("plain", "--plot", "noext"), 2, "Cannot plot to noext: its suffix names no format"),
        (("plain", "--metric", "los"), 2, "no metric 'los'. Did you mean 'loss'?"),
        (("plain", "--metric", "bytes"), 2, "no metric 'bytes'. Did you mean '*bytes*'?"),
        (("plain", "--csv", "m.png"), 2, "m.png is no name of a CSV file"),
        (("plain", "--csv", "/dev/full"), 7, "Cannot write /dev/full"),
        ((), 2, "Missing argument"),
    ],
)
def test_exit_codes(arguments, code, message, runs):
    done = metrics(*arguments, cwd=runs)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def hostile(folder, content, population="pop"):
    path = folder / population / "1" / "1" / "s" / "0" / "metrics"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


# What somebody may leave in a bucket, and what it is refused for.
_HOSTILE = {
    "an integer of 400 digits": (b'{"a": 1' + b"0" * 400 + b"}", "beyond the range"),
    "a negative one": (b'{"a": -9' + b"9" * 5000 + b"}", "beyond the range"),
    "an integer of a million digits": (b'{"a": ' + b"7" * 1_000_000 + b"}", "beyond the range"),
    "an exponent": (b'{"a": 1e999999}', "beyond the range"),
    "lists in lists": (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "objects in objects": (b'{"a": ' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    "lists alone": (b"[" * 500_000, "nested too deeply"),
    "a terminal's title": (json.dumps({"loss\x1b]0;PWNED\x07\x1b[2J": 1.0}).encode(), "do not belong"),
    "C1": (json.dumps({"acc\u009b31m": 2.0}, ensure_ascii=False).encode(), "do not belong"),
    "right to left": (json.dumps({"acc\u202egnp": 2.0}).encode(), "do not belong"),
    "an isolate": (json.dumps({"\u2067acc": 2.0}).encode(), "do not belong"),
    "a line break": (json.dumps({"loss\nround": 2.0}).encode(), "do not belong"),
    "NUL": (json.dumps({"a\0b": 1.0}).encode(), "do not belong"),
    "half of a pair": (b'{"a\\ud800": 1.0}', "do not belong"),
    "the other half": (b'{"a\\udfff": 1.0}', "do not belong"),
    "half of a pair as a value": (b'{"a": "\\ud800"}', "found a text"),
    "a zip bomb": (gzip.compress(b'{"a": 1' + b" " * (64 << 20) + b"}", 6), "more than 1,048,576 bytes"),
    "a bomb of names": (gzip.compress(b'{"' + b"a" * (64 << 20) + b'": 1}', 6), "more than 1,048,576 bytes"),
    "a bomb in a bomb": (gzip.compress(gzip.compress(bytes(64 << 20))), "no metrics file"),
    "a long name": (json.dumps({"a" * 100_000: 1.0}).encode(), "a name of 100,000 characters"),
    "many names": (json.dumps({str(i): 1.0 for i in range(5000)}).encode(), "5,000 metrics"),
}


@pytest.mark.parametrize("kind", _HOSTILE)
@pytest.mark.parametrize("options", [(), ("--json",), ("--plot", "figure.png")], ids=["table", "json", "plot"])
def test_hostile_metrics_end_as_what_they_are(kind, options, tmp_path):
    content, reason = _HOSTILE[kind]
    hostile(tmp_path / "bucket", content)
    done = CliRunner().invoke(cli, ["metrics", str(tmp_path / "bucket"), *options], catch_exceptions=True)
    assert isinstance(done.exception, errors.ArtifactError)
    assert reason in str(done.exception)
    assert not (tmp_path / "figure.png").exists()


def test_a_hostile_file_in_a_process_of_its_own(tmp_path):
    """The exit code, a terminal that stays as it was, and memory that a bomb does not take."""
    hostile(tmp_path, gzip.compress(b'{"a": 1' + b" " * (600 << 20) + b"}", 6), population="p\x1b]0;PWNED\x07\u202e\x9b2J")
    for options in ((), ("--json",)):
        done = metrics(str(tmp_path), *options, cwd=tmp_path, preexec_fn=_with_little_memory)
        assert done.returncode == 9, done.stderr
        assert not set("\x1b\x07\u202e\x9b") & set(done.stdout + done.stderr)
        assert "p\\x1b]0;PWNED\\x07\\u202e\\x9b2J" in done.stderr


def _with_little_memory():
    resource.setrlimit(resource.RLIMIT_DATA, (200 << 20, 200 << 20))


def test_names_of_populations_are_escaped_in_tables_and_json(tmp_path):
    hostile(tmp_path, b'{"loss": 1.0}', population="p\x1b[2J\u202ea\nb")
    table = metrics(str(tmp_path), cwd=tmp_path).stdout
    assert table.splitlines()[0] == r"p\x1b[2J\u202ea\nb task 1"
    document = metrics(str(tmp_path), "--json", cwd=tmp_path).stdout
    assert not set("\x1b\u202e") & set(document)
    assert json.loads(document)["runs"][0]["run"] == "p\x1b[2J\u202ea\nb task 1"


@pytest.mark.parametrize("name", ["$\\badmacro{$", "$x^2$", "a$b", "\\frac", "_hidden", "%d {0}", "&<script>"])
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_names_in_a_figure_are_plain_text(name, suffix, tmp_path):
    hostile(tmp_path / "runs", json.dumps({name: 1.0}).encode(), population=name.replace("/", ""))
    done = CliRunner().invoke(cli, ["metrics", str(tmp_path / "runs"), "--plot", str(tmp_path / f"figure.{suffix}")])
    assert done.exception is None
    assert (tmp_path / f"figure.{suffix}").stat().st_size > 1000


def test_more_panels_than_a_figure_shows_are_refused(tmp_path):
    hostile(tmp_path / "runs", json.dumps({f"metric {i}": 1.0 for i in range(900)}).encode())
    done = CliRunner().invoke(cli, ["metrics", str(tmp_path / "runs"), "--plot", str(tmp_path / "figure.png")])
    assert isinstance(done.exception, errors.UsageError)
    assert "900 metrics to plot" in str(done.exception)
