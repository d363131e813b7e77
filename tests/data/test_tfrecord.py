"""TFRecord files are read and written as TensorFlow does, and damage is found and named."""

import struct

import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.data import tfrecord

RECORDS = [b"", b"a", bytes(range(256)) * 2]


@pytest.fixture
def path(tmp_path):
    tfrecord.write_records(tmp_path / "c.tfrecord", RECORDS)
    return tmp_path / "c.tfrecord"


def test_records_come_back(path):
    assert list(tfrecord.read_records(path)) == RECORDS
    assert tfrecord.count_records(path) == 3


def test_bytes_are_those_of_tensorflow(golden, tmp_path):
    original = golden / "keras_dense" / "oracle" / "client_a.tfrecord"
    assert tfrecord.write_records(tmp_path / "copy.tfrecord", tfrecord.read_records(original)) == 10
    assert (tmp_path / "copy.tfrecord").read_bytes() == original.read_bytes()


def test_any_flipped_byte_is_found(path):
    sound = path.read_bytes()
    for position in range(len(sound)):
        path.write_bytes(sound[:position] + bytes([sound[position] ^ 1]) + sound[position + 1 :])
        with pytest.raises(errors.StorageError, match="c.tfrecord is not a sound TFRecord file: record at byte"):
            list(tfrecord.read_records(path))


@pytest.mark.parametrize("length", [1, 5, 15, 20, 40, 400])
def test_truncation_is_found_when_reading_and_when_counting(path, length):
    path.write_bytes(path.read_bytes()[:length])
    for use in (lambda: list(tfrecord.read_records(path)), lambda: tfrecord.count_records(path)):
        with pytest.raises(errors.StorageError, match="the file ends inside"):
            use()


def test_a_huge_length_is_refused_before_memory_is_taken(path):
    length = struct.pack("<Q", 1 << 60)
    path.write_bytes(length + struct.pack("<I", tfrecord.masked_crc32c(length)) + b"x" * 100)
    with pytest.raises(errors.StorageError, match="the file ends inside its 1152921504606846976 bytes"):
        list(tfrecord.read_records(path))


def test_a_missing_file_and_a_full_disk_are_storage_errors(tmp_path):
    with pytest.raises(errors.StorageError, match="Cannot read .*none.tfrecord: No such file"):
        list(tfrecord.read_records(tmp_path / "none.tfrecord"))
    with pytest.raises(errors.StorageError, match="Cannot write /dev/full: No space left"):
        tfrecord.write_records("/dev/full", [b"x" * 100000])
