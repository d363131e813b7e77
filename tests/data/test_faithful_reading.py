"""Client data is read as it stands in the file, or refused with the row: ids and strings are text, and nothing is lost or invented."""

from __future__ import annotations

import lzma
import os
import pathlib
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.data import examples
from odp_taskbuilder.data.open import open_client_data
from odp_taskbuilder.data.partitioned_dataset import partition_dataset

EXAMPLE = examples.encode({"x": np.array([0.5], np.float32)})


def csv_file(tmp_path, text, name="data.csv"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def all_examples(data):
    return {client: [examples.decode(example) for example in data.examples(client)] for client in data.client_ids}


@pytest.mark.parametrize(
    "ids",
    [
        ["007", "07", "7"],
        ["007", "07", "7", "ab"],
        ["1.0", "1", "1e0", "+1"],
        ["18446744073709551617", "18446744073709551618", "98446744073709551619"],
        ["nan", "NaN", "inf"],
        ["0x10", "16", " 16"],
        ["true", "True"],
        ["ä", "a\u0308"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("way", ["read", "partitioned"])
def test_clients_of_a_table_are_told_apart_by_the_text_in_the_file(ids, way, tmp_path):
    path = csv_file(tmp_path, "user,x\n" + "".join(f"{name},{index}\n" for index, name in enumerate(ids)))
    if way == "read":
        assert open_client_data(f"{path}?client=user").client_ids == tuple(sorted(ids))
    else:
        partition_dataset(f"{path}?x=x", tmp_path / "clients", strategy="column", column="user", label="x")
        assert len(list((tmp_path / "clients").glob("*.tfrecord"))) == len(ids)
        assert len(open_client_data(str(tmp_path / "clients")).client_ids) == len(ids)


def test_a_feature_of_text_is_the_text_in_the_file(tmp_path):
    path = csv_file(tmp_path, "user,zip,when\na,01234,1e3\na,99999,0.10\n")
    (rows,) = all_examples(open_client_data(f"{path}?client=user&x:string=zip&w:string=when")).values()
    assert [row["x"].tolist() for row in rows] == [[b"01234"], [b"99999"]]
    assert [row["w"].tolist() for row in rows] == [[b"1e3"], [b"0.10"]]


def test_numbers_of_too_many_digits_stay_text_and_do_not_become_one(tmp_path):
    path = csv_file(tmp_path, "user,card\na,18446744073709551617\na,18446744073709551618\n")
    (rows,) = all_examples(open_client_data(f"{path}?client=user")).values()
    assert [row["card"].tolist() for row in rows] == [[b"18446744073709551617"], [b"18446744073709551618"]]
    with pytest.raises(errors.UsageError, match="data.csv:2: column 'card' must be int64, found '18446744073709551617'"):
        open_client_data(f"{path}?client=user&x:int64=card")


@pytest.mark.parametrize("row", [",0.5", '"",0.5'])
@pytest.mark.parametrize("way", ["read", "partitioned"])
def test_a_row_without_a_client_is_refused_with_its_line(row, way, tmp_path):
    path = csv_file(tmp_path, f"user,x\na,1\n{row}\n")
    with pytest.raises(errors.UsageError, match="data.csv:3: column 'user' is empty, and names no client"):
        if way == "read":
            open_client_data(f"{path}?client=user")
        else:
            partition_dataset(f"{path}?x=x", tmp_path / "clients", strategy="column", column="user", label="x")
    assert not (tmp_path / "clients").exists()


def test_names_that_files_cannot_have_are_partitioned_and_read_back_whole(tmp_path):
    names = [".", "..", ".hid", "a/b", "A", "a", "a%2Fb", "..%2F"]
    path = csv_file(tmp_path, "user,x\n" + "".join(f"{name},1\n" for name in names))
    partition_dataset(f"{path}?x=x", tmp_path / "clients", strategy="column", column="user", label="x")
    back = open_client_data(str(tmp_path / "clients"))
    assert sum(back.num_examples(client) for client in back.client_ids) == len(names) == len(back.client_ids)


@pytest.mark.parametrize("text", ["u,x\na,1\n\nb,2\n\n", "u,x\n\na,1\nb,2", "\nu,x\na,1\nb,2\n", "\r\nu,x\r\na,1\r\n\r\nb,2\r\n"])
def test_empty_lines_are_no_rows(text, tmp_path):
    (tmp_path / "data.csv").write_bytes(text.encode())
    assert open_client_data(f"{tmp_path / 'data.csv'}?client=u").client_ids == ("a", "b")


@pytest.mark.parametrize(
    ("text", "query", "message"),
    [
        ("u,x\na,0.5\nb,\nc,0.1\n", "", r"data.csv:3: a number is missing in column 'x'"),
        ("u,x\na,5\nb,\nc,1\n", "&x:int64=x", r"data.csv:3: column 'x' must be int64, found nothing"),
        ("u,x\n\n\na,0.5\nb,  \nc,0.1\n", "", r"data.csv:5: a number is missing"),
        ("u,x\na,1e39\n", "", r"data.csv:2: column 'x' is not finite as float32: found '1e39'"),
        ("u,x\na,1\na,nan\n", "", r"data.csv:3: column 'x' is not finite as float32: found 'nan'"),
        ("u,x\na,1\na,-inf\n", "&y:float32=x", r"data.csv:3: column 'x' is not finite as float32: found '-inf'"),
        ('u,x\n"a\nb",1\nc,oh\n', "&x:float32=x", r"data.csv:4: column 'x' must be float32, found 'oh'"),
        ("u,x\na,1_000\n", "&x:int64=x", r"data.csv:2: column 'x' must be int64, found '1_000'"),
        ("u,x\na,1.5\n", "&x:int64=x", r"data.csv:2: column 'x' must be int64, found '1.5'"),
        ('u,x\na,"1\n', "", r"is no CSV table"),
    ],
)
def test_a_value_that_is_missing_or_does_not_fit_is_named_with_line_and_column(text, query, message, tmp_path):
    with pytest.raises(errors.UsageError, match=message):
        open_client_data(f"{csv_file(tmp_path, text)}?client=u{query}")


def test_values_that_are_not_finite_are_kept_on_request(tmp_path, recwarn):
    path = csv_file(tmp_path, "u,x\na,1e39\na,nan\na,-inf\n")
    (rows,) = all_examples(open_client_data(f"{path}?client=u&nonfinite=keep")).values()
    np.testing.assert_array_equal(np.concatenate([row["x"] for row in rows]), np.array([np.inf, np.nan, -np.inf], np.float32))
    assert not recwarn
    with pytest.raises(errors.UsageError, match="nonfinite can only be `keep`, found 'yes'"):
        open_client_data(f"{path}?client=u&nonfinite=yes")


def sqlite_file(path, metadata, rows, types=("BLOB", "BLOB")):
    connection = sqlite3.connect(path)
    connection.execute(f"CREATE TABLE examples (split_name TEXT, client_id {types[0]}, serialized_example_proto BLOB)")
    connection.execute(f"CREATE TABLE client_metadata (client_id {types[1]}, split_name TEXT, num_examples INTEGER)")
    connection.executemany("INSERT INTO client_metadata VALUES (?, 'train', ?)", metadata)
    connection.executemany("INSERT INTO examples VALUES ('train', ?, ?)", rows)
    connection.commit()
    connection.close()
    return str(path)


@pytest.mark.parametrize(
    ("types", "stored", "listed", "name"),
    [
        (("BLOB", "BLOB"), 5, 5, "5"),
        (("BLOB", "BLOB"), b"zz", b"zz", "zz"),
        (("BLOB", "BLOB"), 2.5, 2.5, "2.5"),
        (("TEXT", "TEXT"), "007", "007", "007"),
        (("INTEGER", "INTEGER"), 7, 7, "7"),
        (("TEXT", "INTEGER"), "7", 7, "7"),
        (("INTEGER", "BLOB"), 7, "7", "7"),
        (("BLOB", "TEXT"), b"zz", "zz", "zz"),
    ],
)
def test_ids_of_any_type_of_a_database_are_matched(types, stored, listed, name, tmp_path):
    data = open_client_data(sqlite_file(tmp_path / "data.sqlite", [(listed, 2)], [(stored, EXAMPLE)] * 2, types))
    assert data.client_ids == (name,)
    assert list(data.examples(name)) == [EXAMPLE] * data.num_examples(name)


@pytest.mark.parametrize(
    ("metadata", "rows", "error", "message"),
    [
        ([("a", 3)], [("a", EXAMPLE)] * 2, errors.StorageError, "counts 3 examples of client 'a', the table examples holds 2"),
        ([("a", 1)], [], errors.StorageError, "counts 1 examples of client 'a', the table examples holds 0"),
        ([(5, 1), ("5", 1)], [(5, EXAMPLE)], errors.UsageError, "names client '5' twice"),
        ([(None, 1)], [(None, EXAMPLE)], errors.UsageError, "a row of client_metadata names no client"),
        ([("", 1)], [("", EXAMPLE)], errors.UsageError, "a row of client_metadata names no client"),
        ([("a", "many")], [("a", EXAMPLE)], errors.UsageError, "counts 'many' examples of client 'a'"),
        ([("a", 1)], [("a", "text")], errors.UsageError, "Client 'a', example 0 of .*: expected the bytes"),
        ([], [], errors.UsageError, "holds no client: client_metadata is empty"),
    ],
)
def test_a_database_that_contradicts_itself_is_refused(metadata, rows, error, message, tmp_path):
    path = sqlite_file(tmp_path / "data.sqlite", metadata, rows)
    with pytest.raises(error, match=message):
        all_examples(open_client_data(path))


def hdf5_file(path, datasets):
    import h5py

    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return str(path)


def test_clients_of_hdf5_whose_ids_have_slashes_are_read(tmp_path):
    x = np.arange(4, dtype=np.float32).reshape(2, 2)
    path = hdf5_file(tmp_path / "data.h5", {f"examples/{name}/x": x for name in ("a", "b/c", "b/d/e", "f g")})
    data = open_client_data(path)
    assert data.client_ids == ("a", "b/c", "b/d/e", "f g")
    for rows in all_examples(data).values():
        np.testing.assert_array_equal([row["x"] for row in rows], x)


def test_a_loop_of_links_in_hdf5_ends(tmp_path):
    import h5py

    path = hdf5_file(tmp_path / "data.h5", {"examples/a/x": np.zeros(2, np.float32)})
    with h5py.File(path, "a") as file:
        file["examples/a/self"] = file["examples"]
    assert open_client_data(path).client_ids == ("a",)


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"examples/a/x": np.zeros(2), "examples/a/b/x": np.zeros(2)}, "the group 'a' holds datasets, as a client does, and the group 'a/b'"),
        ({"examples/a/x": np.array([0, np.nan])}, "Client 'a', example 1 of .*: dataset 'x' is not finite"),
        ({"examples/a/x": np.array([[0.0], [1e300]])}, "Client 'a', example 1 of .*: dataset 'x' is not finite"),
        ({"examples/a/x": np.array([(1, 2)], dtype=[("p", "i4"), ("q", "i4")])}, "Client 'a' of .*: dataset 'x': values of type"),
        ({"examples/a/x": np.float32(3)}, ""),
    ],
)
def test_hdf5_that_holds_something_else_is_refused_with_the_name(datasets, message, tmp_path):
    path = hdf5_file(tmp_path / "data.h5", datasets)
    if not message:
        assert all_examples(open_client_data(path)) == {"a": []}
        return
    with pytest.raises(errors.UsageError, match=message):
        all_examples(open_client_data(path))


