"""What an equivalent is, and the table of all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import tensor_util


class NoEquivalentError(Exception):
    """A node stays as it is; the message says why, as a clause that follows the op's name."""


@dataclasses.dataclass(frozen=True)
class Node:
    """The node that is being replaced.

    Attributes:
      operation: as the graph has it. Its tensors belong to another graph: only what is known of them statically is of use.
      inputs: what takes the place of its inputs, with their dtypes and static shapes.
    """

    operation: tf.Operation
    inputs: Sequence[tf.Tensor]

    def attr(self, name: str) -> Any:
        """An attribute; strings as text."""
        value = self.operation.get_attr(name)
        return value.decode() if isinstance(value, bytes) else value

    def output_shape(self, index: int = 0) -> list[Optional[int]]:
        """The static shape of an output, None where a dimension is unknown.

        Raises:
          NoEquivalentError: the rank is unknown.
        """
        return _dimensions(self.operation.outputs[index].shape)

    def shape(self, index: int) -> list[Optional[int]]:
        """The static shape of an input; errors as `output_shape`."""
        return _dimensions(self.operation.inputs[index].shape)

    def constant(self, index: int) -> np.ndarray:
        """The value of an input.

        Raises:
          NoEquivalentError: it is not known at build time.
        """
        value = tensor_util.constant_value(self.operation.inputs[index])
        if value is None:
            raise NoEquivalentError(f"its input {index} is not known before it runs")
        return value


def _dimensions(shape: tf.TensorShape) -> list[Optional[int]]:
    if shape.rank is None:
        raise NoEquivalentError("a shape has no known number of dimensions")
    return shape.as_list()


@dataclasses.dataclass(frozen=True)
class Equivalent:
    """One line of the table.

    Attributes:
      op: TensorFlow's name of what is replaced.
      by: what takes its place, in a few words for people.
      write: from a node to its outputs' equivalents; may leave out trailing outputs that nothing reads. Raises NoEquivalentError.
    """

    op: str
    by: str
    write: Callable[[Node], Sequence[tf.Tensor]]


EQUIVALENTS: dict[str, Equivalent] = {}


def equivalent(op: str, *, by: str) -> Callable[[Callable[[Node], Sequence[tf.Tensor]]], Callable[[Node], Sequence[tf.Tensor]]]:
    """Enters a function in the table."""

    def register(write: Callable[[Node], Sequence[tf.Tensor]]) -> Callable[[Node], Sequence[tf.Tensor]]:
        EQUIVALENTS[op] = Equivalent(op, by, write)
        return write

    return register
