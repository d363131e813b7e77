"""`odp-task data` prints what it made, as text and as JSON, and refuses with the documented exit codes."""

import json
import pathlib
import subprocess
import sys

import pytest

ODP_TASK = pathlib.Path(sys.executable).with_name("odp-task")


def odp_task(*args):
    return subprocess.run([ODP_TASK, *map(str, args)], capture_output=True, text=True, timeout=120)


def test_digits_are_dealt_and_described(tmp_path):
    pytest.importorskip("sklearn")
    made = odp_task(
        "data",
        "partition",
        "digits",
        "--output",
        tmp_path / "out",
        "--clients",
        10,
        "--strategy",
        "dirichlet",
        "--alpha",
        0.5,
        "--json",
    )
    assert made.returncode == 0, made.stderr
    (report,) = json.loads(made.stdout)
    assert (report["clients"], report["examples"]) == (10, 1797)
    assert sum(report["labels"]["counts"].values()) == 1797
    described = odp_task("data", "describe", tmp_path / "out", "--json")
    assert json.loads(described.stdout) == report
    text = odp_task("data", "describe", tmp_path / "out").stdout
    assert text.startswith(f"{tmp_path / 'out'}: 10 clients, 1797 examples\n")
    assert "feature x: float32[64]\n" in text
    assert f"mean {report['labels']['mean_distance']:.3f}" in text


def test_exit_codes(tmp_path):
    (tmp_path / "bad.tfrecord").write_bytes(b"x" * 100)
    assert odp_task("data", "partition", "digits", "--output", tmp_path / "out").returncode == 2
    damaged = odp_task("data", "describe", tmp_path)
    assert damaged.returncode == 7
    assert damaged.stderr.startswith(f"Error: {tmp_path / 'bad.tfrecord'} is not a sound TFRecord file: record at byte 0")
    assert "Traceback" not in damaged.stderr


def test_examples_that_phones_do_not_take_are_counted(tmp_path):
    rows = [f"{client},{'x' * length}" for client, length in (("a", 10), ("a", 60_000), ("b", 70_000))]
    (tmp_path / "table.csv").write_text("\n".join(["user,text", *rows]) + "\n")
    data = f"{tmp_path / 'table.csv'}?client=user&x:string=text"
    report = json.loads(odp_task("data", "describe", data, "--json").stdout)
    assert report["oversized_examples"] == 2 and 70_000 < report["largest_example"] < 70_100
    text = odp_task("data", "describe", data).stdout
    assert (
        f"WARNING: 2 examples have more than the 50,000 bytes that phones take; the largest has {report['largest_example']:,}"
        in text
    )
