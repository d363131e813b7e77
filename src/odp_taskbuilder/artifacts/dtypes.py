"""TensorFlow's data types as they are numbered in protos, named for people."""

from __future__ import annotations

import dataclasses
from typing import Optional


@dataclasses.dataclass(frozen=True)
class DType:
    """One data type.

    Attributes:
      name: float32, string, ...
      num_bytes: of one element; None where elements differ.
      value_field: the field of a TensorProto that holds values of this type.
    """

    name: str
    num_bytes: Optional[int]
    value_field: int


# tensorflow/core/framework/types.proto and tensor.proto. Resources and variants, which no checkpoint holds, have no values.
DTYPES = {
    1: DType("float32", 4, 5),
    2: DType("float64", 8, 6),
    3: DType("int32", 4, 7),
    4: DType("uint8", 1, 7),
    5: DType("int16", 2, 7),
    6: DType("int8", 1, 7),
    7: DType("string", None, 8),
    8: DType("complex64", 8, 9),
    9: DType("int64", 8, 10),
    10: DType("bool", 1, 11),
    14: DType("bfloat16", 2, 13),
    17: DType("uint16", 2, 7),
    19: DType("float16", 2, 13),
    22: DType("uint32", 4, 16),
    23: DType("uint64", 8, 17),
}

BY_NAME = {dtype.name: dtype for dtype in DTYPES.values()}


def dtype_name(enumerator: int) -> str:
    """The name of a tensorflow.DataType; its number where it has none here."""
    dtype = DTYPES.get(enumerator)
    return f"type {enumerator}" if dtype is None else dtype.name
