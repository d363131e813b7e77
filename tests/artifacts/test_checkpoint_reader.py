"""V1 checkpoints are read without TensorFlow, and nothing in them can hurt the reader."""

import io
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import checkpoint_reader, wire
from odp_taskbuilder.plan import checkpoint
from odp_taskbuilder.plan.sstable import TableWriter

# tensorflow.DataType
_ENUMERATORS = {"f4": 1, "f8": 2, "i4": 3, "i2": 5, "i1": 6, "O": 7, "i8": 9, "b1": 10, "u8": 23}

_VALUES = {
    "server/weights": np.linspace(-2, 3, 600, dtype="f4").reshape(20, 30),
    "server/doubles": np.array([1.5, math.inf, -4.0, math.nan], "f8"),
    "server/counts": np.array([[-1, 0], [1, 2147483647], [-2147483648, 300]], "i4"),
    "server/long": np.array([-(1 << 63), (1 << 63) - 1, 5], "i8"),
    "server/seeds": np.array([0, (1 << 64) - 1], "u8"),
    "server/small": np.array([-128, 127], "i1"),
    "server/flag": np.array(True),
    "server/text": np.array([b"GaussianDpEvent", b"", b"\xff\x00"], object),
    "server/empty": np.zeros((0, 7), "f4"),
}


def _write(values):
    file = io.BytesIO()
    tensors = [
        checkpoint.CheckpointTensor(name, _ENUMERATORS[value.dtype.str.lstrip("<|")], value.shape, lambda value=value: value)
        for name, value in values.items()
    ]
    checkpoint.write_checkpoint(file, tensors)
    return file.getvalue()


def _open(data):
    return checkpoint_reader.Checkpoint(data, "file.ckp")


@pytest.mark.parametrize("name", _VALUES)
def test_values_come_back_as_they_were_written(name):
    np.testing.assert_array_equal(_open(_write(_VALUES)).read(name), _VALUES[name])


def test_tensors_are_listed_with_dtypes_shapes_and_sizes():
    listed = {tensor.name: (tensor.dtype, tensor.shape, tensor.num_bytes) for tensor in _open(_write(_VALUES)).tensors}
    assert listed["server/weights"] == ("float32", (20, 30), 2400)
    assert listed["server/counts"] == ("int32", (3, 2), 24)
    assert listed["server/flag"] == ("bool", (), 1)
    assert listed["server/text"] == ("string", (3,), None)
    assert listed["server/empty"] == ("float32", (0, 7), 0)
    assert len(listed) == len(_VALUES)


def test_statistics_leave_out_what_is_not_finite():
    opened = _open(_write(_VALUES))
    assert opened.statistics("server/doubles") == checkpoint_reader.Statistics(-4.0, 1.5, -1.25, math.hypot(1.5, 4.0), 2)
    assert opened.statistics("server/counts").minimum == -2147483648
    assert opened.statistics("server/text") is None
    assert opened.statistics("server/empty") is None
    weights = opened.statistics("server/weights")
    assert weights.norm == pytest.approx(np.linalg.norm(_VALUES["server/weights"].astype("f8")), rel=1e-12)


def test_large_tensors_are_read_in_pieces(monkeypatch):
    # 8 bytes per piece end in the middle of varints, too.
    monkeypatch.setattr(checkpoint_reader, "_CHUNK_BYTES", 8)
    opened = _open(_write(_VALUES))
    for name in ("server/weights", "server/counts", "server/long"):
        np.testing.assert_array_equal(opened.read(name), _VALUES[name])