@pytest.mark.parametrize("alpha", ["1e-8", "0", "-1", "nan", "inf"])
def test_a_concentration_that_would_never_end_is_refused(alpha, tmp_path):
    path = csv_file(tmp_path, "x,y\n" + "1,0\n" * 20)
    with pytest.raises(errors.UsageError, match="alpha must be a number of at least 0.0001"):
        partition_dataset(str(path), tmp_path / "out", strategy="dirichlet", num_clients=2, alpha=float(alpha))


@pytest.mark.parametrize("option", ["clients=10000000000", "examples=" + "9" * 5000, "clients=٣", "classes=0", "seed=-1"])
def test_options_of_synthetic_data_are_bounded(option):
    with pytest.raises(errors.UsageError, match="must be an integer from"):
        open_client_data(f"synthetic?{option}", features=[])


def test_compressed_data_is_read_by_a_user_without_a_home_or_an_entry_in_passwd(tmp_path):
    database = pathlib.Path(sqlite_file(tmp_path / "plain", [("a", 1)], [("a", EXAMPLE)]))
    (tmp_path / "data.sqlite.lzma").write_bytes(lzma.compress(database.read_bytes(), format=lzma.FORMAT_ALONE))
    script = (
        "import pwd, sys\n"
        "def getpwuid(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = getpwuid\n"
        "from odp_taskbuilder.cli.main import run\n"
        f"sys.exit(run(['data', 'describe', {str(tmp_path / 'data.sqlite.lzma')!r}]))"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "XDG_CACHE_HOME")}
    environment["TMPDIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 clients, 1 examples" in done.stdout
    cache = tmp_path / f"odp-task-cache-{os.getuid()}"
    assert cache.stat().st_mode & 0o077 == 0
    assert len(list(cache.iterdir())) == 1
