"""Rows that people write, JSON or a table, to the examples of a task; and examples back to JSON.

A row is a JSON object: feature name -> values, nested as the feature's shape or flat, or a bare value where there is one. Strings are
text, or {"base64": ...} for bytes that are none. Floats that are not finite are written "NaN", "Infinity", "-Infinity".
"""

from __future__ import annotations

import base64
import binascii
import difflib
import json
import math
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Optional, Union

import numpy as np

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts.example_format import ExampleFeature, ExampleFormat
from odp_taskbuilder.data import examples, tfrecord
from odp_taskbuilder.data.data_spec import DataSpec, FeatureSource, parse_data_spec
from odp_taskbuilder.data.open import is_table, read_head
from odp_taskbuilder.data.table import read_table

STDIN = "-"
_NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_INT64: Any = np.iinfo(np.int64)
# What text consists of; the tags and lengths of a serialized example are not among it.
_TEXT = frozenset(b"\t\n\r" + bytes(range(0x20, 0x7F)))


def encode_rows(text: str, example_format: ExampleFormat) -> Iterator[bytes]:
    """Serializes rows as a phone's app would: tf.train.Examples with the task's features.

    Args:
      text: `-` (JSON from standard input), or the path of a table with a mapping behind it as in data_spec, or of JSON: objects one
        after the other, or a list of them.

    Raises:
      StorageError: the file cannot be read.
      UsageError: a row does not fit the task; names file, line and feature.
    """
    spec = parse_data_spec(text)
    path = pathlib.Path(spec.path)
    head = None if text == STDIN else read_head(path)
    if head is not None and is_table(path, head):
        yield from _encode_table(spec, path, example_format)
        return
    if spec.options or spec.features:
        raise errors.UsageError(f"{spec.path} is no table: its features have the task's names, and no mapping.")
    for place, row in json_rows(text):
        try:
            yield examples.encode(_features(row, example_format))
        except ValueError as error:
            raise errors.UsageError(f"{place}: {error}.") from error


def json_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """JSON objects that stand one after the other, or in lists, each with its place.

    Raises:
      StorageError: the file cannot be read.
      UsageError: it holds no objects, or something else; names the line.
    """
    content = _read(path)
    path = _named(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.UsageError(f"{path} is neither a table (.csv, .tsv, Parquet) nor JSON in UTF-8: {error}.") from error
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    position, rows = 0, 0
    while (position := _skip_space(text, position)) < len(text):
        line = text.count("\n", 0, position) + 1
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise errors.UsageError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}.") from error
        except (ValueError, RecursionError) as error:
            raise errors.UsageError(f"{path}:{line}: not JSON: {error}.") from error
        is_list = isinstance(value, list)
        for index, row in enumerate(value if is_list else [value]):
            place = f"{path}:{line}" + (f", row {index + 1}" if is_list else "")
            if not isinstance(row, dict):
                raise errors.UsageError(f"{place}: expected an object, feature name to values, found {_shown(row)}.")
            rows += 1
            yield place, row
    if not rows:
        raise errors.UsageError(f"{path} has no rows; expected JSON objects, feature name to values.")


def read_examples(path: str) -> Iterator[tuple[str, bytes]]:
    """Serialized examples, each with the place where it stands: of a TFRecord file, of text with one example a line in base64 or in
    hexadecimal digits, or of a file that is one example.

    Raises:
      StorageError: the file cannot be read or is damaged.
      UsageError: it is none of the above.
    """
    content = _read(path)
    if path != STDIN and tfrecord.begins_file(content):
        records = tfrecord.read_records(pathlib.Path(path))
        yield from ((f"{path}, example {number}", record) for number, record in enumerate(records))
    elif set(content) <= _TEXT:
        for number, line in enumerate(content.splitlines(), 1):
            if line.strip():
                place = f"{_named(path)}:{number}"
                yield place, _from_text(line.strip(), place)
    else:
        yield _named(path), content


def decode(serialized: bytes, place: str) -> dict[str, np.ndarray]:
    """The features of one example, flat.

    Raises:
      UsageError: the bytes are no Example.
    """
    try:
        return examples.decode(serialized)
    except ValueError as error:
        raise errors.UsageError(
            f"{place}: {error}.",
            next_step="Text is one example a line: android.util.Base64 wraps lines unless it gets NO_WRAP.",
        ) from error


def misfits(features: Mapping[str, np.ndarray], example_format: ExampleFormat) -> Iterator[str]:
    """Why a phone could not train on an example; nothing where it can. Features that the task does not know are no reason."""
    for feature in example_format.features:
        values = features.get(feature.name)
        if values is None:
            yield f"feature {feature.name!r} is missing{_likely(feature.name, features)}"
        elif examples.kind_of(values) != feature.kind:
            yield f"feature {feature.name!r} is {examples.kind_of(values)}, the task takes {feature.kind}"
        elif len(values) != feature.size:
            yield f"feature {feature.name!r} has {len(values)} values, the task takes {feature.size}: {feature}"


def to_document(features: Mapping[str, np.ndarray], example_format: Optional[ExampleFormat] = None) -> dict[str, Any]:
    """An example as a JSON object, as `encode_rows` reads it: nested as the task has it where it fits, otherwise flat."""
    shapes = {feature.name: feature for feature in example_format.features} if example_format else {}
    document = {}
    for name, values in sorted(features.items()):
        written = np.array([_to_json(value) for value in values.tolist()] + [None], dtype=object)[:-1]
        feature = shapes.get(name)
        fits = feature is not None and feature.size == len(values)
        document[name] = written.reshape(feature.shape).tolist() if fits else written.tolist()
    return document


