"""Adding up updates outside of the server plan: one TensorFlow session for the sum of many clients, in place of one for each.

That the plan's own accumulation does nothing else than add is tried out, not assumed.
"""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Union

import numpy as np
import tensorflow as tf

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import wire
from odp_taskbuilder.artifacts.checkpoint_reader import Checkpoint
from odp_taskbuilder.artifacts.coded_tensors import decoded
from odp_taskbuilder.config.compression import CODES, SCALE
from odp_taskbuilder.plan.checkpoint import CheckpointTensor, write_checkpoint
from odp_taskbuilder.runtime.server_runtime import Server

Tensors = Mapping[str, np.ndarray]
# Codes of sums, which servers decode in float32: zigzag, natural numbers up to 2^24.
_SUM_BITS = 22
# Of a decoded sum, relative L2: float32's rounding.
_MAX_CODED_DIFFERENCE = 1e-6


def adds_up(aggregator: Server, update: Tensors, scratch: pathlib.Path) -> bool:
    """Whether the server plan's aggregation of an update with itself is that of its double, to the last bit; doubling is exact.

    Args:
      scratch: directory for files.
    """
    if any(value.dtype.kind not in "fiu" for value in update.values()):
        return False
    # A tensor of zeros would not tell.
    update = {name: value if value.any() else np.ones_like(value) for name, value in update.items()}
    single, double, partial = (scratch / name for name in ("single", "double", "tried"))
    write_tensors(single, update)
    write_tensors(double, {name: value + value for name, value in update.items()})
    results = []
    for updates in ([single, single], [double]):
        aggregator.aggregate_updates(updates, partial)
        results.append(read_tensors(partial))
    return all(np.array_equal(results[1][name], value) for name, value in results[0].items())


def adds_up_decoded(aggregator: Server, update: Tensors, scratch: pathlib.Path) -> bool:
    """Whether the server plan's aggregation decodes an update and adds it up, so that the sum of decoded updates, coded again
    (`coded_sums`), may take the place of all of them.

    Args:
      update: one of a client, with codes and scales in place of some tensors.
      scratch: directory for files.
    """
    if any(value.dtype.kind not in "fiu" for value in update.values()):
        return False
    # A tensor of zeros would not tell.
    update = {name: value if value.any() else np.ones_like(value) for name, value in update.items()}
    once, partial = scratch / "single", scratch / "tried"
    write_tensors(once, update)
    total = {name: value.astype(np.float64 if value.dtype.kind == "f" else np.int64) for name, value in decoded(update).items()}
    twice = []
    for number, part in enumerate(coded_sums({name: 2 * value for name, value in total.items()}, update)):
        twice.append(scratch / f"double_{number}")
        write_tensors(twice[-1], part)
    results = []
    for updates in ([once, once], twice):
        aggregator.aggregate_updates(updates, partial)
        results.append(read_tensors(partial))

    def is_near(value: np.ndarray, other: np.ndarray) -> bool:
        return bool(np.linalg.norm(np.ravel(other - value)) <= _MAX_CODED_DIFFERENCE * np.linalg.norm(np.ravel(value)))

    return all(is_near(value.astype(np.float64), results[1][name].astype(np.float64)) for name, value in results[0].items())


def coded_sums(total: Tensors, like: Tensors) -> list[dict[str, np.ndarray]]:
    """A sum of decoded updates as two updates with codes, which a server decodes and adds up to it, as exactly as float32 can.

    Args:
      total: by name, in float64 or int64.
      like: an update, which says under which names, in which shapes and dtypes tensors are sent.
    """
    # What the first leaves of it, rounded to fewer bits than float32 has, is in the second.
    first: dict[str, np.ndarray] = {}
    second: dict[str, np.ndarray] = {}
    for name, value in total.items():
        if name in like:
            first[name] = value.astype(like[name].dtype).reshape(like[name].shape)
            second[name] = np.zeros_like(first[name])
            continue
        rest = value
        for part in (first, second):
            codes, scale = _codes_of_sum(rest)
            rest = rest - codes * np.float64(scale)
            like_codes, like_scale = like[f"{name}/{CODES}"], like[f"{name}/{SCALE}"]
            part[f"{name}/{CODES}"] = np.where(codes < 0, -2 * codes - 1, 2 * codes).astype(like_codes.dtype).reshape(like_codes.shape)
            part[f"{name}/{SCALE}"] = np.full(like_scale.shape, scale, like_scale.dtype)
    return [first, second]


def _codes_of_sum(value: np.ndarray) -> tuple[np.ndarray, float]:
    """Integers below 2^(_SUM_BITS), and the power of two by which they are multiplied: exact in float32."""
    peak = float(np.max(np.abs(value)))
    scale = 2.0 ** max(-126, int(np.frexp(peak)[1]) - _SUM_BITS) if peak else 0.0
    return (np.rint(value / scale).astype(np.int64) if scale else np.zeros(value.shape, np.int64)), scale


def read_tensors(path: Union[str, os.PathLike]) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint, by name. Raises ArtifactError if it is none, StorageError if it cannot be read."""
    with wire.open_file(path) as source:
        # At once: a hundred small reads take longer.
        checkpoint = Checkpoint(source[:], os.fspath(path))
    return {tensor.name: checkpoint.read(tensor.name) for tensor in checkpoint.tensors}


def write_tensors(path: Union[str, os.PathLike], tensors: Tensors) -> None:
    """Writes a checkpoint of tensors as they are. Raises StorageError."""
    written = [
        CheckpointTensor(name, tf.as_dtype(value.dtype).as_datatype_enum, value.shape, functools.partial(np.asarray, value))
        for name, value in tensors.items()
    ]
    try:
        with open(path, "wb") as file:
            write_checkpoint(file, written)
    except OSError as error:
        raise errors.StorageError(f"Cannot write {path}: {error.strerror}.") from error
