"""Every format that people keep client data in yields the same examples, and names what does not fit."""

import csv
import lzma
import sqlite3

import numpy as np
import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.data import examples, tfrecord
from odp_taskbuilder.data.open import open_client_data
from odp_taskbuilder.data.synthetic import Feature

CLIENTS = {
    "ann": [([0.5, 1.5], 1), ([2.0, -1.0], 0)],
    "bob": [([0.25, 4.0], 7)],
}


def encoded(x, y):
    return examples.encode({"x": np.array(x, np.float32), "y": np.array([y], np.int64)})


def write_directory(path):
    path.mkdir()
    for client, rows in CLIENTS.items():
        tfrecord.write_records(path / f"{client}.tfrecord", [encoded(x, y) for x, y in rows])
    (path / "README.txt").write_text("not a client")
    return str(path)


def write_sqlite(path, splits=("train",)):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE examples (split_name TEXT, client_id TEXT, serialized_example_proto BLOB)")
    connection.execute("CREATE TABLE client_metadata (client_id TEXT, split_name TEXT, num_examples INTEGER)")
    for split in splits:
        # Clients in another order than sorted.
        for client, rows in reversed(CLIENTS.items()):
            connection.execute("INSERT INTO client_metadata VALUES (?, ?, ?)", (client, split, len(rows)))
            connection.executemany("INSERT INTO examples VALUES (?, ?, ?)", [(split, client, encoded(x, y)) for x, y in rows])
    connection.commit()
    connection.close()
    return str(path)


def write_lzma(path):
    plain = path.with_suffix(".plain")
    write_sqlite(plain)
    path.write_bytes(lzma.compress(plain.read_bytes(), format=lzma.FORMAT_ALONE))
    return str(path)


def write_hdf5(path):
    import h5py

    with h5py.File(path, "w") as file:
        for client, rows in CLIENTS.items():
            group = file.create_group(f"examples/{client}")
            group["x"] = np.array([x for x, _ in rows], np.float32)
            group["y"] = np.array([y for _, y in rows], np.int64)
    return str(path)


def write_csv(path):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["y", "user", "f_0", "f_1"])
        # Rows of the clients interleaved.
        order = [("ann", 0), ("bob", 0), ("ann", 1)]
        writer.writerows([[CLIENTS[client][row][1], client, *CLIENTS[client][row][0]] for client, row in order])
    return f"{path}?client=user&x=f_*&y=y"


