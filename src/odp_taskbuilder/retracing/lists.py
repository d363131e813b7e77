"""The ops on TensorFlow's TensorLists, on lists that are objects of the tracer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import tensor_util

from odp_taskbuilder.retracing.tracer import Handler, Tracer
from odp_taskbuilder.retracing.values import Known, NotCovered, Row, TensorList, Value, as_tensor


def _reserve(tracer: Tracer, op: tf.Operation, inputs: list[Value]) -> Sequence[Value]:
    element_shape, length = inputs
    if not isinstance(length, Known) or length.constant is None:
        raise NotCovered("it makes a list whose length is not known; give the sequences a fixed length in the input spec")
    return [TensorList(_element_dtype(op), _shape(element_shape), (None,) * length.constant)]


def _empty(tracer: Tracer, op: tf.Operation, inputs: list[Value]) -> Sequence[Value]:
    return [TensorList(_element_dtype(op), _shape(inputs[0]), ())]


def _from_tensor(tracer: Tracer, op: tf.Operation, inputs: list[Value]) -> Sequence[Value]:
    stack = as_tensor(inputs[0])
    if stack.shape.rank is None or stack.shape[0] is None:
        raise NotCovered("the length of its sequences is not known; give them a fixed length in the input spec")
    return [TensorList(stack.dtype, stack.shape[1:], tuple(Row(stack, position) for position in range(stack.shape[0])))]


def _stack(tracer: Tracer, op: tf.Operation, inputs: list[Value]) -> Sequence[Value]:
    return [inputs[0].stack()]


def _get(tracer: Tracer, op: tf.Operation, inputs: list[Value]) -> Sequence[Value]:
    return [inputs[0].get(inputs[1])]


def _set(tracer: Tracer, op: tf.Operation, inputs: list[Value]) -> Sequence[Value]:
    return [inputs[0].set(inputs[1], as_tensor(inputs[2]))]


def _push(tracer: Tracer, op: tf.Operation, inputs: list[Value]) -> Sequence[Value]:
    return [inputs[0].push(as_tensor(inputs[1]))]


def _length(tracer: Tracer, op: tf.Operation, inputs: list[Value]) -> Sequence[Value]:
    return [Known(np.array(len(inputs[0]), np.int32))]


def _element_dtype(op: tf.Operation) -> tf.DType:
    return op.get_attr("element_dtype")


def _shape(value: Value) -> tf.TensorShape:
    """A list's element shape from the operand that gives it: a vector, or the scalar -1 for an unknown rank."""
    tensor = as_tensor(value)
    return tensor_util.constant_value_as_shape(tensor)


LIST_HANDLERS: dict[str, Handler] = {
    "EmptyTensorList": _empty,
    "TensorListFromTensor": _from_tensor,
    "TensorListGetItem": _get,
    "TensorListLength": _length,
    "TensorListPushBack": _push,
    "TensorListReserve": _reserve,
    "TensorListSetItem": _set,
    "TensorListStack": _stack,
}
