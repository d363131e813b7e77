"""Arithmetic on the files in which sums of updates travel between the server's roles."""

from __future__ import annotations

import functools
import os
from typing import Union

import numpy as np
import tensorflow as tf

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts.checkpoint_reader import open_checkpoint
from odp_taskbuilder.plan.checkpoint import CheckpointTensor, write_checkpoint

Path = Union[str, "os.PathLike[str]"]


def weigh_partial(partial: Path, weighted: Path, weight: float) -> None:
    """Multiplies every sum of a partial: as if each of its clients had reported `weight` times. Integers are rounded to the nearest.

    Raises:
      errors.ArtifactError: a tensor is no sum of numbers, or grows beyond what its dtype holds.
    """
    with open_checkpoint(partial) as checkpoint:
        tensors = []
        for tensor in checkpoint.tensors:
            value = _weighed(checkpoint.read(tensor.name), weight, f"{partial}: {tensor.name}")
            dtype = tf.as_dtype(tensor.dtype).as_datatype_enum
            tensors.append(CheckpointTensor(tensor.name, dtype, tensor.shape, functools.partial(np.asarray, value)))
    with open(weighted, "wb") as file:
        write_checkpoint(file, tensors)


def _weighed(value: np.ndarray, weight: float, where: str) -> np.ndarray:
    if value.dtype.kind == "f":
        # A float32 sum stays one; what it cannot hold becomes infinite, which the server plan looks for.
        with np.errstate(over="ignore"):
            return (value.astype(np.float64) * weight).astype(value.dtype)
    if value.dtype.kind not in "iu":
        raise errors.ArtifactError(f"{where} is of dtype {value.dtype}, which cannot be weighed.")
    product, bounds = np.rint(value.astype(np.float64) * weight), np.iinfo(value.dtype)
    if value.size and not (bounds.min <= product.min() and product.max() <= bounds.max):
        raise errors.ArtifactError(f"{where}: {weight:g} times its value is more than {value.dtype} holds.")
    return product.astype(value.dtype)
