"""Operations that can end a process: which are allowed all the same, which are not, and which spellings are refused."""

import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
import refused_models

import odp_taskbuilder.proto  # noqa: F401 - makes TensorFlow's messages importable without TensorFlow.
from odp_taskbuilder import scan
from odp_taskbuilder.scan import ops as scan_ops

from tensorflow.core.framework import types_pb2  # isort: skip
from tensorflow.core.protobuf import saved_model_pb2  # isort: skip

_SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "scripts"
# They ended the process under the fuzzer, or belong to those that did, and no client model needs them.
_GONE = """
AccumulateNV2 AdjustHue AudioSpectrogram AvgPool3DGrad AvgPoolGrad BlockLSTM BlockLSTMGrad BlockLSTMGradV2 BlockLSTMV2
CTCBeamSearchDecoder CTCLoss CombinedNonMaxSuppression ConjugateTranspose CropAndResize CropAndResizeGradBoxes
CropAndResizeGradImage DenseCountSparseOutput DenseToDenseSetOperation DenseToSparseSetOperation Dilation2D
Dilation2DBackpropFilter Dilation2DBackpropInput DrawBoundingBoxes DrawBoundingBoxesV2 FakeQuantWithMinMaxVarsPerChannelGradient
FractionalMaxPool FractionalMaxPoolGrad GRUBlockCell LRNGrad LSTMBlockCell LSTMBlockCellGrad MatrixDiagV2 MatrixLogarithm
MatrixSetDiagV3 MaxPool3DGrad MaxPool3DGradGrad MaxPoolGrad MaxPoolGradGrad MaxPoolGradGradV2 MaxPoolGradV2 MaxPoolGradWithArgmax
MaxPoolV2 Mfcc Qr QuantizeAndDequantizeV2 RaggedBincount RaggedCountSparseOutput RaggedCross RaggedFillEmptyRows RaggedGather
RaggedTensorFromVariant RaggedTensorToSparse RaggedTensorToVariantGradient RandomIndexShuffle ScatterNdNonAliasingAdd SetSize
SparseAddGrad SparseBincount SparseConcat SparseCountSparseOutput SparseCrossHashed SparseDenseCwiseAdd SparseDenseCwiseDiv
SparseDenseCwiseMul SparseFillEmptyRowsGrad SparseReduceMax SparseReduceSum SparseSegmentMeanGrad SparseSliceGrad
SparseSparseMaximum SparseSparseMinimum SparseSplit SparseTensorDenseAdd SparseToSparseSetOperation StringNGrams TensorListConcat
TensorListConcatLists TensorListPushBackBatch TensorListScatter TensorListScatterV2 UnicodeDecode UnicodeDecodeWithOffsets
UnicodeEncode UnsortedSegmentJoin
""".split()


@pytest.fixture
def findings_with(tmp_path):
    """A function that has `change` edit the library of the shipped example, and returns what the scan finds."""

    def findings(change):
        shutil.copytree(refused_models.EXAMPLE, tmp_path / "model")
        file = tmp_path / "model" / "saved_model.pb"
        saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
        change(saved_model.meta_graphs[0].graph_def.library)
        file.chmod(0o644)
        file.write_bytes(saved_model.SerializeToString())
        return scan.scan_model(tmp_path / "model").findings

    return findings


@pytest.fixture
def findings_of(findings_with):
    """A function that adds nodes to a function of the shipped example, as `change` does, and returns what the scan finds."""
    return lambda change: findings_with(lambda library: change(_function(library, "added")))


def _function(library, name):
    function = library.function.add()
    function.signature.name = name
    return function


def test_what_is_recorded_of_crashes_is_about_allowed_operations():
    entries = scan_ops.crashing_ops()
    ops = [entry["op"] for entry in entries]
    assert len(set(ops)) == len(ops)
    assert set(ops) <= set(scan_ops.allowed_ops())
    for entry in entries:
        assert set(entry) == {"op", "signals", "input", "why"}
        assert entry["signals"] and all(hasattr(signal, name) for name in entry["signals"])
        assert entry["input"] and entry["why"]


