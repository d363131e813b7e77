"""Rows become the bytes that a phone's app hands over, and what does not fit the task is told with its place."""

import base64
import json
import math
import pathlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts.example_format import (
    ExampleFeature,
    ExampleFormat,
    format_of_artifacts,
    format_of_model,
)
from odp_taskbuilder.data import examples, rows, tfrecord

# isort: split
from tensorflow.core.example import example_pb2

FORMAT = ExampleFormat(
    "a test",
    "somebody",
    None,
    (ExampleFeature("x", "float32", (2, 2)), ExampleFeature("id", "int64", ()), ExampleFeature("word", "string", (1,))),
)
ROW = {"x": [[0, 0.5], [1, -2]], "id": 3, "word": "grün"}
DIGITS = pathlib.Path(__file__).parents[2] / "configs" / "digits"


def encode(tmp_path, content, name="rows.json", query="", of=FORMAT):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(rows.encode_rows(f"{path}{query}", of))


def assert_is_row(serialized):
    features = examples.decode(serialized)
    assert features["x"].tolist() == [0, 0.5, 1, -2] and features["x"].dtype == np.float32
    assert features["id"].tolist() == [3] and features["word"].tolist() == ["grün".encode()]


def test_the_format_of_artifacts_is_that_of_their_model_and_config(golden):
    keras = golden / "keras_dense"
    built = format_of_artifacts(keras / "expected_mapreduce")
    told = format_of_model(keras / "model", keras / "keras_task_config.pbtxt")
    assert {feature.name: feature for feature in built.features} == {feature.name: feature for feature in told.features}
    assert [str(feature) for feature in sorted(built.features, key=str)] == ["x float32[784]", "y int64[1]"]
    assert format_of_artifacts(keras / "expected_mapreduce" / "client_only_plan.pb").features == built.features
    assert told.population_name


def test_the_format_of_a_model_needs_no_build():
    told = format_of_model(DIGITS / "saved_model", DIGITS / "train.pbtxt")
    assert list(map(str, told.features)) == ["x float32[64]", "y int64[1]"]
    assert (told.population_name, told.min_client_version) == ("digits", None)


def test_nested_and_flat_rows_and_lists_of_rows_give_the_same_bytes(tmp_path):
    flat = {**ROW, "x": [0, 0.5, 1, -2], "id": [3], "word": [{"base64": base64.b64encode("grün".encode()).decode()}]}
    pretty = json.dumps(ROW, indent=2)
    made = encode(tmp_path, json.dumps(ROW) + "\n\n" + json.dumps(flat) + pretty + json.dumps([ROW, flat]))
    assert len(made) == 5 and len(set(made)) == 1
    assert_is_row(made[0])


def test_a_table_gives_the_same_bytes(tmp_path):
    made = encode(tmp_path, "a0,a1,a2,a3,id,word\n0,0.5,1,-2,3,grün\n", "rows.csv", "?x=a*")
    assert made == encode(tmp_path, json.dumps(ROW))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": [1, 2, 3]}, "feature 'x' has 3 values of shape [3], the task takes x float32[2, 2]"),
        ({"x": [[1], [2], [3], [4]]}, "feature 'x' has 4 values of shape [4, 1], the task takes x float32[2, 2]"),
        ({"x": [[1, 2], [3]]}, "feature 'x' has lists of different lengths"),
        ({"x": [1, 2, 3, 1e39]}, "feature 'x': 1e+39 is too large for float32"),
        ({"x": [1, 2, 3, 10**400]}, "is too large for float32"),
        ({"x": [1, 2, 3, "4"]}, "feature 'x' takes float32, found \"4\""),
        ({"x": [1, 2, 3, None]}, "feature 'x' takes float32, found null"),
        ({"x": [1, 2, 3, True]}, "feature 'x' takes float32, found true"),
        ({"id": 0.5}, "feature 'id' takes int64, found 0.5"),
        ({"id": 2**63}, "feature 'id' takes int64, found 9223372036854775808"),
        ({"id": 2.0**63}, "feature 'id' takes int64, found 9.223372036854776e+18"),
        ({"id": [1, 2]}, "feature 'id' has 2 values of shape [2], the task takes id int64[]"),
        ({"word": 5}, "feature 'word' takes string, found 5"),
        ({"word": {"base64": "?"}}, "is no base64"),
        ({"words": "x"}, "the task has no feature 'words'; it has x float32[2, 2], id int64[], word string[1]"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(tmp_path, change, message):
    with pytest.raises(errors.UsageError) as caught:
        encode(tmp_path, json.dumps(ROW) + "\n" + json.dumps({**ROW, **change}))
    assert "rows.json:2: " in caught.value.message
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no rows"),
        ('{"x": [0, 1,', "rows.json:1:"),
        ("[1]", "rows.json:1, row 1: expected an object"),
        ('{"id": 1, "id": 2}', "rows.json:1: not JSON: the name 'id' stands twice in one object"),
        ('{"Id": 1, "x": [0, 0, 0, 0], "word": ""}', "the task has no feature 'Id'"),
        ('{"x": [0, 0, 0, 0], "word": ""}', "feature 'id' is missing"),
        ("[" * 100_000, "not JSON"),
        (b"\xff\xfe", "nor JSON in UTF-8"),
    ],
)
def test_what_is_no_row_is_told(tmp_path, content, message):
    with pytest.raises(errors.UsageError) as caught:
        encode(tmp_path, content)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("content", "query", "message"),
    [
        ("x,id,word\n1,2,a\n", "", "rows.csv:2: feature 'x' has 1 values, the task takes 4"),
        ("a0,a1,a2,a3,id,word\n0,1,2,3,x,a\n", "?x=a*", "rows.csv:2: column 'id' must be int64, found 'x'"),
        ("a0,a1,a2,a3,id,word\n0,1,2,3,1,a\n", "?x=a*&y=id", "'y' is neither an option nor a feature"),
        ("a0,a1,a2,a3,word\n0,1,2,3,a\n", "?x=a*", "Feature 'id' wants column 'id', which is not there"),
    ],
)
def test_a_table_that_does_not_fit_is_told(tmp_path, content, query, message):
    with pytest.raises(errors.UsageError) as caught:
        encode(tmp_path, content, "rows.csv", query)
    assert message in caught.value.message


