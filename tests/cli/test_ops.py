"""`odp-task ops`."""

import json
import pathlib
import subprocess
import sys

import pytest

from odp_taskbuilder.ops.allowlist import Allowlist

_ODP_TASK = [sys.executable, "-c", "from odp_taskbuilder.cli.main import main; main()"]
_COMMAND = [*_ODP_TASK, "ops"]


def _run(*arguments):
    return subprocess.run([*_COMMAND, *map(str, arguments)], capture_output=True, text=True)


def test_every_op_with_its_kernel_count_and_version(golden):
    run = _run(golden / "keras_dense" / "expected_mapreduce", "--json")
    assert run.returncode == 0, run.stderr
    training, evaluation = json.loads(run.stdout)["graphs"]
    assert (training["min_module_version"], evaluation["min_module_version"]) == (341912000, 341812000)
    ops = {op.pop("name"): op for op in training["ops"]}
    assert len(ops) == 43
    assert ops["L2Loss"] == {
        "kind": "flex",
        "count": 4,
        "subgraphs": {"0": 4},
        "min_module_version": 341912000,
        "version": 1,
        "min_tflite_runtime": None,
        "kernel": "L2LossOp<CPUDevice, float>",
    }
    assert ops["ADD"] == {
        "kind": "builtin",
        "count": 9,
        "subgraphs": ops["ADD"]["subgraphs"],
        "min_module_version": 0,
        "version": 4,
        "min_tflite_runtime": "2.6.0",
        "kernel": "",
    }
    assert (ops["SUB"]["count"], ops["SUB"]["subgraphs"]) == (17, {"0": 9, "2": 8})
    assert (training["min_tflite_runtime"], evaluation["min_tflite_runtime"]) == ("2.6.0", "1.15.0")


def test_would_it_run_on_an_older_module(golden):
    plan = golden / "keras_dense" / "expected_mapreduce" / "client_only_plan.pb"
    run = _run(plan, "--min_module_version", "341812000")
    assert run.returncode == 6
    assert "Module version 341812000 does not have L2Loss." in run.stdout.splitlines()
    assert "instead: use_daf: true in the task config" in run.stdout
    run = _run(plan, "--min-module-version", "341912000")
    assert run.returncode == 0
    assert run.stdout.splitlines()[-2:] == [
        "Needs module version 341912000. Version 341912000 runs it.",
        "Needs TensorFlow Lite 2.6.0; phones have a fork of about 2.10.0.",
    ]


def test_a_list_of_ones_own(golden, tmp_path):
    (tmp_path / "ops.csv").write_text("1,MapDataset\n")
    run = _run(golden / "keras_dense" / "expected_mapreduce" / "plan.pb", "--allowlist", tmp_path / "ops.csv", "--json")
    assert run.returncode == 6
    (graph,) = json.loads(run.stdout)["graphs"]
    unsupported = {op["name"] for op in graph["unsupported"]}
    assert "ReluGrad" in unsupported
    assert "MapDataset" not in unsupported
    assert graph["min_module_version"] is None


def test_a_faulty_list_is_refused(golden, tmp_path):
    (tmp_path / "ops.csv").write_text("MapDataset\n")
    run = _run(golden / "keras_dense" / "expected_mapreduce", "--allowlist", tmp_path / "ops.csv")
    assert run.returncode == 2
    assert f"{tmp_path / 'ops.csv'}:1: expected a line like" in run.stderr


_CONFIG = """
mode: TRAINING_ONLY
population_name: "emnist"
policies {
  min_separation_policy { minimum_separation: 1 }
  data_availability_policy { min_example_count: 1 }
  model_release_policy { num_max_training_rounds: 1000 }
}
federated_learning {
  learning_process {
    client_learning_rate: 0.1
    server_learning_rate: 1.0
    runtime_config { report_goal: 100 }
    metrics { name: "sparse_categorical_accuracy" }
  }
}
differential_privacy { noise_multiplier: 1.0 clip_norm: 0.1 }
"""


@pytest.fixture(scope="module")
def emnist(tmp_path_factory):
    """The folder with the CNN and the config; and what is told of the recurrent network, with ops replaced and kept."""
    folder = tmp_path_factory.mktemp("emnist")
    (folder / "config.pbtxt").write_text(_CONFIG)
    script = pathlib.Path(__file__).with_name("emnist_models.py")
    arguments = [sys.executable, str(script), str(folder), str(folder / "config.pbtxt")]
    run = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return folder, json.loads(run.stdout)


