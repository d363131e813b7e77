"""A flatbuffer from a stranger is read or refused; it cannot make the reader leave the buffer, or work without end."""

import struct

import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.ops import flatbuffer


def _table(slots):
    """A flatbuffer whose root table has uint32 fields with the given values."""
    vtable = struct.pack("<HH", 4 + 2 * len(slots), 4 + 4 * len(slots)) + b"".join(
        struct.pack("<H", 4 + 4 * index) for index in range(len(slots))
    )
    root = 8 + len(vtable)
    return struct.pack("<I4s", root, b"TEST") + vtable + struct.pack("<i", len(vtable)) + struct.pack(f"<{len(slots)}I", *slots)


def _root(data):
    return flatbuffer.FlatBuffer(data, "The file").root(b"TEST")


def test_scalars_and_absent_fields():
    root = _root(_table([7, 9]))
    assert (root.scalar(0, "<I", 0), root.scalar(1, "<I", 0), root.scalar(2, "<I", 42)) == (7, 9, 42)
    assert root.string(5) == ""
    assert root.ints(5) == ()
    assert list(root.tables(5)) == []


@pytest.mark.parametrize("length", range(24))
def test_a_truncated_buffer_is_refused(length):
    data = _table([7, 9])
    with pytest.raises(errors.ArtifactError):
        _root(data[:length]).scalar(1, "<I", 0)


@pytest.mark.parametrize("read", ["string", "ints", "octets", "tables"])
@pytest.mark.parametrize("offset", [0x7FFFFFFF, 0xFFFFFFFF, 100])
def test_wild_offsets_are_refused(read, offset):
    with pytest.raises(errors.ArtifactError, match="The file is corrupt"):
        list(getattr(_root(_table([offset])), read)(0))


@pytest.mark.parametrize("read", ["string", "ints", "octets", "tables"])
@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x40000000, 17])
def test_lengths_beyond_the_end_are_refused(read, length):
    # The vector stands in the second field, and the first one points to it.
    with pytest.raises(errors.ArtifactError, match=r"goes beyond its \d+ bytes"):
        list(getattr(_root(_table([4, length])), read)(0))


def test_a_vtable_before_the_buffer_is_refused():
    data = bytearray(_table([7]))
    struct.pack_into("<i", data, struct.unpack_from("<I", data)[0], 1 << 30)
    with pytest.raises(errors.ArtifactError):
        _root(bytes(data))


def test_the_same_bytes_cannot_be_read_again_and_again():
    root = _root(_table([4, 40]) + bytes(40))
    with pytest.raises(errors.ArtifactError, match="again and again"):
        for _ in range(10):
            root.octets(0)


def test_a_vector_that_names_one_table_a_million_times_is_refused():
    count = 1_000_000
    data = bytearray(_table([4, count]) + bytes(4 * count))
    start = len(data) - 4 * count
    root = struct.unpack_from("<I", data)[0]
    for index in range(count):
        struct.pack_into("<I", data, start + 4 * index, (root - start - 4 * index) & 0xFFFFFFFF)
    with pytest.raises(errors.ArtifactError):
        list(_root(bytes(data)).tables(0))


@pytest.mark.parametrize("data", [b"", b"\x00\x00", b"\xff" * 8, b"\x05\x00\x28\x08", b"\x02\x01\x01\x14\x14\x04\x28\x01"])
def test_flexbuffers_that_are_no_vector_of_strings_are_refused(data):
    with pytest.raises(errors.ArtifactError, match="custom options"):
        flatbuffer.flexbuffer_strings(data, "The custom options")


def test_flexbuffer_strings_may_be_any_bytes():
    # [size 2]["A\xff" 0] [size 1]["B" 0] [size 2][offsets][types string, string] [root offset][type vector][width]
    data = b"\x02A\xff\x00\x01B\x00\x02" + bytes([7, 4]) + bytes([5 << 2, 5 << 2]) + bytes([4, 10 << 2, 1])
    assert flatbuffer.flexbuffer_strings(data, "x") == [b"A\xff", b"B"]