def test_tensorflow_reads_the_same(tmp_path, golden):
    """The published checkpoint, written by TensorFlow, against TensorFlow's own reader."""
    path = golden / "keras_dense" / "expected_mapreduce" / "initial_state.server.ckp"
    script = """
import sys, numpy as np, tensorflow as tf
reader = tf.compat.v1.train.NewCheckpointReader(sys.argv[1])
np.savez(sys.argv[2], **{name.replace('/', '|'): reader.get_tensor(name) for name in reader.get_variable_to_dtype_map()})
"""
    subprocess.run(
        [sys.executable, "-c", script, str(path), str(tmp_path / "values.npz")], check=True, stderr=subprocess.DEVNULL
    )
    expected = {name.replace("|", "/"): value for name, value in np.load(tmp_path / "values.npz", allow_pickle=True).items()}
    with checkpoint_reader.open_checkpoint(path) as opened:
        opened.check()
        assert {tensor.name for tensor in opened.tensors} == set(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(opened.read(name), value)


def test_any_flipped_bit_fails_the_check_or_the_reading():
    data = _write({"server/weights": np.ones((4, 4), "f4"), "server/text": np.array(b"event", object)})
    # The padding of the footer, and the meta index that nobody reads, are not covered.
    positions = [position for position in range(len(data)) if not len(data) - 48 <= position < len(data) - 8]
    index_start = data.rfind(b"\x01\x00\x00\x00\x00\xc0\xf2\xa1\xb0") + 9
    missed = []
    for position in positions:
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        try:
            opened = _open(bytes(damaged))
            opened.check()
        except errors.ArtifactError:
            continue
        missed.append(position)
    # An empty block (restart points and trailer) stands between data and index.
    assert all(index_start - 13 <= position < index_start for position in missed), missed


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 47,
        bytes(48),
        bytes(40) + bytes.fromhex("57fb808b247547db"),
        b"\xff" * 40 + bytes.fromhex("57fb808b247547db"),
        # Handles that claim 4 GiB.
        b"\x00\x00\x00\xff\xff\xff\xff\x0f".ljust(40, b"\0") + bytes.fromhex("57fb808b247547db"),
    ],
)
def test_foreign_bytes_are_refused(data):
    with pytest.raises(errors.ArtifactError):
        _open(data)


def test_truncation_at_any_length_is_refused():
    data = _write({"server/weights": np.ones((4, 4), "f4")})
    for length in range(len(data)):
        with pytest.raises(errors.ArtifactError):
            _open(data[:length])


def _table(records):
    file = io.BytesIO()
    table = TableWriter(file)
    for key, value in records:
        table.add(key, len(value), [value])
    table.finish()
    return file.getvalue()


def _length_delimited(number, content):
    length, result = len(content), bytes([number << 3 | 2])
    while length >= 0x80:
        result += bytes([length & 0x7F | 0x80])
        length >>= 7
    return result + bytes([length]) + content


def _meta(name, dtype, shape_proto):
    tensor = _length_delimited(1, name) + _length_delimited(2, shape_proto) + bytes([3 << 3, dtype])
    return _length_delimited(1, _length_delimited(1, tensor))


def _dimension(varint):
    return _length_delimited(2, b"\x08" + varint)


_HUGE = b"\xff" * 9 + b"\x01"


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        (_meta(b"a", 1, _dimension(_HUGE)), "more elements than the file has bytes"),
        (_meta(b"a", 1, _dimension(b"\x00") + _dimension(_HUGE)), "more elements than the file has bytes"),
        (_meta(b"a", 1, _dimension(b"\x01") * 40), "more than 32 fields"),
        (_meta(b"a", 99, b""), "data type 99"),
        (_meta(b"a" * 5000, 1, b""), "name of 5000 bytes"),
        (_meta(b"a", 1, b"") + b"", "not both listed and stored"),
        (_length_delimited(1, _length_delimited(1, b"\x0a\x01a\x18\x01") * 2), "listed twice"),
        (b"\x0a\xff\xff\xff\xff\x0f", "goes beyond its end"),
        (b"", "no SavedTensorSlices"),
    ],
)
def test_a_hostile_list_of_tensors_is_refused(meta, reason):
    with pytest.raises(errors.ArtifactError, match=reason):
        _open(_table([(b"", meta)]))


def test_values_that_do_not_fit_the_shape_are_refused():
    data = _write({"server/weights": np.ones((4, 4), "f4")})
    # The list says 4 x 4, the value gets 15 numbers.
    value = _length_delimited(
        2, _length_delimited(1, b"server/weights") + _length_delimited(3, _length_delimited(5, bytes(60)))
    )
    meta = _meta(b"server/weights", 1, _dimension(b"\x04") * 2)
    opened = _open(_table([(b"", meta), (b"\x00server/weights", value)]))
    with pytest.raises(errors.ArtifactError, match=r"shape \[4, 4\] has 15 values"):
        opened.read("server/weights")
    assert _open(data).read("server/weights").sum() == 16


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.ckp")
    with (
        pytest.raises(errors.StorageError, match="not a regular file"),
        checkpoint_reader.open_checkpoint(tmp_path / "pipe.ckp"),
    ):
        pass


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path):
    path = tmp_path / "file.ckp"
    path.write_bytes(_write(_VALUES))
    with wire.open_file(path) as source:
        opened = checkpoint_reader.Checkpoint(source, str(path))
        os.truncate(path, 100)
        with pytest.raises(errors.ArtifactError, match="shrank while it was read"):
            opened.check()
