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
    (report,) = json.loads(made.stdout)["parts"]
    assert (report["clients"], report["examples"]) == (10, 1797)
    assert sum(report["labels"]["counts"].values()) == 1797
    described = odp_task("data", "describe", tmp_path / "out", "--json")
    assert json.loads(described.stdout) == {"schema_version": 1, **report}
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


def test_rows_become_the_bytes_that_a_phone_hands_over_and_back(tmp_path):
    digits = pathlib.Path(__file__).parents[2] / "configs" / "digits"
    task = ("--saved_model", digits / "saved_model", "--task_config", digits / "train.pbtxt")
    row = {"x": [number / 16 for number in range(64)], "y": [3]}
    (tmp_path / "row.json").write_text(json.dumps({**row, "y": 3}))
    encoded = odp_task("data", "encode", tmp_path / "row.json", *task)
    assert encoded.returncode == 0, encoded.stderr
    (tmp_path / "logged.txt").write_text(encoded.stdout)
    decoded = odp_task("data", "decode", tmp_path / "logged.txt", *task)
    assert (decoded.returncode, json.loads(decoded.stdout)) == (0, row)
    assert odp_task("data", "encode", tmp_path / "row.json", *task, "--output", tmp_path / "row.tfrecord").returncode == 0
    assert json.loads(odp_task("data", "decode", tmp_path / "row.tfrecord").stdout) == row
    again = odp_task("data", "encode", tmp_path / "row.json", *task, "--output", tmp_path / "row.tfrecord")
    assert (again.returncode, again.stderr) == (
        7,
        f"Error: {tmp_path / 'row.tfrecord'} exists.\nChoose another file, or replace it with --overwrite.\n",
    )


def test_an_example_that_a_phone_could_not_train_on_ends_with_2(tmp_path):
    digits = pathlib.Path(__file__).parents[2] / "configs" / "digits"
    task = ("--saved_model", digits / "saved_model", "--task_config", digits / "train.pbtxt")
    # {"y": [3]}
    (tmp_path / "logged.txt").write_text("0a0c0a0a0a017912051a030a0103\n")
    decoded = odp_task("data", "decode", tmp_path / "logged.txt", *task)
    assert (decoded.returncode, decoded.stdout) == (2, '{"y": [3]}\n')
    assert decoded.stderr == f"Error: {tmp_path / 'logged.txt'}:1: feature 'x' is missing.\n"
    assert odp_task("data", "encode", tmp_path / "logged.txt").returncode == 2