def test_an_emnist_cnn_is_told_which_layers_and_loss_bring_what_phones_lack(emnist):
    folder, _ = emnist
    run = _run("--saved_model", folder / "cnn", "--task_config", folder / "config.pbtxt", "--json")
    assert run.returncode == 0
    (graph,) = json.loads(run.stdout)["graphs"]
    assert (graph["unsupported"], graph["min_module_version"]) == ([], 341812000)
    assert {
        op["name"]: [(origin["part"], origin["name"], origin["backward"]) for origin in op["origins"]]
        for op in graph["replaced"]
    } == {
        "Conv2DBackpropFilter": [("layer", "sequential/shapes", True), ("layer", "sequential/strokes", True)],
        "MaxPoolGrad": [("layer", "sequential/halve_again", True), ("layer", "sequential/halve", True)],
        "SparseSoftmaxCrossEntropyWithLogits": [("loss", "sparse_categorical_crossentropy", False)],
    }
    assert {op["name"]: op["count"] for op in graph["replaced"]} == {
        "Conv2DBackpropFilter": 2,
        "MaxPoolGrad": 2,
        "SparseSoftmaxCrossEntropyWithLogits": 1,
    }


def test_what_was_replaced_stands_in_report_manifest_and_listings(emnist, tmp_path):
    folder, _ = emnist
    arguments = ["build", "--saved_model", folder / "cnn", "--task_config", folder / "config.pbtxt", "--output", tmp_path]
    built = subprocess.run([*_ODP_TASK, *arguments], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    artifacts = tmp_path / "emnist"
    wanted = {"Conv2DBackpropFilter": 2, "MaxPoolGrad": 2, "SparseSoftmaxCrossEntropyWithLogits": 1}
    written = json.loads((artifacts / "manifest.json").read_text())["replaced_ops"]["client_only_plan.pb"]
    assert {op: entry["count"] for op, entry in written.items()} == wanted
    report = (artifacts / "report.pbtxt").read_text()
    assert all(f"# The training client plan computes {op} (x{count}) with ops that phones have: " in report for op, count in wanted.items())
    (graph,) = json.loads(_run(artifacts, "--json").stdout)["graphs"]
    assert {op["name"]: op["count"] for op in graph["replaced"]} == wanted
    text = subprocess.run([*_ODP_TASK, "inspect", artifacts], capture_output=True, text=True).stdout
    assert "replaced" in text and "Conv2DBackpropFilter x2: slices of the input" in text


def test_ops_are_kept_on_request_and_where_a_newer_list_has_them(emnist, tmp_path):
    folder, _ = emnist
    arguments = ["build", "--saved_model", folder / "cnn", "--task_config", folder / "config.pbtxt", "--output", tmp_path]
    kept = subprocess.run([*_ODP_TASK, *arguments, "--keep_ops"], capture_output=True, text=True)
    assert kept.returncode == 6
    assert "Please contact Google to register these ops: {'Conv2DBackpropFilter': 'Conv2DCustomBackpropFilterOp<CPUDevice, float>'" in kept.stderr
    known = "".join(f"341812000,{op}\n" for op in Allowlist.builtin().min_module_versions)
    (tmp_path / "ops.csv").write_text(f"{known}351812000,MaxPoolGrad\n")
    model = ["--saved_model", folder / "cnn", "--task_config", folder / "config.pbtxt"]
    (graph,) = json.loads(_run(*model, "--allowlist", tmp_path / "ops.csv", "--json").stdout)["graphs"]
    assert {op["name"] for op in graph["replaced"]} == {"Conv2DBackpropFilter", "SparseSoftmaxCrossEntropyWithLogits"}
    assert graph["min_module_version"] == 351812000


def test_ops_in_the_bodies_of_loops_and_branches_are_told_from_what_calls_them(emnist):
    (traced_again,) = emnist[1]["replaced"]
    assert traced_again["unsupported"] == []
    told = {op["name"]: (op["count"], op["by"]) for op in traced_again["replaced"]}
    assert told["While"] == (1, "a loop whose gradient computes each step again (reader/memory/while of 6 steps)")
    assert told["If"][0] == 1 and "computes the branch taken again (hinge/cond" in told["If"][1]
    (graph,) = emnist[1]["kept"]
    found = {op["name"]: {(origin["part"], origin["name"]) for origin in op["origins"]} for op in graph["unsupported"]}
    assert {"EmptyTensorList", "TensorListPushBack", "TensorListPopBack", "OptionalFromValue"} <= found.keys()
    for op, places in found.items():
        assert places == ({("loss", "hinge")} if op.startswith("Optional") else {("layer", "reader/memory")}), op


def test_a_path_and_a_model_at_once_are_a_usage_error(golden):
    for arguments in ((), ("--saved_model", "x"), (golden, "--saved_model", "x", "--task_config", "y")):
        run = _run(*arguments)
        assert run.returncode == 2
        assert "Give either PATH, or --saved_model and --task_config." in run.stderr
