"""The index of variables is read to the last byte before TensorFlow reads it."""

import pathlib
import shutil
import struct

import google_crc32c
import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.scan import variables as scan_variables
from odp_taskbuilder.scan.report import ScanLimits

from tensorflow.core.framework import types_pb2  # isort: skip
from tensorflow.core.protobuf import tensor_bundle_pb2, trackable_object_graph_pb2  # isort: skip


def _varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _block(pairs, restarts=(0,)):
    """A block of a table, uncompressed, with its trailer."""
    body = b"".join(_varint(0) + _varint(len(key)) + _varint(len(value)) + key + value for key, value in pairs)
    body += b"".join(struct.pack("<I", offset) for offset in restarts) + struct.pack("<I", len(restarts))
    crc = google_crc32c.value(body + b"\0")
    return body, b"\0" + struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _write_bundle(folder, entries, data, restarts=(0,)):
    """Writes a tensor bundle as the only content of a model directory."""
    header = tensor_bundle_pb2.BundleHeaderProto(num_shards=1).SerializeToString()
    pairs = [(b"", header), *((key.encode(), entry.SerializeToString()) for key, entry in entries)]
    body, trailer = _block(pairs, restarts)
    index_body, index_trailer = _block([(b"zzz", _varint(0) + _varint(len(body)))])
    start = len(body) + len(trailer)
    footer = (_varint(0) + _varint(0) + _varint(start) + _varint(len(index_body))).ljust(40, b"\0")
    (folder / "variables").mkdir(parents=True)
    content = body + trailer + index_body + index_trailer + footer + struct.pack("<Q", 0xDB4775248B80FB57)
    (folder / "variables/variables.index").write_bytes(content)
    (folder / "variables/variables.data-00000-of-00001").write_bytes(data)
    return folder


def _entry(shape=(2,), size=8, offset=0, dtype=types_pb2.DT_FLOAT, **fields):
    entry = tensor_bundle_pb2.BundleEntryProto(dtype=dtype, size=size, offset=offset, **fields)
    for extent in shape:
        entry.shape.dim.add(size=extent)
    return entry


def test_a_bundle_of_two_variables_is_accepted(tmp_path):
    _write_bundle(tmp_path, [("a", _entry()), ("b", _entry(offset=8))], bytes(16))
    assert scan_variables.scan_variables(tmp_path, ScanLimits()) == ([], 16)


@pytest.mark.parametrize(
    "entry, message",
    [
        (_entry(offset=9), "lies at bytes 9 to 17"),
        (_entry(offset=-1), "lies at bytes -1"),
        (_entry(shape=(2**40,)), "where its shape and type make"),
        (_entry(shape=(-1,)), "not known"),
        (_entry(shape=(1,) * 255), "not known or not possible"),
        (_entry(dtype=types_pb2.DT_VARIANT), "a type that no variable has"),
        (_entry(dtype=types_pb2.DT_RESOURCE), "a type that no variable has"),
        (_entry(dtype=types_pb2.DT_STRING, shape=(2**30,)), "too few"),
        (_entry(shard_id=1), "data file 1, of 1"),
    ],
)
def test_an_entry_that_does_not_fit_its_data_is_an_error(tmp_path, entry, message):
    _write_bundle(tmp_path, [("a", entry)], bytes(16))
    with pytest.raises(errors.ModelError, match=message):
        scan_variables.scan_variables(tmp_path, ScanLimits())


def test_values_that_share_their_bytes_are_refused(tmp_path):
    _write_bundle(tmp_path, [(f"v{i}", _entry()) for i in range(9)], bytes(16))
    findings, _ = scan_variables.scan_variables(tmp_path, ScanLimits())
    assert [finding.reason for finding in findings] == ["the values are said to take 72 bytes, more than the 16 that exist"]


def test_slices_are_refused(tmp_path):
    entry = _entry(shape=(2**40,), size=0)
    entry.slices.add().extent.add(start=0, length=1)
    _write_bundle(tmp_path, [("a", entry)], bytes(16))
    findings, _ = scan_variables.scan_variables(tmp_path, ScanLimits())
    assert "slices" in findings[0].reason


