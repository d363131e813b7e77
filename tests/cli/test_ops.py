"""`odp-task ops`."""

import json
import subprocess
import sys

_COMMAND = [sys.executable, "-c", "from odp_taskbuilder.cli.main import main; main()", "ops"]


def _run(*arguments):
    return subprocess.run([*_COMMAND, *map(str, arguments)], capture_output=True, text=True)


def test_every_op_with_its_kernel_count_and_version(golden):
    run = _run(golden / "keras_dense" / "expected_mapreduce", "--json")
    assert run.returncode == 0, run.stderr
    training, evaluation = json.loads(run.stdout)
    assert (training["min_module_version"], evaluation["min_module_version"]) == (341912000, 341812000)
    ops = {op.pop("name"): op for op in training["ops"]}
    assert len(ops) == 43
    assert ops["L2Loss"] == {
        "kind": "flex",
        "count": 4,
        "subgraphs": {"0": 4},
        "min_module_version": 341912000,
        "kernel": "L2LossOp<CPUDevice, float>",
    }
    assert ops["SUB"] == {"kind": "builtin", "count": 17, "subgraphs": {"0": 9, "2": 8}, "min_module_version": 0, "kernel": ""}


def test_would_it_run_on_an_older_module(golden):
    plan = golden / "keras_dense" / "expected_mapreduce" / "client_only_plan.pb"
    run = _run(plan, "--min_module_version", "341812000")
    assert run.returncode == 6
    assert run.stdout.splitlines()[-1] == "Module version 341812000 does not have L2Loss."
    run = _run(plan, "--min-module-version", "341912000")
    assert run.returncode == 0
    assert run.stdout.splitlines()[-1] == "Needs module version 341912000. Version 341912000 runs it."


def test_a_list_of_ones_own(golden, tmp_path):
    (tmp_path / "ops.csv").write_text("1,MapDataset\n")
    run = _run(golden / "keras_dense" / "expected_mapreduce" / "plan.pb", "--allowlist", tmp_path / "ops.csv", "--json")
    assert run.returncode == 6
    (graph,) = json.loads(run.stdout)
    assert "MapDataset" not in graph["unsupported"]
    assert "ReluGrad" in graph["unsupported"]
    assert graph["min_module_version"] is None


def test_a_faulty_list_is_refused(golden, tmp_path):
    (tmp_path / "ops.csv").write_text("MapDataset\n")
    run = _run(golden / "keras_dense" / "expected_mapreduce", "--allowlist", tmp_path / "ops.csv")
    assert run.returncode == 2
    assert f"{tmp_path / 'ops.csv'}:1: expected a line like" in run.stderr