def test_operations_that_crash_and_that_nobody_needs_are_refused(findings_of):
    def add_all(function):
        for op in _GONE:
            function.node_def.add(name=op.lower(), op=op)

    assert {finding.op for finding in findings_of(add_all) if finding.node == finding.op.lower()} == set(_GONE)


def _negative_count(function):
    function.node_def.add(name="n", op="Einsum").attr["N"].i = -1


def _too_few_strides(function):
    node = function.node_def.add(name="n", op="AvgPool")
    node.attr["strides"].list.i.extend([1, 2, 2])


def _no_strides(function):
    function.node_def.add(name="n", op="AvgPool").attr["ksize"].list.i.extend([1, 2, 2, 1])


def _strides_of_another_kind(function):
    function.node_def.add(name="n", op="AvgPool").attr["strides"].list.f.extend([1, 2, 2, 1])


def _a_list_where_a_number_belongs(function):
    function.node_def.add(name="n", op="Pack").attr["N"].list.i.append(2)


def _a_padding_that_there_is_not(function):
    function.node_def.add(name="n", op="MaxPool").attr["padding"].s = b"ALL"


def _a_type_that_the_operation_does_not_take(function):
    function.node_def.add(name="n", op="MatMul").attr["T"].type = types_pb2.DT_STRING


def _a_reference(function):
    function.node_def.add(name="n", op="Identity").attr["T"].type = types_pb2.DT_FLOAT_REF


def _no_type(function):
    function.node_def.add(name="n", op="IdentityN").attr["T"].list.type.append(types_pb2.DT_INVALID)


def _blocks_whose_area_overflows(function):
    function.node_def.add(name="n", op="DepthToSpace").attr["block_size"].i = 2**16


def _a_million_batch_dimensions(function):
    function.node_def.add(name="n", op="GatherV2").attr["batch_dims"].i = 10**6


def _choice_by_a_number(function):
    node = function.node_def.add(name="n", op="If")
    node.attr["Tcond"].type = types_pb2.DT_UINT64


def _stateless_choice_by_a_text(function):
    node = function.node_def.add(name="n", op="StatelessIf")
    node.attr["Tcond"].type = types_pb2.DT_COMPLEX64


def _assertion_about_a_list(function):
    function.node_def.add(name="n", op="Assert").attr["T"].list.type.append(types_pb2.DT_VARIANT)


def _huge_and_empty(function):
    tensor = function.node_def.add(name="n", op="Const").attr["value"].tensor
    tensor.dtype = types_pb2.DT_FLOAT
    for size in (2**32, 0, 2**32):
        tensor.tensor_shape.dim.add(size=size)


def _reshaped_to_huge_and_empty(function):
    tensor = function.node_def.add(name="shape", op="Const").attr["value"].tensor
    tensor.dtype = types_pb2.DT_INT64
    tensor.tensor_shape.dim.add(size=3)
    tensor.int64_val.extend([2**32, 0, 2**32])
    function.signature.input_arg.add(name="a", type=types_pb2.DT_FLOAT)
    function.node_def.add(name="n", op="Reshape", input=["a", "shape:output:0"])


@pytest.mark.parametrize(
    "spelling, reason",
    [
        (_negative_count, "counts operands or results"),
        (_too_few_strides, "has 3 values; at least 4"),
        (_no_strides, "lacks the attribute 'strides'"),
        (_strides_of_another_kind, "'strides' is no list(int)"),
        (_a_list_where_a_number_belongs, "'N' is no int"),
        (_a_padding_that_there_is_not, "'padding' has a value"),
        (_a_type_that_the_operation_does_not_take, "'T' has a value"),
        (_a_reference, "'T' has a value"),
        (_no_type, "'T' has a value"),
        (_blocks_whose_area_overflows, "'block_size' is 65536"),
        (_a_million_batch_dimensions, "'batch_dims' is 1000000"),
        (_choice_by_a_number, "no truth value"),
        (_stateless_choice_by_a_text, "no truth value"),
        (_assertion_about_a_list, "handles or lists"),
        (_huge_and_empty, "no empty tensor has"),
        (_reshaped_to_huge_and_empty, "elements"),
    ],
)
def test_spellings_that_end_the_process_are_refused(findings_of, spelling, reason):
    assert any(finding.node in ("n", "") and reason in finding.reason for finding in findings_of(spelling))