def test_a_registered_saver_in_the_checkpoint_is_refused(tmp_path):
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.nodes.add().registered_saver.name = "Custom.Saver"
    content = graph.SerializeToString()
    stored = _varint(len(content)) + bytes(4) + content
    entry = _entry(shape=(), size=len(stored), dtype=types_pb2.DT_STRING)
    _write_bundle(tmp_path, [("_CHECKPOINTABLE_OBJECT_GRAPH", entry)], stored)
    findings, _ = scan_variables.scan_variables(tmp_path, ScanLimits())
    assert [finding.reason for finding in findings] == ["restored by the registered saver 'Custom.Saver'"]


def test_a_file_that_the_index_does_not_name_is_refused(tmp_path):
    _write_bundle(tmp_path, [("a", _entry())], bytes(16))
    with open(tmp_path / "variables/more", "wb") as file:
        file.truncate(1 << 40)
    findings, _ = scan_variables.scan_variables(tmp_path, ScanLimits())
    assert [(finding.node, finding.reason) for finding in findings] == [
        ("", "no part of the variables, as their index names them")
    ]
    assert findings[0].function == "variables/more"


@pytest.mark.parametrize("keys", [("b", "a"), ("a", "a")])
def test_keys_out_of_order_are_an_error(tmp_path, keys):
    """TensorFlow bisects, and would find something else than a walk does."""
    _write_bundle(tmp_path, [(key, _entry()) for key in keys], bytes(16))
    with pytest.raises(errors.ModelError, match="out of order"):
        scan_variables.scan_variables(tmp_path, ScanLimits())


def test_a_block_that_can_be_entered_in_the_middle_is_an_error(tmp_path):
    _write_bundle(tmp_path, [("a", _entry()), ("b", _entry(offset=8))], bytes(16), restarts=(0, 6))
    with pytest.raises(errors.ModelError, match="in the middle of an entry"):
        scan_variables.scan_variables(tmp_path, ScanLimits())


def test_every_truncation_of_an_index_is_an_error(tmp_path):
    index = _write_bundle(tmp_path, [("a", _entry())], bytes(16)) / "variables/variables.index"
    content = index.read_bytes()
    for length in range(len(content)):
        index.write_bytes(content[:length])
        with pytest.raises(errors.ModelError, match="truncated or damaged"):
            scan_variables.scan_variables(tmp_path, ScanLimits())


def test_every_flipped_bit_of_a_compressed_index_is_noticed_or_harmless(golden, tmp_path):
    """The published model's index is compressed; its blocks carry checksums, its footer is padded."""
    model = pathlib.Path(shutil.copytree(golden / "keras_dense/model", tmp_path / "model"))
    index = model / "variables/variables.index"
    content = index.read_bytes()
    expected = scan_variables.scan_variables(model, ScanLimits())
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        index.write_bytes(damaged)
        try:
            assert scan_variables.scan_variables(model, ScanLimits()) == expected
        except errors.ModelError:
            continue


@pytest.mark.parametrize(
    "compressed, content",
    [
        (b"\x00", b""),
        (b"\x05\x10hello", b"hello"),
        # Three characters, then a copy of nine from three back: the copy overlaps itself.
        (b"\x0c\x08abc\x15\x03", b"abcabcabcabc"),
        # The same with an offset of two and of four bytes.
        (b"\x0c\x08abc\x22\x03\x00", b"abcabcabcabc"),
        (b"\x0c\x08abc\x23\x03\x00\x00\x00", b"abcabcabcabc"),
        # A literal whose length takes a byte of its own.
        (b"\x64\xf0\x63" + b"x" * 100, b"x" * 100),
    ],
)
def test_snappy(compressed, content):
    assert scan_variables.decompress_snappy(compressed, 1000) == content


@pytest.mark.parametrize(
    "compressed, message",
    [
        (b"", "cut off"),
        (b"\x05\x10hel", "cut off"),
        (b"\x06\x10hello", "length that it states"),
        (b"\x04\x10hello", "length that it states"),
        (b"\x0c\x08abc\x15\x04", "before its start"),
        (b"\x0c\x08abc\x15\x00", "before its start"),
        (b"\xff\xff\xff\xff\xff\x01", "too long"),
        (b"\x80\x80\x80\x80\x01", "at most 1000"),
    ],
)
def test_malformed_snappy(compressed, message):
    with pytest.raises(ValueError, match=message):
        scan_variables.decompress_snappy(compressed, 1000)
