"""Runs a function of a loaded model op by op in the graph that is being traced.

What is known stays known: integer and boolean scalars are folded, lists of tensors are Python objects, and only what the outputs and
the function's effects need is created. Every other op is created again with its attributes, and its gradient is recorded as
TensorFlow's generated wrappers record it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.python.eager import execute
from tensorflow.python.framework import tensor_util
from tensorflow.python.framework.func_graph import FuncGraph

from odp_taskbuilder.retracing.broadcast_gradients import static_gradient
from odp_taskbuilder.retracing.custom_gradients import identity_with_gradient, loaded_gradient
from odp_taskbuilder.retracing.shapes import StaticShapes, constant_gradient
from odp_taskbuilder.retracing.values import Known, NotCovered, Value, as_tensor

# Creates the outputs of an op from its inputs.
Handler = Callable[["Tracer", tf.Operation, list[Value]], Sequence[Value]]

_GRADIENT = "_gradient_op_type"
# Attributes that hold for the function that the op comes from.
_DROPPED = ("_output_shapes", "_class", "_num_original_outputs", "_lower_using_switch_merge", "_read_only_resource_inputs")

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
# Ops that draw anew each time, given the shape of what to draw.
RANDOM_OPS = ("RandomStandardNormal", "RandomUniform", "TruncatedNormal")

# Stateful only in that they must not be merged or folded.
_WITHOUT_EFFECT = (*RANDOM_OPS, "Placeholder", "RandomGamma", "RandomPoissonV2", "RandomUniformInt", "ReadVariableOp")

_SCALAR_OPS: dict[str, Callable[..., np.ndarray]] = {
    "Abs": np.abs,
    "Add": np.add,
    "AddV2": np.add,
    "Cast": np.asarray,
    "Equal": np.equal,
    "FloorDiv": np.floor_divide,
    "FloorMod": np.mod,
    "Greater": np.greater,
    "GreaterEqual": np.greater_equal,
    "Less": np.less,
    "LessEqual": np.less_equal,
    "LogicalAnd": np.logical_and,
    "LogicalNot": np.logical_not,
    "LogicalOr": np.logical_or,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
    "Mul": np.multiply,
    "Neg": np.negative,
    "NotEqual": np.not_equal,
    "SelectV2": np.where,
    "Sub": np.subtract,
}
# Stands for the batch where a shape shows what becomes of it: a prime that is no size of a layer.
PROBE = 7919
# What a value that is no tensor passes unchanged.
_PASSING = ("Identity", "PreventGradient", "Snapshot", "StopGradient")


@dataclasses.dataclass(frozen=True)
class RetracedLoop:
    """What became of a loop or a conditional of a model.

    Attributes:
      name: of its node in the saved model's functions.
      form: "scan", "unrolled", "conditional", or "kept" for one that is as it was.
      steps: of a loop; 0 where they are not known.
      reason: why it was kept, or not scanned.
    """

    name: str
    form: str
    steps: int = 0
    reason: str = ""


class Tracer:
    """Traces functions again, with handlers for the ops that need more than being created; `functions` are those that they call.

    Shapes that `lost` knows better than TensorFlow are given back to their tensors; `seen` is told the shapes that tensors have.

    Attributes:
      differentiable: whether the result will be differentiated. Loops keep their history only then.
      report: name of a loop or conditional -> what became of it.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        functions: Mapping[str, FuncGraph],
        *,
        differentiable: bool,
        lost: StaticShapes = StaticShapes(),
        seen: Optional[StaticShapes] = None,
    ):
        self.differentiable = differentiable
        self._lost = lost
        self._seen = seen
        self.report: dict[str, RetracedLoop] = {}
        self._handlers = handlers
        self._draw: Optional[Handler] = None
        self._functions = functions

    def run(self, function: FuncGraph, args: Sequence[Value], outputs: Optional[Sequence[tf.Tensor]] = None) -> list[Value]:
        """The outputs of a function, created in the current graph.

        Args:
          args: one for each of `function.inputs`; None for one that is not needed.
          outputs: tensors of the function to compute in place of its outputs, without its effects.

        Raises:
          NotCovered: an op in it cannot be created again.
        """
        environment: dict[str, Value] = {tensor.name: arg for tensor, arg in zip(function.inputs, args)}
        roots = [tensor.op for tensor in outputs or function.outputs]
        if outputs is None:
            roots += _effects(function)
        for op in _in_order(roots):
            if op.outputs and op.outputs[0].name in environment:
                continue
            inputs = [environment[tensor.name] for tensor in op.inputs]
            if op.type == "Assert" and (_is_true(inputs[0]) or self._holds_for_any_batch(function, args, op.inputs[0])):
                continue
            gradient = loaded_gradient(op) if self.differentiable else None
            results = self._results(op, inputs) if gradient is None else self._with_gradient(op, gradient, inputs, environment)
            for tensor, result in zip(op.outputs, results):
                environment[tensor.name] = self._with_shape(function, tensor, inputs, result)
        return [environment[tensor.name] for tensor in outputs or function.outputs]

    def function(self, op: tf.Operation, attribute: str) -> FuncGraph:
        """The function that an attribute of `op` names."""
        return self._functions[op.get_attr(attribute).name]

    def emit(self, op: tf.Operation, inputs: Sequence[Value]) -> list[Value]:
        """Creates `op` again on other inputs."""
        tensors = [as_tensor(value) for value in inputs]
        if any(value.HasField("func") or value.list.func for value in op.node_def.attr.values()):
            raise NotCovered(f"{op.type} calls a function")
        graph = tf.compat.v1.get_default_graph()
        attributes = {name: value for name, value in op.node_def.attr.items() if name not in _DROPPED}
        new = graph._create_op_internal(
            op.type, tensors, [tensor.dtype for tensor in op.outputs], name=op.name, attrs=attributes, op_def=op.op_def
        )
        _record_gradient(new)
        return [_folded(tensor) for tensor in new.outputs]

    def emit_random(self, op: tf.Operation, shape: tf.Tensor) -> list[Value]:
        """Draws with a random op of a step, outside of the step: whoever answers for random ops here is asked."""
        return list((self._draw or Tracer.emit)(self, op, [shape]))

    @contextlib.contextmanager
    def drawing(self, draw: Handler) -> Iterator[None]:
        """Lets `draw` answer for the random ops that are met in the block."""
        before, self._draw = self._draw, draw
        try:
            yield
        finally:
            self._draw = before

    def _with_gradient(
        self, op: tf.Operation, gradient: Any, inputs: Sequence[Value], environment: Mapping[str, Value]
    ) -> Sequence[Value]:
        """The inputs of `op`, an identity, with the gradient that the model has for it."""
        captured = [tensor.name for tensor in gradient.captured_inputs]
        if any(name not in environment for name in captured):
            raise NotCovered(f"the gradient of {op.name} needs what the model does not compute before")

        def run(output_gradients: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
            args = [*output_gradients, *(environment[name] for name in captured)]
            return [as_tensor(value) for value in self.run(gradient.graph, args)]

        return identity_with_gradient([as_tensor(value) for value in inputs], gradient, run)

    def _with_shape(self, function: FuncGraph, tensor: tf.Tensor, inputs: list[Value], result: Value) -> Value:
        """What takes the place of a function's `tensor`, with the shape that it has whatever the batch is."""
        if not tf.is_tensor(result):
            return result
        if self._seen is not None:
            self._seen.see(function, tensor.name, result.shape)
        if not self._lost.is_lost(function, tensor.name, result.shape):
            return result
        # A reshape needs its sizes no more.
        return tf.reshape(inputs[0] if tensor.op.type == "Reshape" else result, self._lost.of(function, tensor.name))

    def _results(self, op: tf.Operation, inputs: list[Value]) -> Sequence[Value]:
        if op.type == "Placeholder":
            raise NotCovered(f"{op.name} is fed from outside")
        if op.type in _CALLS:
            return self.run(self.function(op, "f"), inputs)
        if op.type in _PASSING and not isinstance(inputs[0], tf.Tensor):
            return inputs
        if _are_known(inputs):
            value = computed(op, inputs)
            if value is not None:
                return [value]
        if op.type in RANDOM_OPS and self._draw is not None:
            return self._draw(self, op, inputs)
        return self._handlers.get(op.type, Tracer.emit)(self, op, inputs)

    def _holds_for_any_batch(self, function: FuncGraph, args: Sequence[Value], condition: tf.Tensor) -> bool:
        """Whether a condition depends on nothing but shapes, and holds whatever the batch is."""
        return all(self._holds_for_batch(function, args, condition, batch) for batch in (2, PROBE))

    def _holds_for_batch(self, function: FuncGraph, args: Sequence[Value], condition: tf.Tensor, batch: int) -> bool:
        with FuncGraph("assertion").as_default():
            probes = [probe(arg, batch) if isinstance(arg, tf.Tensor) else arg for arg in args]
            try:
                (value,) = self.run(function, probes, [condition])
            except NotCovered:
                return False
        return _is_true(value)


def probe(tensor: tf.Tensor, batch: int) -> tf.Tensor:
    """A placeholder for `tensor` whose unknown dimensions are `batch`."""
    if tensor.shape.rank is None:
        raise NotCovered("it takes a tensor of unknown rank")
    return tf.compat.v1.placeholder(tensor.dtype, [batch if dim is None else dim for dim in tensor.shape])


def _in_order(roots: Sequence[tf.Operation]) -> Iterator[tf.Operation]:
    """The ops that `roots` need, themselves included, each after those that it takes inputs from."""
    done: set[tf.Operation] = set()
    pending = list(reversed(roots))
    while pending:
        op = pending[-1]
        missing = [] if op in done else [tensor.op for tensor in op.inputs if tensor.op not in done]
        if missing:
            pending.extend(missing)
            continue
        pending.pop()
        if op not in done:
            done.add(op)
            yield op


def op_count(function: FuncGraph) -> int:
    """The ops that computing a function's outputs takes, constants left out."""
    return sum(op.type not in ("Const", "Placeholder") for op in _in_order([tensor.op for tensor in function.outputs]))


def _effects(function: FuncGraph) -> list[tf.Operation]:
    """The ops that do something, but for those that wait for what nobody feeds: when a model was made inside of the function, Keras built
    its layers around a placeholder first, and what they assert of that one is still there."""
    fed = {tensor.op for tensor in function.inputs}
    waiting: set[tf.Operation] = set()
    for op in function.get_operations():
        if (op.type == "Placeholder" and op not in fed) or any(tensor.op in waiting for tensor in op.inputs):
            waiting.add(op)
    return [op for op in function.get_operations() if _has_effect(op) and op not in waiting]


def _has_effect(op: tf.Operation) -> bool:
    return op.op_def.is_stateful and op.type not in _WITHOUT_EFFECT


def _is_true(value: Value) -> bool:
    return isinstance(value, Known) and value.constant is True


def _is_discrete(dtype: tf.DType) -> bool:
    return dtype.is_integer or dtype.is_bool


def _are_known(inputs: Sequence[Value]) -> bool:
    """Whether an op on `inputs` can be computed: all are known, and those that vary do so in one loop."""
    if not inputs or not all(isinstance(value, Known) for value in inputs):
        return False
    return len({id(value.index) for value in inputs if value.constant is None}) <= 1


def computed(op: tf.Operation, inputs: Sequence[Known]) -> Optional[Known]:
    """What an op of scalar arithmetic yields; None for any other op."""
    if op.type not in _SCALAR_OPS or not _is_discrete(op.outputs[0].dtype):
        return None
    varying = next((value.index for value in inputs if value.constant is None), None)
    values = [value.values if value.constant is None else value.values.ravel()[0] for value in inputs]
    return Known(np.asarray(_SCALAR_OPS[op.type](*values), op.outputs[0].dtype.as_numpy_dtype), varying)


def _folded(tensor: tf.Tensor) -> Value:
    if tensor.shape.rank != 0 or not _is_discrete(tensor.dtype):
        return tensor
    value = tensor_util.try_evaluate_constant(tensor)
    if value is None and tensor.op.type == "StridedSlice":
        value = _dimension(tensor.op)
    return tensor if value is None else Known(np.asarray(value, tensor.dtype.as_numpy_dtype))


def _dimension(op: tf.Operation) -> Optional[int]:
    """A dimension that a StridedSlice takes out of a shape, where that one is known: TensorFlow tells it only if begin and end are constant
    nodes, and here they may be made of constants."""
    shape, begin = op.inputs[0].op, tensor_util.constant_value(op.inputs[1])
    if shape.type != "Shape" or shape.inputs[0].shape.rank is None or begin is None or begin.shape != (1,) or op.get_attr("begin_mask"):
        return None
    return shape.inputs[0].shape[int(begin[0])]


def _record_gradient(op: tf.Operation) -> None:
    """Tells the tapes that watch, and gives `op` a gradient with static axes where it can have one."""
    gradient = op.type
    if _GRADIENT in op.node_def.attr:
        gradient = op.node_def.attr[_GRADIENT].s.decode()
    elif len(op.outputs) == 1:
        static = static_gradient(op.type, list(op.inputs), op.outputs[0].shape) or constant_gradient(op)
        if static is not None:
            gradient = static
            op._set_attr(_GRADIENT, attr_value_pb2.AttrValue(s=static.encode()))
    if execute.must_record_gradient():
        attributes = [part for attr in op.op_def.attr for part in (attr.name, op.get_attr(attr.name))]
        execute.record_gradient(gradient, op.inputs, tuple(attributes), op.outputs)
