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

_FUZZER = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "fuzz-allowed-ops"
# They ended the process under the fuzzer, or belong to those that did, and no client model needs them.
_GONE = """
AccumulateNV2 AdjustHue AudioSpectrogram BlockLSTM BlockLSTMGrad BlockLSTMGradV2 BlockLSTMV2 CTCBeamSearchDecoder CTCLoss
CombinedNonMaxSuppression CropAndResizeGradBoxes CropAndResizeGradImage Dilation2D Dilation2DBackpropFilter Dilation2DBackpropInput
DrawBoundingBoxes DrawBoundingBoxesV2 FakeQuantWithMinMaxVarsPerChannelGradient FractionalMaxPool FractionalMaxPoolGrad GRUBlockCell
LRNGrad LSTMBlockCell LSTMBlockCellGrad MatrixDiagV2 MatrixLogarithm MaxPoolGradWithArgmax Mfcc Qr QuantizeAndDequantizeV2 RaggedCross
RaggedFillEmptyRows RaggedGather RaggedTensorFromVariant RaggedTensorToSparse RaggedTensorToVariantGradient ScatterNdNonAliasingAdd SparseCrossHashed
SparseSegmentMeanGrad UnicodeDecode UnicodeDecodeWithOffsets UnsortedSegmentJoin
""".split()


@pytest.fixture
def findings_of(tmp_path):
    """A function that adds nodes to a function of the shipped example, as `change` does, and returns what the scan finds."""

    def findings(change):
        shutil.copytree(refused_models.EXAMPLE, tmp_path / "model")
        file = tmp_path / "model" / "saved_model.pb"
        saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
        function = saved_model.meta_graphs[0].graph_def.library.function.add()
        function.signature.name = "added"
        change(function)
        file.chmod(0o644)
        file.write_bytes(saved_model.SerializeToString())
        return scan.scan_model(tmp_path / "model").findings

    return findings


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


def _choice_by_a_number(function):
    node = function.node_def.add(name="n", op="If")
    node.attr["Tcond"].type = types_pb2.DT_UINT64


def _stateless_choice_by_a_text(function):
    node = function.node_def.add(name="n", op="StatelessIf")
    node.attr["Tcond"].type = types_pb2.DT_COMPLEX64


def _loop_while_a_number(function):
    function.signature.input_arg.add(name="a", type=types_pb2.DT_INT32)
    function.signature.output_arg.add(name="b", type=types_pb2.DT_COMPLEX64)
    node = function.node_def.add(name="n", op="While", input=["a"])
    node.attr["cond"].func.name = node.attr["body"].func.name = "added"


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
        (_choice_by_a_number, "no truth value"),
        (_stateless_choice_by_a_text, "no truth value"),
        (_loop_while_a_number, "calls itself"),
        (_assertion_about_a_list, "handles or lists"),
        (_huge_and_empty, "no empty tensor has"),
        (_reshaped_to_huge_and_empty, "elements"),
    ],
)
def test_spellings_that_end_the_process_are_refused(findings_of, spelling, reason):
    assert any(finding.node in ("n", "") and reason in finding.reason for finding in findings_of(spelling))


@pytest.mark.full
def test_a_minute_of_the_fuzzer_finds_no_signal_but_those_recorded():
    done = subprocess.run([sys.executable, _FUZZER, "--minutes", "1", "--trials", "60"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "signals that are not recorded: none" in done.stdout
