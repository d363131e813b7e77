"""What `inspect` says about plans and checkpoints equals what is known about them (spec: plan.md, section 11)."""

import handmade_artifacts as handmade
import numpy as np
import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.inspection import document, inspect
from odp_taskbuilder.inspection.text import inspection_text
from odp_taskbuilder.plan import checkpoint

_GENERATOR = "server/aggregator/inner_agg/query_state/numerator_state/tree_state/value_generator_state"
_WEIGHTS = [[784, 256], [256], [256, 2], [2]]


@pytest.fixture(scope="module")
def published(golden):
    """File -> document, for both published sets; and the traffic, with the checkpoint's shapes at hand."""
    inspection = inspect.inspect(
        [golden / "keras_dense" / form for form in ("expected_mapreduce", "expected_distribute_aggregate")]
    )
    whole = document.inspection_document(inspection)
    files = {tuple(file["path"].split("/")[-2:]): file for file in whole["files"]}
    traffic = {(entry["directory"].split("/")[-1], entry["task"]): entry for entry in whole["traffic"]}
    return files, traffic


@pytest.mark.parametrize(
    ("form", "task", "plan", "download", "upload"),
    [
        ("expected_mapreduce", "training", 31698, 806519, 806518),
        ("expected_mapreduce", "evaluation", 16846, 806384, 240),
        ("expected_distribute_aggregate", "training", 38187, 806519, 806518),
        ("expected_distribute_aggregate", "evaluation", 16899, 806384, 240),
    ],
)
def test_bytes_that_a_device_transfers_are_those_of_the_real_files(published, form, task, plan, download, upload):
    entry = published[1][form, task]
    assert (entry["plan_bytes"], entry["download_bytes"], entry["upload_bytes"]) == (plan, download, upload)


@pytest.mark.parametrize("form", ["expected_mapreduce", "expected_distribute_aggregate"])
@pytest.mark.parametrize("name", ["plan.pb", "client_only_plan.pb", "eval_plan.pb", "eval_client_only_plan.pb"])
def test_client_phase_of_all_published_plans(published, form, name):
    client = published[0][form, name]["client"]
    selector = "" if form == "expected_mapreduce" else None
    string = {"dtype": "string", "shape": [], "bytes": None}
    assert client["session"] == {
        "dataset_token": "data_token:0",
        "inputs": [{"name": "input_filepath:0", **string}, {"name": "output_filepath:0", **string}],
        "outputs": [],
        "targets": ["save_client_update_tensors"],
        "files": {"input_filepath_tensor_name": "input_filepath:0", "output_filepath_tensor_name": "output_filepath:0"},
        "example_selector_uri": selector,
    }
    assert client["tflite"]["inputs"] == [
        {"name": "data_token:0", **string},
        {"name": "input_filepath:0", **string},
        {"name": "output_filepath:0", **string},
    ]
    examples = client["examples"]
    assert [(tensor["name"], tensor["dtype"], tensor["shape"]) for tensor in examples["features"]] == [
        ("x", "float32", [784]),
        ("y", "int64", [1]),
    ]
    assert (examples["batch_size"], examples["max_batches"]) == (3, -1)
    assert examples["loop"] == ("IteratorGetNextAsOptional" if name.startswith("eval") else "ReduceDataset")


def test_tensors_that_devices_exchange(published):
    training = published[1]["expected_mapreduce", "training"]
    assert [(tensor["name"], tensor["shape"]) for tensor in training["download"]] == [
        *((f"client/0/trainable/{index}", shape) for index, shape in enumerate(_WEIGHTS)),
        ("client/1", []),
    ]
    assert [(tensor["name"], tensor["shape"]) for tensor in training["upload"]] == [
        ("update/0/loss/0", []),
        ("update/0/loss/1", []),
        *((f"update/1/{index}", shape) for index, shape in enumerate(_WEIGHTS)),
    ]


def test_server_part_in_mapreduce_form(published):
    plan = published[0]["expected_mapreduce", "plan.pb"]
    assert (plan["kind"], plan["form"], plan["version"], plan["bytes"]) == ("Plan", "MapReduce", 1, 151342)
    server = plan["server"]
    assert server["ops"] == {
        "phase_init_op": "group_deps_4",
        "aggregate_into_accumulators_op": "group_deps_3",
        "intermediate_aggregate_into_accumulators_op": "group_deps_5",
        "apply_aggregrated_updates_op": "group_deps_6",
    }
    assert server["checkpoints"]["server_savepoint"] == {
        "before_restore": "initialize_server_state_and_non_state_vars",
        "restore": "server_savepoint/restore_all",
        "save": "save_server_savepoint/control_dependency:0",
        "filename_tensor": "server_savepoint/Const:0",
        "version": "V1",
    }
    assert server["checkpoints"]["read_aggregated_update"] == {"before_restore": "group_deps", "after_restore": "group_deps_1"}
    assert server["metrics"] == [
        {"name": "server/client_work/train/loss", "tensor": "Identity_54:0"},
        {"name": "server/finalizer/update_non_finite", "tensor": "Identity_55:0"},
    ]
    graph = server["graph"]
    assert (graph["bytes"], graph["nodes"], len(graph["variables"])) == (118517, 887, 37)
    assert graph["ops"]["RandomStandardNormal"] == 4
    assert len(graph["saves"]["save_server_savepoint/save"]) == 14