def _value(kind):
    if kind == "float32":
        return st.floats(width=32)
    return st.integers(-(2**63), 2**63 - 1) if kind == "int64" else st.binary(max_size=5)


@st.composite
def _example(draw):
    """An ExampleFormat and flat features of it."""
    features = {}
    for name in draw(st.sets(st.text(st.characters(blacklist_categories=("Cs",)), max_size=5), min_size=1, max_size=4)):
        kind = draw(st.sampled_from(examples.KINDS))
        shape = draw(st.sampled_from([(), (1,), (3,), (2, 2), (0,)]))
        feature = ExampleFeature(name, kind, shape)
        values = draw(st.lists(_value(kind), min_size=feature.size, max_size=feature.size))
        features[feature] = np.array([*values, None], dtype=object)[:-1].astype(examples.numpy_dtype(kind))
    return ExampleFormat("", None, None, tuple(features)), {feature.name: values for feature, values in features.items()}


# The first draw makes tables of Unicode, in two minutes on an emulated machine.
@hypothesis.settings(
    deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow]
)
@hypothesis.given(_example())
def test_what_is_decoded_encodes_to_the_same_bytes(tmp_path, example):
    example_format, features = example
    serialized = examples.encode(features)
    document = rows.to_document(features, example_format)
    # NaN has many encodings; one of them is written.
    made = encode(tmp_path, json.dumps(document, allow_nan=False), of=example_format)
    assert made == [examples.encode({name: _plain(values) for name, values in features.items()})]
    if not any(values.dtype == np.float32 and np.isnan(values).any() for values in features.values()):
        assert made == [serialized]


def _plain(values):
    return np.where(np.isnan(values), np.float32(math.nan), values) if values.dtype == np.float32 else values


@pytest.mark.parametrize("size", [0, 1, 2, 40])
def test_the_bytes_are_those_of_tensorflow(size):
    values = {
        "b": np.arange(size, dtype=np.float32),
        "a": np.arange(size) * -(2**40),
        "": np.array([b"x"] * size + [None], dtype=object)[:-1],
    }
    example = example_pb2.Example()
    for name, field in (("b", "float_list"), ("a", "int64_list"), ("", "bytes_list")):
        target = getattr(example.features.feature[name], field)
        target.SetInParent()
        target.value.extend(values[name].tolist())
    serialized = examples.encode(values)
    assert serialized == example.SerializeToString(deterministic=True)
    decoded = examples.decode(serialized)
    assert {name: array.tolist() for name, array in decoded.items()} == {name: array.tolist() for name, array in values.items()}


def test_examples_are_read_however_they_were_written(tmp_path):
    (serialized,) = encode(tmp_path, json.dumps(ROW))
    tfrecord.write_records(tmp_path / "examples.tfrecord", [serialized, serialized])
    (tmp_path / "one.bin").write_bytes(serialized)
    (tmp_path / "lines.txt").write_text(f"{base64.b64encode(serialized).decode()}\r\n\n{serialized.hex().upper()}\n")
    for name, places in (
        ("examples.tfrecord", [", example 0", ", example 1"]),
        ("one.bin", [""]),
        ("lines.txt", [":1", ":3"]),
    ):
        read = list(rows.read_examples(str(tmp_path / name)))
        assert read == [(f"{tmp_path / name}{place}", serialized) for place in places]


def test_what_is_no_example_is_told_with_its_line(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("CgA=\nD/MyApp: CgA=\n")
    with pytest.raises(errors.UsageError, match=r"log.txt:2 is neither an example in base64"):
        list(rows.read_examples(str(path)))
    with pytest.raises(errors.UsageError, match="not a serialized tf.train.Example"):
        rows.decode(b"\x0a\xff", "here")


def test_a_phone_s_examples_are_compared_with_the_task():
    features = {"x": np.zeros(3, np.float32), "id": np.zeros(1, np.float32), "words": np.array([b""], dtype=object)}
    assert list(rows.misfits(features, FORMAT)) == [
        "feature 'x' has 3 values, the task takes 4: x float32[2, 2]",
        "feature 'id' is float32, the task takes int64",
        "feature 'word' is missing; there is 'words'",
    ]
    sound = {"x": np.zeros(4, np.float32), "id": np.zeros(1, np.int64), "word": np.array([b""], dtype=object)}
    assert list(rows.misfits(sound, FORMAT)) == []
