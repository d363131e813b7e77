"""Which ops a client graph uses, and what phones need to run it."""

import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.ops import report
from odp_taskbuilder.ops.allowlist import Allowlist
from odp_taskbuilder.ops.tflite import OpKind
from odp_taskbuilder.proto import plan_pb2

_TRAINING_BUILTINS = (
    "ADD 9, ADD_N 1, BATCH_MATMUL 4, CAST 4, DIV 5, EQUAL 4, FILL 2, FULLY_CONNECTED 1, GATHER 1, GREATER_EQUAL 1, IF 1, LESS_EQUAL 1, LOG 2, "
    "LOGICAL_AND 3, LOGISTIC 1, MAXIMUM 1, MEAN 1, MINIMUM 2, MUL 21, NEG 3, PACK 1, REDUCE_ALL 4, RESHAPE 10, SELECT_V2 2, SHAPE 12, SOFTMAX 1, "
    "SQRT 1, STRIDED_SLICE 2, SUB 17, SUM 13, ZEROS_LIKE 2"
)
_TRAINING_FLEX = (
    "BatchDatasetV2 1, BroadcastGradientArgs 8, ExternalDataset 1, L2Loss 4, MapDataset 1, ParseExampleV2 1, ReduceDataset 1, ReluGrad 1, "
    "RestoreV2 5, SaveSlices 1, StridedSliceGrad 1, TakeDataset 1"
)
_EVALUATION_BUILTINS = (
    "ADD 7, CAST 2, FULLY_CONNECTED 2, IF 1, LOG 2, LOGISTIC 1, MAXIMUM 1, MEAN 1, MINIMUM 1, MUL 3, NEG 1, RANGE 2, RANK 2, RESHAPE 1, SHAPE 1, "
    "SOFTMAX 1, STRIDED_SLICE 2, SUB 4, TRANSPOSE 2, WHILE 1"
)
_EVALUATION_FLEX = (
    "AnonymousIteratorV3 1, BatchDatasetV2 1, ExternalDataset 1, IteratorGetNextAsOptional 1, MakeIterator 1, MapDataset 1, OptionalGetValue 1, "
    "OptionalHasValue 1, ParseExampleV2 1, RestoreV2 4, SaveSlices 1, TakeDataset 1"
)


def _tflite_graph(golden, name):
    plan = plan_pb2.ClientOnlyPlan.FromString((golden / "keras_dense" / name).read_bytes())
    return plan.tflite_graph


def _counts(ops, kind):
    return ", ".join(f"{use.op} {use.count}" for use in ops.ops if use.kind is kind)


@pytest.mark.parametrize(
    ("name", "subgraphs", "flex", "builtins", "version"),
    [
        ("expected_mapreduce/client_only_plan.pb", 5, _TRAINING_FLEX, _TRAINING_BUILTINS, "341912000"),
        (
            "expected_distribute_aggregate/client_only_plan.pb",
            5,
            _TRAINING_FLEX.replace("L2Loss 4, ", ""),
            _TRAINING_BUILTINS.replace("DIV 5", "DIV 9").replace("MUL 21", "MUL 25").replace("SUM 13", "SUM 17"),
            "341812000",
        ),
        ("expected_mapreduce/eval_client_only_plan.pb", 6, _EVALUATION_FLEX, _EVALUATION_BUILTINS, "341812000"),
        ("expected_distribute_aggregate/eval_client_only_plan.pb", 6, _EVALUATION_FLEX, _EVALUATION_BUILTINS, "341812000"),
    ],
)
def test_ops_of_the_published_plans(golden, name, subgraphs, flex, builtins, version):
    ops = report.ops_report(_tflite_graph(golden, name))
    assert len(ops.subgraphs) == subgraphs
    assert _counts(ops, OpKind.FLEX) == flex
    assert _counts(ops, OpKind.BUILTIN) == builtins
    assert report.check_ops(ops) == version


def test_kernel_classes_are_those_of_the_guide(golden):
    ops = report.with_kernels(report.ops_report(_tflite_graph(golden, "expected_mapreduce/client_only_plan.pb")))
    assert {use.op: use.kernel for use in ops.ops if use.kind is OpKind.FLEX} == {
        "BatchDatasetV2": "BatchDatasetOp",
        "BroadcastGradientArgs": "BCastGradArgsOp<int32>",
        "ExternalDataset": "",
        "L2Loss": "L2LossOp<CPUDevice, float>",
        "MapDataset": "MapDatasetOp",
        "ParseExampleV2": "ParseExampleOp",
        "ReduceDataset": "ReduceDatasetOp",
        "ReluGrad": "ReluGradOp<CPUDevice, float>",
        "RestoreV2": "RestoreV2",
        "SaveSlices": "SaveSlicesOp",
        "StridedSliceGrad": "StridedSliceGradOp<CPUDevice, float>",
        "TakeDataset": "TakeDatasetOp",
    }


def test_unsupported_ops_are_refused_in_the_words_of_the_guide(golden):
    builtin = dict(Allowlist.builtin().min_module_versions)
    del builtin["ReluGrad"], builtin["L2Loss"]
    ops = report.ops_report(_tflite_graph(golden, "expected_mapreduce/client_only_plan.pb"), allowlist=Allowlist(builtin))
    with pytest.raises(errors.UnsupportedOpsError) as refusal:
        report.check_ops(ops)
    assert refusal.value.message == (
        "Cannot build the ClientOnlyPlan: Please contact Google to register these ops: "
        "{'L2Loss': 'L2LossOp<CPUDevice, float>', 'ReluGrad': 'ReluGradOp<CPUDevice, float>'}"
    )
    assert refusal.value.ops == {"L2Loss": "L2LossOp<CPUDevice, float>", "ReluGrad": "ReluGradOp<CPUDevice, float>"}


def test_versions_are_compared_as_numbers(golden):
    versions = dict.fromkeys(Allowlist.builtin().min_module_versions, 341812000)
    # As strings, "99" and "1000000000" would both sort wrongly.
    versions.update(L2Loss=1000000000, ReluGrad=99)
    ops = report.ops_report(_tflite_graph(golden, "expected_mapreduce/client_only_plan.pb"), allowlist=Allowlist(versions))
    assert report.check_ops(ops) == "1000000000"


def test_one_module_version_can_be_asked_about(golden):
    ops = report.ops_report(_tflite_graph(golden, "expected_mapreduce/client_only_plan.pb"))
    assert [use.op for use in ops.unsupported(341812000)] == ["L2Loss"]
    assert ops.unsupported(341912000) == ()
