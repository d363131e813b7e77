"""Loops whose number of steps is known, as scans with a gradient of their own, or step after step.

A loop of TensorFlow keeps what its gradient needs in TensorLists. A scan keeps the states that each step began with in one tensor
[steps, ...] per state, and its gradient is a second loop, backwards, that computes each step again from there (spec:
rewrites.md, section 3). The values of a loop are of five kinds: counters, which are known at every step; invariants; states, which a
step reads and replaces; lists that are read at known positions, of which each step gets its own slice; and lists that are written
once per step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Callable, Optional, Union

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import tensor_util
from tensorflow.python.framework.func_graph import FuncGraph

from odp_taskbuilder.retracing.gradients import differentiated, gradients_of
from odp_taskbuilder.retracing.tracer import PROBE, Handler, RetracedLoop, Tracer, computed, op_count, probe
from odp_taskbuilder.retracing.values import Known, NotCovered, Row, TensorList, Value, as_tensor

# Beyond, a loop of a model is taken for one that was not meant for a phone.
_MAX_STEPS = 10_000
# A loop that cannot be scanned is unrolled up to so many ops: composing and converting 3,500 of them takes half a minute.
_MAX_UNROLLED_OPS = 5_000
# A scan of fewer steps would be larger than the steps.
_MIN_SCANNED_STEPS = 3


def _loop(tracer: Tracer, op: tf.Operation, inputs: list[Value]) -> Sequence[Value]:
    condition, body = tracer.function(op, "cond"), tracer.function(op, "body")
    counters = _count(condition, body, inputs)
    steps = counters.steps
    reason = ""
    if steps >= _MIN_SCANNED_STEPS:
        try:
            outputs = _scan(tracer, op, body, inputs, counters)
            tracer.report[op.name] = RetracedLoop(op.name, "scan", steps)
            return outputs
        except NotCovered as error:
            reason = str(error)
            if steps * op_count(body) > _MAX_UNROLLED_OPS:
                raise NotCovered(
                    f"the loop {op.name} cannot be scanned: {reason}; unrolled it has too many steps ({steps})"
                ) from error
    values: list[Value] = list(inputs)
    for _ in range(steps):
        values = tracer.run(body, values)
    tracer.report[op.name] = RetracedLoop(op.name, "unrolled", steps, reason)
    return values


LOOP_HANDLERS: dict[str, Handler] = {"StatelessWhile": _loop, "While": _loop}


@dataclasses.dataclass(frozen=True)
class _Counters:
    """The loop variables that are known at every step.

    Attributes:
      values: position -> [steps + 1], before each step and after the last.
    """

    steps: int
    values: Mapping[int, np.ndarray]


def _count(condition: FuncGraph, body: FuncGraph, inputs: Sequence[Value]) -> _Counters:
    """Counts the steps of a loop by computing what its condition depends on, as far as that is known."""
    start = {j: value.values for j, value in enumerate(inputs) if isinstance(value, Known) and value.constant is not None}
    start = {j: value if value.ndim == 0 else value[0] for j, value in start.items()}
    while True:
        values, steps = {j: [value] for j, value in start.items()}, 0
        unknown = None
        while True:
            known = {body.inputs[j].name: column[-1] for j, column in values.items()}
            goes_on = _fold(condition.outputs[0], {condition.inputs[j].name: column[-1] for j, column in values.items()})
            if goes_on is None:
                raise NotCovered("its number of steps is not known; give the sequences a fixed length in the input spec")
            if not goes_on:
                return _Counters(steps, {j: np.array(column) for j, column in values.items()})
            if steps == _MAX_STEPS:
                raise NotCovered(f"it has more than {_MAX_STEPS:,} steps")
            following = {j: _fold(body.outputs[j], known) for j in values}
            unknown = {j for j, value in following.items() if value is None}
            if unknown:
                break
            for j, value in following.items():
                values[j].append(value)
            steps += 1
        start = {j: value for j, value in start.items() if j not in unknown}


def _fold(tensor: tf.Tensor, known: Mapping[str, np.ndarray]) -> Optional[np.ndarray]:
    """The value of a scalar of a function where scalar arithmetic gives it; None elsewhere."""
    if tensor.name in known:
        return known[tensor.name]
    op = tensor.op
    if op.type == "Identity":
        return _fold(op.inputs[0], known)
    if op.type == "Const":
        return tensor_util.constant_value(tensor) if tensor.shape.rank == 0 else None
    operands = [_fold(operand, known) for operand in op.inputs]
    if not operands or any(operand is None for operand in operands):
        return None
    result = computed(op, [Known(np.asarray(operand)) for operand in operands])
    return None if result is None else result.values


class _StepList:
    """A list inside of a step: what it reads comes from `read`, what it writes is kept."""

    def __init__(self, read: _Reader, position: int, writes: tuple[tuple[Known, tf.Tensor], ...] = ()):
        self._read = read
        self.position = position
        self.writes = writes

    def get(self, index: Value) -> tf.Tensor:
        where = self._where(index)
        for written, item in reversed(self.writes):
            if np.array_equal(self._where(written), where):
                return item
        return self._read(self.position, where)

    def set(self, index: Value, item: tf.Tensor) -> _StepList:
        self._where(index)
        return _StepList(self._read, self.position, (*self.writes, (index, item)))

    def stack(self) -> tf.Tensor:
        raise NotCovered("a step reads a whole list")

    def push(self, item: tf.Tensor) -> _StepList:
        raise NotCovered("a step makes a list longer")

    def __len__(self) -> int:
        raise NotCovered("a step asks for the length of a list")

    def _where(self, index: Value) -> np.ndarray:
        if not isinstance(index, Known):
            raise NotCovered("a step reads or writes a list at a position that depends on data")
        return index.values


# (position of the list among the loop's values, indices at each step or one index) -> the element.
_Reader = Callable[[int, np.ndarray], tf.Tensor]
_Dims = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Write:
    """What a step writes into a list: at `indices`, one per step, or always at the same one."""

    indices: np.ndarray
    dims: _Dims
    dtype: tf.DType

    @property
    def is_last(self) -> bool:
        return self.indices.ndim == 0


@dataclasses.dataclass
class _Layout:
    """What the steps of a loop read and write, as one of them showed. Dimensions are PROBE where they are the batch.

    Attributes:
      invariants: positions of tensors that no step changes.
      states: position of a tensor that steps replace -> its dimensions.
      read: the states that a step reads.
      slices: lists that are read: position and index at each step (or one index).
      writes: position of a list -> what is written.
      draws: random ops, in the order that a step meets them, with the dimensions of what they draw.
    """

    invariants: list[int] = dataclasses.field(default_factory=list)
    states: dict[int, _Dims] = dataclasses.field(default_factory=dict)
    read: list[int] = dataclasses.field(default_factory=list)
    slices: list[tuple[int, np.ndarray]] = dataclasses.field(default_factory=list)
    writes: dict[int, _Write] = dataclasses.field(default_factory=dict)
    draws: list[tuple[tf.Operation, _Dims]] = dataclasses.field(default_factory=list)

    def slice_number(self, position: int, indices: np.ndarray) -> Optional[int]:
        for number, (other, other_indices) in enumerate(self.slices):
            if other == position and np.array_equal(other_indices, indices):
                return number
        return None


def _lay_out(tracer: Tracer, body: FuncGraph, inputs: Sequence[Value], counters: _Counters) -> _Layout:
    """Traces one step for what it does, on placeholders in which PROBE stands for the batch."""
    layout = _Layout()
    slices: list[tf.Tensor] = []

    def read(position: int, indices: np.ndarray) -> tf.Tensor:
        number = layout.slice_number(position, indices)
        if number is None:
            layout.slices.append((position, indices))
            slices.append(probe(inputs[position].rows([int(indices.flat[0])])[0], PROBE))
            number = len(slices) - 1
        return slices[number]

    def draw(tracer: Tracer, op: tf.Operation, operands: list[Value]) -> Sequence[Value]:
        (drawn,) = tracer.emit(op, operands)
        layout.draws.append((op, _dims(drawn)))
        return [drawn]

    with FuncGraph("step").as_default(), tracer.drawing(draw):
        index = tf.compat.v1.placeholder(tf.int32, [])
        args = _arguments(inputs, counters, index, read, lambda position: probe(as_tensor(inputs[position]), PROBE))
        outputs = tracer.run(body, args)
        for position, (arg, output) in enumerate(zip(args, outputs)):
            if position in counters.values or output is arg:
                layout.invariants.extend([position] if isinstance(arg, tf.Tensor) else [])
            elif isinstance(arg, _StepList):
                layout.writes[position] = _write(arg, output, counters.steps)
            else:
                dims = _dims(as_tensor(output))
                if dims != _dims(arg):
                    raise NotCovered("a state changes its shape from step to step")
                layout.states[position] = dims
        for position in layout.states:
            passed_on = any(output is args[position] for output in outputs)
            if passed_on or args[position].consumers():
                layout.read.append(position)
    if any(position in layout.writes for position, _ in layout.slices):
        raise NotCovered("a step reads what earlier steps wrote into a list")
    return layout


def _arguments(
    inputs: Sequence[Value], counters: _Counters, index: tf.Tensor, read: _Reader, tensor: Callable[[int], Optional[tf.Tensor]]
) -> list[Value]:
    """What a step takes: each of the loop's values as it is there."""
    args: list[Value] = []
    for position, value in enumerate(inputs):
        if position in counters.values:
            args.append(Known(counters.values[position][: counters.steps], index))
        elif isinstance(value, (TensorList, _StepList)):
            args.append(_StepList(read, position))
        else:
            args.append(tensor(position))
    return args


