"""tf.train.Example messages to and from numpy arrays.

An Example has three kinds of values, named here as a plan's parser names them: float32, int64 and string. It has no shapes:
an array is stored flat, in row-major order, and gets its shape from the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Union

import numpy as np
from google.protobuf import message

# Makes TensorFlow's protos importable without TensorFlow.
import odp_taskbuilder.proto  # noqa: F401

from tensorflow.core.example import example_pb2  # isort: skip

KINDS = ("float32", "int64", "string")

_FIELDS = {"float32": "float_list", "int64": "int64_list", "string": "bytes_list"}
_KINDS_OF_FIELDS = {field: kind for kind, field in _FIELDS.items()}


def encode(features: Mapping[str, np.ndarray]) -> bytes:
    """Serializes one example; the bytes depend on the values only, not on the order of the mapping.

    Args:
      features: feature name to array. Floating-point arrays become float32, integers and bools int64, text and bytes string.
    """
    example = example_pb2.Example()
    for name, values in features.items():
        kind = kind_of(values)
        feature = getattr(example.features.feature[name], _FIELDS[kind])
        if kind == "float32":
            feature.MergeFromString(_float_list(values) if values.size else b"")
            # A list without values is there all the same.
            feature.SetInParent()
            continue
        flat = values.ravel().tolist()
        if kind == "string":
            flat = [value.encode() if isinstance(value, str) else value for value in flat]
        feature.value.extend(flat)
    return example.SerializeToString(deterministic=True)


def _float_list(values: np.ndarray) -> bytes:
    """A serialized FloatList: field 1, the numbers packed. Handing protobuf Python floats takes sixty times as long."""
    numbers = np.ascontiguousarray(values, "<f4").tobytes()
    length, size = b"", len(numbers)
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return b"\x0a" + length + bytes([size]) + numbers


def decode(serialized: bytes) -> dict[str, np.ndarray]:
    """The features of one example as flat arrays of dtype float32, int64 or object (bytes); a feature without a value is
    left out.

    Raises:
      ValueError: the bytes are no Example.
    """
    try:
        example = example_pb2.Example.FromString(serialized)
    except message.DecodeError as error:
        raise ValueError("the record is not a serialized tf.train.Example") from error
    decoded = {}
    for name, feature in example.features.feature.items():
        field = feature.WhichOneof("kind")
        if field == "float_list":
            # What was parsed from packed or single numbers is written packed, at the end of the message.
            count = len(feature.float_list.value)
            decoded[name] = np.frombuffer(feature.float_list.SerializeToString()[-4 * count :], "<f4", count).astype(np.float32)
        elif field is not None:
            decoded[name] = np.array(getattr(feature, field).value, dtype=numpy_dtype(_KINDS_OF_FIELDS[field]))
    return decoded


def kind_of(values: np.ndarray) -> str:
    """The kind that an array is stored as.

    Raises:
      ValueError: its dtype has no place in an Example.
    """
    if np.issubdtype(values.dtype, np.floating):
        return "float32"
    if np.issubdtype(values.dtype, np.integer) or values.dtype == bool:
        return "int64"
    if values.dtype.kind in "OSU":
        return "string"
    raise ValueError(f"values of type {values.dtype} cannot be stored in a tf.train.Example")


def numpy_dtype(kind: str) -> Union[type, np.dtype]:
    """The dtype that holds a kind; strings are objects because numpy's byte strings lose trailing zero bytes."""
    return {"float32": np.float32, "int64": np.int64, "string": object}[kind]
