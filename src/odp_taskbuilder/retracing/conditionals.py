"""Conditionals: decided where their predicate is known, and given a gradient that phones can take where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from odp_taskbuilder.retracing.gradients import differentiated, gradients_of
from odp_taskbuilder.retracing.tracer import Handler, RetracedLoop, Tracer
from odp_taskbuilder.retracing.values import Known, NotCovered, Value, as_tensor


def _conditional(tracer: Tracer, op: tf.Operation, inputs: list[Value]) -> Sequence[Value]:
    predicate, *operands = inputs
    if isinstance(predicate, Known) and predicate.constant is not None:
        return tracer.run(tracer.function(op, "then_branch" if predicate.constant else "else_branch"), operands)
    predicate = as_tensor(predicate)
    if predicate.dtype != tf.bool or predicate.shape.rank != 0:
        raise NotCovered(f"the predicate of {op.name} is no boolean")
    branches = tracer.function(op, "then_branch"), tracer.function(op, "else_branch")
    tracer.report[op.name] = RetracedLoop(op.name, "conditional")
    return _selected(tracer, op.name, predicate, branches, [as_tensor(operand) for operand in operands])


def _selected(
    tracer: Tracer, name: str, predicate: tf.Tensor, branches: Sequence[FuncGraph], operands: list[tf.Tensor]
) -> list[tf.Tensor]:
    """One branch's outputs. The gradient computes the branch that was taken again, and never touches the other one: a selection
    between both would let NaN through from the one that was not taken."""

    def one_of(run: Callable[[Any], Any]) -> list[tf.Tensor]:
        return tf.nest.flatten(tf.cond(predicate, lambda: run(branches[0]), lambda: run(branches[1]), name=name))

    def outputs(branch: FuncGraph, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        with tracer.drawing(_refuse_draws):
            return [as_tensor(value) for value in tracer.run(branch, values)]

    if not tracer.differentiable:
        return one_of(lambda branch: outputs(branch, operands))

    @tf.custom_gradient
    def conditional(*values):
        def gradient(*output_gradients):
            inputs = differentiated(values)

            def backward(branch: FuncGraph) -> list[tf.Tensor]:
                copies = [tf.identity(value) for value in values]
                return gradients_of(outputs(branch, copies), differentiated(copies), output_gradients)

            if not inputs:
                return [None] * len(values)
            found = iter(one_of(backward))
            return [next(found) if value.dtype.is_floating else None for value in values]

        return one_of(lambda branch: outputs(branch, values)), gradient

    return list(conditional(*operands))


def _refuse_draws(tracer: Tracer, op: tf.Operation, inputs: list[Value]) -> Sequence[Value]:
    raise NotCovered("it draws random numbers inside a conditional")


CONDITIONAL_HANDLERS: dict[str, Handler] = {"If": _conditional, "StatelessIf": _conditional}