def _write(before: _StepList, after: Value, steps: int) -> _Write:
    if not isinstance(after, _StepList) or after.position != before.position:
        raise NotCovered("its steps exchange lists")
    index, item = after.writes[-1]
    if any(not np.array_equal(other.values, index.values) for other, _ in after.writes):
        raise NotCovered("a step writes several elements of a list")
    indices = np.asarray(index.values) if index.constant is None else np.asarray(index.constant)
    if indices.ndim and len(set(indices.tolist())) < steps:
        raise NotCovered("its steps write some elements of a list several times")
    return _Write(indices, _dims(item), item.dtype)


def _dims(tensor: tf.Tensor) -> _Dims:
    if not tensor.shape.is_fully_defined():
        raise NotCovered("the shape of a step's result is not known")
    return tuple(tensor.shape.as_list())


@dataclasses.dataclass(frozen=True)
class _StepResult:
    states: list[tf.Tensor]
    written: list[tf.Tensor]


class _Scan:
    """One loop of the model as a scan.

    `slices`, `draws`: one tensor [steps, ...] each, of what the steps read from lists, and of random numbers.
    """

    def __init__(
        self, tracer: Tracer, name: str, body: FuncGraph, inputs: Sequence[Value], counters: _Counters, layout: _Layout
    ):
        self._tracer, self._name, self._body = tracer, name, body
        self._inputs, self._counters, self._layout = inputs, counters, layout
        self._steps = counters.steps
        self.slices = [inputs[position].rows(self._positions(indices)) for position, indices in layout.slices]
        self.states = [as_tensor(inputs[position]) for position in layout.states]
        self.invariants = [as_tensor(inputs[position]) for position in layout.invariants]
        self._batch = self._find_batch()
        self._draws = [self._draw(op, dims) for op, dims in layout.draws]

    def run(self) -> _StepResult:
        """The states after the last step, and for each written list what was written: [steps, ...], or the last item."""
        if not self._tracer.differentiable:
            final, written, _ = self._forward(self.states, self.slices, self.invariants, keeps_history=False)
            return _StepResult(final, written)
        counts = len(self.states), len(self.slices)

        @tf.custom_gradient
        def scan(*values):
            states, slices = values[: counts[0]], values[counts[0] : sum(counts)]
            invariants = values[sum(counts) :]
            final, written, histories = self._forward(states, slices, invariants, keeps_history=True)

            def gradient(*output_gradients):
                return self._backward(histories, slices, invariants, output_gradients)

            return [*final, *written], gradient

        outputs = list(scan(*self.states, *self.slices, *self.invariants))
        return _StepResult(outputs[: counts[0]], outputs[counts[0] :])

    def _forward(
        self, states: Sequence[tf.Tensor], slices: Sequence[tf.Tensor], invariants: Sequence[tf.Tensor], *, keeps_history: bool
    ) -> tuple[list[tf.Tensor], list[tf.Tensor], list[tf.Tensor]]:
        layout, steps = self._layout, self._steps
        kept = [number for number, position in enumerate(layout.states) if keeps_history and position in layout.read]
        written = [
            self._zeros(write.dims if write.is_last else (steps, *write.dims), write.dtype) for write in layout.writes.values()
        ]
        dims = list(layout.states.values())
        histories = [self._zeros((steps, *dims[number]), states[number].dtype) for number in kept]
        num_states, num_written = len(states), len(written)

        def body(index, *values):
            before, so_far = values[:num_states], values[num_states : num_states + num_written]
            result = self._step(index, before, [tf.gather(stack, index) for stack in slices], invariants)
            after = [
                item if write.is_last else _shift_in(stack, item)
                for write, stack, item in zip(layout.writes.values(), so_far, result.written)
            ]
            history = [_shift_in(stack, before[number]) for stack, number in zip(values[num_states + num_written :], kept)]
            return [index + 1, *result.states, *after, *history]

        outputs = self._while(body, [*states, *written, *histories])
        return outputs[:num_states], outputs[num_states : num_states + num_written], outputs[num_states + num_written :]

    def _backward(
        self,
        histories: Sequence[tf.Tensor],
        slices: Sequence[tf.Tensor],
        invariants: Sequence[tf.Tensor],
        output_gradients: Sequence[tf.Tensor],
    ) -> list[Optional[tf.Tensor]]:
        layout, steps = self._layout, self._steps
        num_states = len(self.states)
        positions = list(layout.states)
        is_float = [state.dtype.is_floating for state in self.states]
        read = [positions.index(position) for position in layout.read]
        each = [None if write.is_last else grad for write, grad in zip(layout.writes.values(), output_gradients[num_states:])]
        # What goes backwards from step to step: gradients of states, and of items that only the last step writes for good.
        carried = [number for number in range(num_states) if is_float[number]]
        last = [number for number, write in enumerate(layout.writes.values()) if write.is_last and write.dtype.is_floating]
        start = [output_gradients[number] for number in carried] + [output_gradients[num_states + number] for number in last]
        sums = [tf.zeros_like(tensor) for tensor in (*differentiated(slices), *differentiated(invariants))]
        num_slices = len(differentiated(slices))

        def body(count, *values):
            index = steps - 1 - count
            flowing, summed = values[: len(start)], values[len(start) :]
            states: list[Optional[tf.Tensor]] = [None] * num_states
            for number, history in zip(read, histories):
                states[number] = tf.gather(history, index)
            own_slices = [tf.gather(stack, index) for stack in slices]
            own_invariants = [tf.identity(tensor) for tensor in invariants]
            result = self._step(index, states, own_slices, own_invariants)
            state_gradients = dict(zip(carried, flowing))
            item_gradients = [None if grad is None or not grad.dtype.is_floating else tf.gather(grad, index) for grad in each]
            for number, grad in zip(last, flowing[len(carried) :]):
                item_gradients[number] = grad
            sources = [states[number] for number in read if is_float[number]]
            found = gradients_of(
                [*result.states, *result.written],
                [*sources, *differentiated(own_slices), *differentiated(own_invariants)],
                [*(state_gradients.get(number) for number in range(num_states)), *item_gradients],
            )
            before = dict(zip([number for number in read if is_float[number]], found))
            following = [
                before[number] if number in before else tf.zeros_like(grad) for number, grad in state_gradients.items()
            ]
            following += [tf.zeros_like(grad) for grad in flowing[len(carried) :]]
            rest = found[len(sources) :]
            sums_ = [_shift_in_front(stack, grad) for stack, grad in zip(summed, rest[:num_slices])]
            sums_ += [total + grad for total, grad in zip(summed[num_slices:], rest[num_slices:])]
            return [count + 1, *following, *sums_]

        outputs = self._while(body, [*start, *sums])
        results = iter([*outputs[: len(carried)], *outputs[len(start) :]])
        arguments = (*self.states, *slices, *invariants)
        return [next(results) if tensor.dtype.is_floating else None for tensor in arguments]

    def _step(
        self,
        index: tf.Tensor,
        states: Sequence[Optional[tf.Tensor]],
        slices: Sequence[tf.Tensor],
        invariants: Sequence[tf.Tensor],
    ) -> _StepResult:
        layout = self._layout
        tensors = {**dict(zip(layout.states, states)), **dict(zip(layout.invariants, invariants))}
        drawn = iter([tf.gather(stack, index) for stack in self._draws])

        def read(position: int, indices: np.ndarray) -> tf.Tensor:
            number = layout.slice_number(position, indices)
            if number is None:
                raise NotCovered("its steps differ in what they read")
            return slices[number]

        def draw(tracer: Tracer, op: tf.Operation, operands: list[Value]) -> Sequence[Value]:
            return [next(drawn)]

        args = _arguments(self._inputs, self._counters, index, read, tensors.get)
        with self._tracer.drawing(draw):
            outputs = self._tracer.run(self._body, args)
        return _StepResult(
            [as_tensor(outputs[position]) for position in layout.states],
            [outputs[position].writes[-1][1] for position in layout.writes],
        )

    def _while(self, body: Callable[..., list[tf.Tensor]], values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        _, *outputs = tf.while_loop(lambda index, *_: index < self._steps, body, [tf.constant(0), *values], name=self._name)
        return outputs

    def _positions(self, indices: np.ndarray) -> list[int]:
        return np.broadcast_to(indices, [self._steps]).tolist()

    def _find_batch(self) -> Optional[tf.Tensor]:
        """The one unknown dimension, from a tensor that has it."""
        for tensor in (*self.states, *self.slices, *self.invariants):
            for axis, dim in enumerate(tensor.shape):
                if dim is None:
                    return tf.shape(tensor)[axis]
        return None

    def _shape(self, dims: _Dims) -> Union[list[int], tf.Tensor]:
        if PROBE not in dims:
            return list(dims)
        if self._batch is None:
            raise NotCovered("the shape of a step's result is not known")
        return tf.stack([self._batch if dim == PROBE else dim for dim in dims])

    def _zeros(self, dims: _Dims, dtype: tf.DType) -> tf.Tensor:
        zeros = tf.zeros(self._shape(dims), dtype)
        zeros.set_shape([None if dim == PROBE else dim for dim in dims])
        return zeros

    def _draw(self, op: tf.Operation, dims: _Dims) -> tf.Tensor:
        """What the steps draw, all at once and before the loop: the step is computed twice, on the same numbers."""
        shape = tf.convert_to_tensor(self._shape((self._steps, *dims)), op.inputs[0].dtype)
        (drawn,) = self._tracer.emit_random(op, shape)
        return drawn


def _scan(tracer: Tracer, op: tf.Operation, body: FuncGraph, inputs: Sequence[Value], counters: _Counters) -> list[Value]:
    layout = _lay_out(tracer, body, inputs, counters)
    result = _Scan(tracer, op.name, body, inputs, counters, layout).run()
    outputs: list[Value] = list(inputs)
    for position, column in counters.values.items():
        outputs[position] = Known(column[counters.steps])
    for position, state in zip(layout.states, result.states):
        outputs[position] = state
    for (position, write), items in zip(layout.writes.items(), result.written):
        replaced = (
            {int(write.indices): items}
            if write.is_last
            else {int(index): Row(items, step) for step, index in enumerate(write.indices)}
        )
        outputs[position] = inputs[position].with_elements(replaced)
    return outputs


def _shift_in(stack: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
    return tf.concat([stack[1:], item[tf.newaxis]], 0)


def _shift_in_front(stack: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
    return tf.concat([item[tf.newaxis], stack[:-1]], 0)