def test_server_part_in_distribute_aggregate_form(published):
    plan = published[0]["expected_distribute_aggregate", "plan.pb"]
    assert (plan["form"], plan["bytes"]) == ("DistributeAggregate", 198502)
    server = plan["server"]
    assert server["prepare"]["targets"] == ["save_prepared_values_tensors", "save_intermediate_state_values_tensors"]
    assert server["result"]["files"] == {
        "result_intermediate_state_input_filepath_tensor_name": "server_intermediate_state_input_filepath:0",
        "result_aggregate_result_input_filepath_tensor_name": "aggregate_result_input_filepath:0",
        "result_server_state_output_filepath_tensor_name": "server_state_output_filepath:0",
    }
    assert [
        (entry["intrinsic"], entry["inputs"][0]["name"], entry["inputs"][0]["shape"], entry["name"])
        for entry in server["aggregations"]
    ] == [
        ("federated_sum", "update/0/loss/0", [], "intermediate_update/0/0/loss/0"),
        ("federated_sum", "update/0/loss/1", [], "intermediate_update/0/0/loss/1"),
        *(
            ("federated_sum", f"update/1/{index}", shape, f"intermediate_update/0/1/{index}")
            for index, shape in enumerate(_WEIGHTS)
        ),
    ]
    assert (server["prepare_graph"]["bytes"], server["prepare_graph"]["nodes"]) == (27592, 208)
    assert (server["result_graph"]["bytes"], server["result_graph"]["nodes"]) == (131451, 877)
    assert [metric["name"] for metric in server["metrics"]] == [
        "server/client_work/train/loss",
        "server/finalizer/update_non_finite",
    ]


def test_published_initial_checkpoint(published):
    state = published[0]["expected_mapreduce", "initial_state.server.ckp"]
    assert (state["kind"], state["role"], state["bytes"]) == ("checkpoint", "server state", 807799)
    tensors = {tensor.pop("name"): tensor for tensor in map(dict, state["tensors"])}
    assert len(tensors) == 12
    assert tensors["server/aggregator/dp_event/class_name"] == {
        "dtype": "string",
        "shape": [],
        "bytes": None,
        "value": "GaussianDpEvent",
    }
    assert tensors["server/aggregator/is_init_state"] == {"dtype": "bool", "shape": [], "bytes": 1, "value": True}
    weights = tensors["server/global_model_weights/trainable/0"]
    assert (weights["shape"], weights["bytes"], weights["statistics"]["non_finite"]) == ([784, 256], 802816, 0)
    assert weights["statistics"]["norm"] == pytest.approx(19.63161, rel=1e-6)
    assert state["privacy"]["aggregator"] == "FIXED_GAUSSIAN"
    parameters = {entry["name"].rpartition("/")[2]: entry["value"] for entry in state["privacy"]["parameters"]}
    assert parameters["l2_norm_clip"] == pytest.approx(0.1)
    assert parameters["noise_multiplier"] == pytest.approx(0.22200349)
    assert parameters["stddev"] == pytest.approx(0.02220035)
    assert parameters["denominator"] == 2.0
    assert state["privacy"]["noise_seeds"] == []


def test_a_directory_is_inspected_together(tmp_path):
    inspection = inspect.inspect([handmade.save(tmp_path / "out")])
    assert [(file.path.name, file.kind, file.task) for file in inspection.files] == [
        ("plan.pb", "Plan", "training"),
        ("client_only_plan.pb", "ClientOnlyPlan", "training"),
        ("initial_state.server.ckp", "checkpoint", "training"),
    ]
    (entry,) = inspection.traffic
    assert entry.traffic.plan_bytes == (tmp_path / "out" / "client_only_plan.pb").stat().st_size
    assert [str(tensor) for tensor in entry.traffic.download] == ["client/0 float32[3, 2]"]


def test_batches_and_selector_of_a_handmade_plan(tmp_path):
    handmade.save(tmp_path / "out", batch_size=12)
    inspection = inspect.inspect([tmp_path / "out" / "plan.pb"])
    graph = inspection.files[0].facts.client.graph
    assert (graph.batch_size, graph.max_batches, graph.example_selector_uri) == (12, None, None)


def _tree_state(path, seeds):
    tensors = {f"{_GENERATOR}/seeds": np.array(seeds, np.int64), f"{_GENERATOR}/stddev": np.array(0.7, np.float32)}
    with open(path, "wb") as file:
        checkpoint.write_checkpoint(
            file,
            [
                checkpoint.CheckpointTensor(name, 9 if value.dtype == np.int64 else 1, value.shape, lambda value=value: value)
                for name, value in tensors.items()
            ],
        )
    return inspect.inspect([path])


def test_noise_seeds_in_a_checkpoint_are_pointed_out(tmp_path):
    inspection = _tree_state(tmp_path / "tree.ckp", [3, 4])
    privacy = inspection.files[0].facts.privacy
    assert privacy.aggregator == "TREE_AGGREGATION"
    assert privacy.noise_seeds == (f"{_GENERATOR}/seeds",)
    assert "can take the noise off the model" in inspection_text(inspection)


def test_an_evaluation_tasks_state_of_zeros_has_no_seeds_to_point_out(tmp_path):
    inspection = _tree_state(tmp_path / "tree.ckp", [0, 0])
    assert inspection.files[0].facts.privacy.noise_seeds == ()
    assert "can take the noise off the model" not in inspection_text(inspection)


def test_an_empty_directory_holds_no_artifacts(tmp_path):
    with pytest.raises(errors.ArtifactError, match="holds no artifacts"):
        inspect.inspect([tmp_path])