def _encode_table(spec: DataSpec, path: pathlib.Path, example_format: ExampleFormat) -> Iterator[bytes]:
    spec.accept_options("nonfinite")
    spec.accept_features([feature.name for feature in example_format.features])
    table = read_table(path)
    stated = {source.name: source for source in spec.features}
    sources = []
    for feature in example_format.features:
        named = stated[feature.name].columns if feature.name in stated else (feature.name,)
        sources.append(FeatureSource(feature.name, feature.kind, named))
    columns = table.features(sources, keep_nonfinite=spec.keep_nonfinite)
    for row in range(table.num_rows):
        made = {}
        for feature in example_format.features:
            values = np.ravel(np.asarray(columns[feature.name][row]))
            if values.size != feature.size:
                raise errors.UsageError(
                    f"{table.place(row)}: feature {feature.name!r} has {values.size} values, the task takes {feature.size}: {feature}.",
                    next_step=f"Map it to as many columns, for example {path}?{feature.name}=COLUMN_*.",
                )
            made[feature.name] = values
        yield examples.encode(made)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        name = next(name for position, (name, _) in enumerate(pairs) if name in dict(pairs[:position]))
        raise ValueError(f"the name {name!r} stands twice in one object")
    return made


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _features(row: Mapping[str, Any], example_format: ExampleFormat) -> dict[str, np.ndarray]:
    known = [feature.name for feature in example_format.features]
    for name in row:
        if name not in known:
            raise ValueError(f"the task has no feature {name!r}; it has {', '.join(map(str, example_format.features))}")
    made = {}
    for feature in example_format.features:
        if feature.name not in row:
            raise ValueError(f"feature {feature.name!r} is missing{_likely(feature.name, row)}")
        made[feature.name] = _values(row[feature.name], feature)
    return made


def _values(value: Any, feature: ExampleFeature) -> np.ndarray:
    shape, flat = _flattened(value, feature)
    if len(flat) != feature.size or shape not in (feature.shape, (feature.size,), ()):
        raise ValueError(f"feature {feature.name!r} has {len(flat)} values of shape {list(shape)}, the task takes {feature}")
    converted: list[Any] = [_to_value(each, feature) for each in flat]
    if feature.kind == "float32":
        with np.errstate(over="ignore"):
            values = np.array(converted, np.float64).astype(np.float32)
        for given, made in zip(converted, values):
            if math.isfinite(given) and not np.isfinite(made):
                raise ValueError(f"feature {feature.name!r}: {given!r} is too large for float32")
        return values
    return np.array(converted + [None], dtype=object)[:-1].astype(examples.numpy_dtype(feature.kind))


def _flattened(value: Any, feature: ExampleFeature) -> tuple[tuple[int, ...], list[Any]]:
    """Shape and values of nested lists."""
    shape: list[int] = []
    level = [value]
    while level and all(isinstance(each, list) for each in level):
        lengths = {len(each) for each in level}
        if len(lengths) > 1:
            raise ValueError(f"feature {feature.name!r} has lists of different lengths; the task takes {feature}")
        shape += lengths
        level = [inner for each in level for inner in each]
    return tuple(shape), level


def _to_value(value: Any, feature: ExampleFeature) -> Union[float, int, bytes]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if feature.kind == "float32":
        if isinstance(value, str) and value in _NONFINITE:
            return _NONFINITE[value]
        if is_number:
            try:
                return float(value)
            except OverflowError:
                raise ValueError(f"feature {feature.name!r}: {_shown(value)} is too large for float32") from None
    elif feature.kind == "int64":
        if isinstance(value, bool):
            return int(value)
        is_whole = is_number and (isinstance(value, int) or value.is_integer())
        if is_whole and _INT64.min <= int(value) <= _INT64.max:
            return int(value)
    elif isinstance(value, str):
        return value.encode("utf-8", "strict")
    elif isinstance(value, dict) and set(value) == {"base64"} and isinstance(value["base64"], str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"feature {feature.name!r}: {_shown(value)} is no base64: {error}") from error
    raise ValueError(f"feature {feature.name!r} takes {feature.kind}, found {_shown(value)}")


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _read(path: str) -> bytes:
    try:
        if path == STDIN:
            return sys.stdin.buffer.read()
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise errors.StorageError(f"Cannot read {path}: {error.strerror}.") from error


def _named(path: str) -> str:
    return "standard input" if path == STDIN else path


def _from_text(line: bytes, place: str) -> bytes:
    # An Example begins with the byte 0x0a: in hexadecimal digits with 0a, in base64 with C.
    try:
        if line[:2].lower() == b"0a":
            return bytes.fromhex(line.decode("ascii"))
        return base64.b64decode(line, validate=True)
    except ValueError as error:
        raise errors.UsageError(
            f"{place} is neither an example in base64 nor one in hexadecimal digits: found {_shown(line.decode(errors='replace'))}.",
            next_step="Expected a TFRecord file, one example a line in base64 or hexadecimal digits, or the bytes of one example.",
        ) from error


def _likely(name: str, names: Mapping[str, Any]) -> str:
    matches = difflib.get_close_matches(name, list(names), n=1)
    return f"; there is {matches[0]!r}" if matches else ""


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}..."
