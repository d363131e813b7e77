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
from odp_taskbuilder.plan.checkpoint import CheckpointTensor, write_checkpoint
from odp_taskbuilder.runtime.server_runtime import Server

Tensors = Mapping[str, np.ndarray]


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
