"""Tensors as plans describe them, and how large a checkpoint of them is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Optional

import numpy as np

from odp_taskbuilder.artifacts import dtypes
from odp_taskbuilder.base import server_limits
from odp_taskbuilder.plan import checkpoint

_ENUMERATORS = {dtype.name: enumerator for enumerator, dtype in dtypes.DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of a tensor.

    Attributes:
      dtype: float32, string, ...
      shape: -1 for an unknown dimension; None where even the rank is unknown.
    """

    name: str
    dtype: str
    shape: Optional[tuple[int, ...]]

    @property
    def num_bytes(self) -> Optional[int]:
        """Of the values; None where the shape or the dtype leaves that open."""
        dtype = dtypes.BY_NAME.get(self.dtype)
        if self.shape is None or -1 in self.shape or dtype is None or dtype.num_bytes is None:
            return None
        elements = 1
        for size in self.shape:
            elements *= size
        return elements * dtype.num_bytes

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}{shape_text(self.shape)}"


def shape_text(shape: Optional[tuple[int, ...]]) -> str:
    """[784, 256], with ? for what is unknown."""
    if shape is None:
        return "[...]"
    return "[" + ", ".join("?" if size == -1 else str(size) for size in shape) + "]"


def shape_of(proto: Any) -> Optional[tuple[int, ...]]:
    """The shape that a TensorShapeProto holds."""
    return None if proto.unknown_rank else tuple(dim.size for dim in proto.dim)


def spec_of(proto: Any) -> TensorSpec:
    """The content of a TensorSpecProto."""
    return TensorSpec(proto.name, dtypes.dtype_name(proto.dtype), shape_of(proto.shape))


def checkpoint_bytes(specs: Iterable[TensorSpec]) -> Optional[int]:
    """The size of a V1 checkpoint of such tensors, to the byte where they hold floats.

    Integers and booleans take one byte per element if they are below 128, as client counts are; they are counted so. Takes about
    0.5 s per GB.

    Returns:
      None where a size is unknown, or beyond what servers read.
    """
    specs = list(specs)
    sizes = [spec.num_bytes for spec in specs]
    if None in sizes or sum(sizes) > server_limits.MAX_ARTIFACT_BYTES:
        return None
    counter = _Counter()
    checkpoint.write_checkpoint(
        counter, [checkpoint.CheckpointTensor(spec.name, _ENUMERATORS[spec.dtype], spec.shape, _zeros(spec)) for spec in specs]
    )
    return counter.num_bytes


class _Counter:
    """A file that only counts what is written to it."""

    num_bytes = 0

    def write(self, data: bytes, /) -> int:
        self.num_bytes += len(data)
        return len(data)


def _zeros(spec: TensorSpec) -> Any:
    # Pages of zeros that are never written to take no memory.
    return lambda: np.zeros(spec.shape, spec.dtype)