def _add_loop(library, dtype, loop):
    """A loop that counts up, and goes on as long as its condition says so in a value of that type."""
    signature = {"type": types_pb2.DT_INT32}
    condition, body, caller = (_function(library, name) for name in ("condition", "body", "caller"))
    for function in (condition, body, caller):
        function.signature.input_arg.add(name="a", **signature)
    for function, name in ((body, "next:sum:0"), (caller, "loop:output:0")):
        function.signature.output_arg.add(name="b", **signature)
        function.ret["b"] = name
    condition.signature.output_arg.add(name="b", type=dtype)
    condition.ret["b"] = "cast:y:0"
    cast = condition.node_def.add(name="cast", op="Cast", input=["a"])
    cast.attr["SrcT"].type, cast.attr["DstT"].type = types_pb2.DT_INT32, dtype
    body.node_def.add(name="next", op="AddV2", input=["a", "a"]).attr["T"].type = types_pb2.DT_INT32
    node = caller.node_def.add(name="loop", op=loop, input=["a"])
    node.attr["cond"].func.name, node.attr["body"].func.name = "condition", "body"
    node.attr["T"].list.type.append(types_pb2.DT_INT32)


@pytest.mark.parametrize("loop", ["While", "StatelessWhile"])
def test_a_loop_whose_condition_is_no_truth_value_is_refused(findings_with, loop):
    (finding,) = findings_with(lambda library: _add_loop(library, types_pb2.DT_COMPLEX64, loop))
    assert (finding.node, finding.reason) == ("loop", "its condition is no truth value")


@pytest.mark.parametrize("op", ["PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf", "Case", "StatelessCase"])
@pytest.mark.parametrize("takes, gives", [([], [types_pb2.DT_INT32]), ([types_pb2.DT_INT32], []), ([types_pb2.DT_INT64], [types_pb2.DT_INT32])])
def test_a_call_that_does_not_fit_its_function_is_refused(findings_with, op, takes, gives):
    def add(library, takes, gives):
        callee = _function(library, "callee")
        callee.signature.input_arg.add(name="a", type=types_pb2.DT_INT32)
        callee.signature.output_arg.add(name="b", type=types_pb2.DT_INT32)
        callee.ret["b"] = "a"
        call = _function(library, "caller").node_def.add(name="call", op=op)
        call.attr["Tin"].list.type.extend(takes)
        call.attr["Tout"].list.type.extend(gives)
        call.attr["Tcond"].type = types_pb2.DT_BOOL
        for key in ("f",) if "Call" in op else ("then_branch", "else_branch") if "If" in op else ():
            call.attr[key].func.name = "callee"
        if "Case" in op:
            call.attr["branches"].list.func.add(name="callee")

    findings = findings_with(lambda library: add(library, takes, gives))
    assert findings and all(finding.node == "call" and "than it takes and returns" in finding.reason for finding in findings)


@pytest.mark.parametrize("loop", ["While", "StatelessWhile"])
def test_the_same_loop_with_a_truth_value_is_accepted(findings_with, loop):
    assert findings_with(lambda library: _add_loop(library, types_pb2.DT_BOOL, loop)) == ()


def test_what_the_scan_knows_of_attributes_is_what_tensorflow_defines(tmp_path):
    subprocess.run([sys.executable, _SCRIPTS / "list-op-attributes", tmp_path / "attributes.json"], check=True, capture_output=True)
    assert (tmp_path / "attributes.json").read_text() == (pathlib.Path(scan_ops.__file__).parent / "op_attributes.json").read_text()


@pytest.mark.full
def test_a_minute_of_the_fuzzer_finds_no_signal_but_those_recorded():
    done = subprocess.run([sys.executable, _SCRIPTS / "fuzz-allowed-ops", "--minutes", "1", "--trials", "60"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "signals that are not recorded: none" in done.stdout
