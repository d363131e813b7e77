"""What flows along the edges of a function that is traced again, beside tensors: numbers that are known, and lists of tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Optional, Union

import numpy as np
import tensorflow as tf


class NotCovered(Exception):
    """A function cannot be traced again; the message is a sentence that says why."""


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """A scalar, integer or boolean, whose value is known while tracing.

    Attributes:
      values: the value (no axis), or its values at the steps of a loop (one axis).
      index: counts the steps of that loop from 0, as an int32 tensor; None for a single value.
    """

    values: np.ndarray
    index: Optional[tf.Tensor] = None

    @property
    def constant(self) -> Optional[Any]:
        """The value as a Python scalar; None where it is not the same at every step."""
        if self.values.ndim == 0:
            return self.values.item()
        first = self.values[0]
        return first.item() if np.all(self.values == first) else None

    def tensor(self) -> tf.Tensor:
        constant = self.constant
        if constant is not None:
            return tf.constant(constant, tf.as_dtype(self.values.dtype))
        return tf.gather(tf.constant(self.values), self.index)


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """An element of a list that is `stack[position]`."""

    stack: tf.Tensor
    position: int

    def tensor(self) -> tf.Tensor:
        return self.stack[self.position]


@dataclasses.dataclass(frozen=True, eq=False)
class TensorList:
    """A list of tensors of one dtype: TensorFlow's TensorList, which never becomes a tensor here.

    Attributes:
      element_shape: what is known of the shape of all elements.
      elements: None for one that was not written.
    """

    dtype: tf.DType
    element_shape: tf.TensorShape
    elements: tuple[Union[None, Row, tf.Tensor], ...]

    def __len__(self) -> int:
        return len(self.elements)

    def get(self, index: Union[Known, tf.Tensor]) -> tf.Tensor:
        position = index.constant if isinstance(index, Known) else None
        if position is None:
            return tf.gather(self.stack(), as_tensor(index))
        if not 0 <= position < len(self):
            raise NotCovered(f"it reads element {position} of a list of {len(self)}")
        return self._element(position)

    def set(self, index: Union[Known, tf.Tensor], item: tf.Tensor) -> TensorList:
        position = index.constant if isinstance(index, Known) else None
        if position is None:
            raise NotCovered("it writes a list at a position that depends on data")
        if not 0 <= position < len(self):
            raise NotCovered(f"it writes element {position} of a list of {len(self)}")
        return self.with_elements({position: item})

    def with_elements(self, replaced: dict[int, Union[Row, tf.Tensor]]) -> TensorList:
        elements = list(self.elements)
        for position, element in replaced.items():
            elements[position] = element
        return dataclasses.replace(self, elements=tuple(elements))

    def push(self, item: tf.Tensor) -> TensorList:
        return dataclasses.replace(self, elements=(*self.elements, item))

    def stack(self) -> tf.Tensor:
        """[length, ...element shape]."""
        return self.rows(range(len(self)))

    def rows(self, positions: Sequence[int]) -> tf.Tensor:
        """The elements at `positions`, stacked."""
        elements = [self.elements[position] for position in positions]
        if not elements:
            return tf.zeros([0, *self._known_shape()], self.dtype)
        first = elements[0]
        if all(isinstance(element, Row) and element.stack is first.stack for element in elements):
            taken = [element.position for element in elements]
            start, end = taken[0], taken[-1] + 1
            if taken == list(range(start, end)):
                return first.stack if (start, end) == (0, first.stack.shape[0]) else first.stack[start:end]
            return tf.gather(first.stack, taken)
        return tf.stack([self._element(position) for position in positions])

    def _element(self, position: int) -> tf.Tensor:
        element = self.elements[position]
        if isinstance(element, Row):
            return element.tensor()
        if element is not None:
            return element
        # TensorFlow reads zeros where nothing was written.
        other = next((element for element in self.elements if element is not None), None)
        if other is not None:
            return tf.zeros_like(other.tensor() if isinstance(other, Row) else other)
        return tf.zeros(self._known_shape(), self.dtype)

    def _known_shape(self) -> list[int]:
        if not self.element_shape.is_fully_defined():
            raise NotCovered("it reads a list whose elements have no known shape")
        return self.element_shape.as_list()


Value = Any  # A tf.Tensor, Known, TensorList, or loops.StepList.


def as_tensor(value: Value) -> tf.Tensor:
    """Raises NotCovered for a list, which is no tensor."""
    if isinstance(value, Known):
        return value.tensor()
    if tf.is_tensor(value):
        return value
    raise NotCovered("a list of tensors goes where only a tensor can")