def write_parquet(path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    rows = [(client, x, y) for client, rows in CLIENTS.items() for x, y in rows]
    table = pyarrow.table({"user": [row[0] for row in rows], "x": [row[1] for row in rows], "y": [row[2] for row in rows]})
    parquet.write_table(table, path)
    return f"{path}?client=user"


WRITERS = {
    "tfrecord directory": (write_directory, "clients"),
    "sqlite": (write_sqlite, "data.sqlite"),
    "sqlite.lzma": (write_lzma, "data.sqlite.lzma"),
    "hdf5": (write_hdf5, "data.h5"),
    "csv": (write_csv, "data.csv"),
    "parquet": (write_parquet, "data.parquet"),
}


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_yields_the_same_examples(kind, tmp_path):
    write, name = WRITERS[kind]
    data = open_client_data(write(tmp_path / name))
    assert data.client_ids == ("ann", "bob")
    for client, rows in CLIENTS.items():
        assert data.num_examples(client) == len(rows)
        assert list(data.examples(client)) == [encoded(x, y) for x, y in rows]


@pytest.mark.parametrize("kind", ["tfrecord directory", "sqlite", "hdf5"])
def test_features_are_renamed_and_converted(kind, tmp_path):
    write, name = WRITERS[kind]
    data = open_client_data(write(tmp_path / name) + "?pixels=x&label:float32=y&both=y,x")
    decoded = examples.decode(next(data.examples("bob")))
    assert set(decoded) == {"pixels", "label", "both"}
    np.testing.assert_array_equal(decoded["pixels"], np.array([0.25, 4.0], np.float32))
    np.testing.assert_array_equal(decoded["both"], np.array([7, 0.25, 4.0], np.float32))
    assert decoded["label"].dtype == np.float32
    assert decoded["label"] == [7.0]


@pytest.mark.parametrize("kind", WRITERS)
def test_the_fingerprint_tells_changed_data_wherever_it_lies(kind, tmp_path, monkeypatch):
    write, name = WRITERS[kind]
    places = [tmp_path / place / name for place in ("one", "copy", "changed")]
    for place in places:
        place.parent.mkdir()
    one, copy = (open_client_data(write(place)).fingerprint() for place in places[:2])
    # One number of one example: sizes, counts and clients stay.
    monkeypatch.setitem(CLIENTS, "bob", [([0.25, 5.0], 7)])
    assert one == copy != open_client_data(write(places[2])).fingerprint()


def test_a_damaged_file_of_a_client_has_a_fingerprint(tmp_path):
    path = write_directory(tmp_path / "data")
    sound = open_client_data(path).fingerprint()
    (tmp_path / "data" / "bob.tfrecord").write_bytes(b"damaged")
    assert open_client_data(path).fingerprint() != sound


def test_the_fingerprint_of_synthetic_and_mapped_data_is_that_of_their_options(tmp_path):
    texts = ["synthetic", "synthetic?seed=1", "synthetic?clients=99", "synthetic?examples=9", "synthetic?classes=9"]
    path = write_directory(tmp_path / "data")
    texts += [path + mapping for mapping in ("", "?x=x", "?x:float32=y")]
    assert len({open_client_data(text, features=SYNTHETIC_INPUT).fingerprint() for text in texts}) == len(texts)


@pytest.mark.parametrize(
    "text, message",
    [
        ("synthetic?clients=20&foo=1", "'foo' is neither an option nor a feature of the plan"),
        ("synthetic?x=1", "`synthetic` data is not made of columns: 'x' cannot be set"),
        ("{}?x=x&lable=y", "'lable' is neither an option nor a feature of the plan"),
    ],
)
def test_what_is_neither_option_nor_feature_is_refused(text, message, tmp_path):
    path = write_directory(tmp_path / "data")
    with pytest.raises(errors.UsageError, match=message):
        open_client_data(text.format(path), features=SYNTHETIC_INPUT)


def test_a_database_of_several_splits_wants_one_named(tmp_path):
    path = write_sqlite(tmp_path / "data.sqlite", splits=("all_train", "digits_train"))
    with pytest.raises(errors.UsageError, match=r"no split is named(.|\n)*all_train, digits_train"):
        open_client_data(path)
    with pytest.raises(errors.UsageError, match="there is no split 'test'"):
        open_client_data(path + "?split=test")
    assert len(list(open_client_data(path + "?split=digits_train").examples("ann"))) == 2


def test_a_compressed_database_is_unpacked_once_and_again_when_it_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write_lzma(tmp_path / "data.sqlite.lzma")
    open_client_data(path)
    open_client_data(path)
    assert len(list((tmp_path / "cache" / "odp-task").iterdir())) == 1
    (tmp_path / "data.sqlite.plain").unlink()
    write_lzma(tmp_path / "data.sqlite.lzma")
    open_client_data(path)
    assert len(list((tmp_path / "cache" / "odp-task").iterdir())) == 2


def test_a_truncated_compressed_database_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "data.sqlite.lzma"
    write_lzma(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(errors.StorageError, match="Cannot unpack"):
        open_client_data(str(path))
    assert list((tmp_path / "cache" / "odp-task").iterdir()) == []


def test_a_csv_column_of_whole_numbers_is_made_float_on_request(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("user,a,b,name\nann,1,2,x\nann,3,4,y\n")
    plain = examples.decode(next(open_client_data(f"{path}?client=user").examples("ann")))
    assert {name: values.dtype.kind for name, values in plain.items()} == {"a": "i", "b": "i", "name": "O"}
    asked = examples.decode(next(open_client_data(f"{path}?client=user&x:float32=a,b").examples("ann")))
    np.testing.assert_array_equal(asked["x"], np.array([1, 2], np.float32))


SYNTHETIC_INPUT = [Feature("x", "float32", (3, 2)), Feature("y", "int64", (1,)), Feature("s", "string", ())]


def test_synthetic_data_fits_the_plan_and_depends_on_the_seed_alone():
    one = open_client_data("synthetic?clients=12&examples=4&classes=10&seed=3", features=SYNTHETIC_INPUT)
    again = open_client_data("synthetic?clients=12&examples=4&classes=10&seed=3", features=SYNTHETIC_INPUT)
    other = open_client_data("synthetic?clients=12&examples=4&classes=10&seed=4", features=SYNTHETIC_INPUT)
    assert one.client_ids == tuple(sorted(one.client_ids))
    assert len(one.client_ids) == 12
    # Read in another order: a client does not depend on those read before it.
    assert list(one.examples("client_07")) == list(again.examples("client_07")) != list(other.examples("client_07"))
    decoded = [examples.decode(example) for client in one.client_ids for example in one.examples(client)]
    assert len(decoded) == 48
    assert all(values["x"].shape == (6,) and values["x"].min() >= 0 and values["x"].max() < 1 for values in decoded)
    assert {int(values["y"][0]) for values in decoded} == set(range(10))
    assert all(values["s"][0].isdigit() for values in decoded)


def no_such_tables(path):
    sqlite3.connect(path).execute("CREATE TABLE t (a)").connection.commit()
    return str(path)


def uneven_hdf5(path):
    import h5py

    with h5py.File(path, "w") as file:
        file["ann/x"] = np.zeros(3)
        file["ann/y"] = np.zeros(2)
    return str(path)


def text_file(text, suffix=""):
    def write(path):
        path.write_text(text)
        return f"{path}{suffix}"

    return write


BAD = {
    "nothing there": ("none", str, errors.StorageError, "No such file"),
    "no tfrecord": ("empty", lambda path: path.mkdir() or str(path), errors.UsageError, "holds no TFRecord file"),
    "unknown format": ("data.bin", text_file("hello"), errors.UsageError, "no client data that odp-task can read"),
    "foreign database": ("data.sqlite", no_such_tables, errors.UsageError, "table 'examples' lacks client_id"),
    "damaged database": ("data.sqlite", text_file("SQLite format 3\0" + "x" * 5000), errors.StorageError, "Cannot read"),
    "damaged hdf5": (
        "data.h5",
        lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"x" * 99) and str(path),
        errors.StorageError,
        "Cannot read",
    ),
    "uneven hdf5": (
        "data.h5",
        uneven_hdf5,
        errors.UsageError,
        "Client 'ann' .*: expected datasets of one length, found x 3, y 2",
    ),
    "table without client": (
        "data.csv",
        text_file("a,b\n1,2\n"),
        errors.UsageError,
        r"which column names the client(.|\n)*a, b",
    ),
    "missing client column": ("data.csv", text_file("a,b\n1,2\n", "?client=c"), errors.UsageError, "has no column 'c'"),
    "missing feature": (
        "data.csv",
        text_file("a,b\n1,2\n", "?client=a&x=c_*"),
        errors.UsageError,
        r"Feature 'x' wants column 'c_\*'",
    ),
    "text as number": (
        "data.csv",
        text_file("a,b\n1,u\n", "?client=a&x:float32=b"),
        errors.UsageError,
        "data.csv:2: column 'b' must be float32, found 'u'",
    ),
    "ragged line": (
        "data.csv",
        text_file("a,b\n1,2\n3\n"),
        errors.UsageError,
        "data.csv:3: expected 2 values as in the header, found 1",
    ),
    "no rows": ("data.csv", text_file("a,b\n"), errors.UsageError, "has no rows"),
    "unknown option": ("data.csv", text_file("a,b\n1,2\n", "?split=a"), errors.UsageError, "has no option 'split'"),
    "no value": ("data.csv", text_file("a,b\n1,2\n", "?client"), errors.UsageError, "expected KEY=VALUE"),
    "unknown kind": ("data.csv", text_file("a,b\n1,2\n", "?client=a&x:float16=b"), errors.UsageError, "Unknown kind 'float16'"),
    "damaged parquet": ("data.parquet", text_file("PAR1 and no more"), errors.StorageError, "Cannot read"),
    "synthetic without plan": ("unused", lambda path: "synthetic", errors.UsageError, "made from the input of a plan"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_named(case, tmp_path):
    name, write, error, message = BAD[case]
    with pytest.raises(error, match=message):
        data = open_client_data(write(tmp_path / name))
        for client in data.client_ids:
            list(data.examples(client))


def test_two_files_for_one_client_are_refused(tmp_path):
    (tmp_path / "a.tfrecord").write_bytes(b"")
    (tmp_path / "a.tfrecords").write_bytes(b"")
    with pytest.raises(errors.UsageError, match="Two files for client 'a'"):
        open_client_data(str(tmp_path))


def test_a_record_that_is_no_example_is_named_with_client_and_file(tmp_path):
    tfrecord.write_records(tmp_path / "ann.tfrecord", [b"\xff\xff"])
    with pytest.raises(errors.UsageError, match=r"Client 'ann', example 0 of .*ann.tfrecord: the record is not a serialized"):
        list(open_client_data(f"{tmp_path}?x=y").examples("ann"))


def test_many_clients_draw_from_those_that_there_are(tmp_path):
    for name, values in (("a", [1, 2, 3]), ("b", [4, 5])):
        tfrecord.write_records(tmp_path / f"{name}.tfrecord", [examples.encode({"x": np.array([value])}) for value in values])
    data = open_client_data(f"{tmp_path}?clients=1000&examples=6&seed=1")
    assert len(data.client_ids) == 1000 == len(set(data.client_ids)) and list(data.client_ids) == sorted(data.client_ids)
    drawn = {client: [int(examples.decode(record)["x"][0]) for record in data.examples(client)] for client in data.client_ids}
    # Each from one client; both are drawn from, and every example of theirs.
    assert {frozenset(values) <= {1, 2, 3} or frozenset(values) <= {4, 5} for values in drawn.values()} == {True}
    assert {value for values in drawn.values() for value in values} == {1, 2, 3, 4, 5}
    assert {len(values) for values in drawn.values()} == {6} == {data.num_examples(client) for client in data.client_ids}
    # In any order, in any process, the same.
    again = open_client_data(f"{tmp_path}?clients=1000&examples=6&seed=1")
    assert [int(examples.decode(record)["x"][0]) for record in again.examples(data.client_ids[7])] == drawn[data.client_ids[7]]
    fingerprints = {open_client_data(f"{tmp_path}?{text}").fingerprint() for text in ("clients=9", "clients=9&seed=1", "clients=8")}
    assert len(fingerprints) == 3
    as_many = open_client_data(f"{tmp_path}?clients=50")
    assert {len(list(as_many.examples(client))) for client in as_many.client_ids} == {2, 3}
    with pytest.raises(errors.UsageError, match="examples"):
        open_client_data(f"{tmp_path}?examples=6")
