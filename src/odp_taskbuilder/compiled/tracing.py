"""Runs subgraphs on values of JAX, which is how they become part of a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import jax
import jax.numpy as jnp
import numpy as np

from odp_taskbuilder.compiled import arithmetic, convolutions, shapes  # noqa: F401  they fill the table
from odp_taskbuilder.compiled.graph import Function, Node
from odp_taskbuilder.compiled.translation import Untranslatable, Value, apply_translation

CONTROL_FLOW = ("IF", "WHILE")


class Tracer:
    """Traces the subgraphs of one flatbuffer."""

    def __init__(self, functions: Sequence[Function]):
        self.functions = tuple(functions)
        self._by_name = {function.name: function for function in functions}

    def function(self, name: str) -> Optional[Function]:
        """The subgraph of a name, as flex ops refer to it."""
        return self._by_name.get(name)

    def call(self, function: Function, arguments: Sequence[Value], conditions: list) -> list[Value]:
        """The outputs of a subgraph.

        Args:
          conditions: what must hold for them to be TFLite's is appended here.

        Raises:
          Untranslatable: names the first operator that cannot be translated.
        """
        values = {**function.constants, **dict(zip(function.subgraph.inputs, arguments))}
        for node in function.nodes:
            self.execute(function, node, values, conditions)
        return [values[index] for index in function.subgraph.outputs]

    def execute(self, function: Function, node: Node, values: dict[int, Any], conditions: list) -> None:
        """One operator: takes its inputs from `values`, by index of the tensor, and puts its outputs there."""
        operator = node.operator
        tensors = function.subgraph.tensors
        inputs = [None if index < 0 else values.get(index) for index in operator.inputs]
        for index in operator.inputs:
            if index >= 0 and (values.get(index) is None or isinstance(values[index], tuple)):
                raise Untranslatable(node.name, function.name, f"its input {tensors[index].name!r} is {tensors[index].dtype}")
        if node.name == "IF":
            outputs = self._if(node, inputs, conditions)
        elif node.name == "WHILE":
            outputs = self._while(node, inputs, conditions)
        else:
            dtypes = tuple(tensors[index].dtype for index in operator.outputs)
            try:
                outputs = apply_translation(node, function.name, dtypes, inputs, conditions)
            except (TypeError, ValueError, IndexError, AttributeError) as error:
                # JAX refuses what does not fit together.
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise Untranslatable(node.name, function.name, f"its translation fails: {reason}") from error
        values.update(zip(operator.outputs, outputs))

    def _branch(self, index: int, arguments: Sequence[Value]) -> tuple[list[Value], Value]:
        """Outputs of a branch as JAX's arrays, and whether they are TFLite's."""
        conditions: list[Value] = []
        outputs = self.call(self.functions[index], arguments, conditions)
        return [jnp.asarray(output) for output in outputs], all_hold(conditions)

    def _if(self, node: Node, inputs: list[Value], conditions: list) -> list[Value]:
        predicate, *arguments = inputs
        branches = (node.options.thenSubgraphIndex, node.options.elseSubgraphIndex)
        if isinstance(predicate, np.ndarray):
            return self.call(self.functions[branches[0 if predicate.item() else 1]], arguments, conditions)
        then, otherwise = (lambda index=index: self._branch(index, arguments) for index in branches)
        outputs, holds = jax.lax.cond(jnp.reshape(predicate, ()), then, otherwise)
        conditions.append(holds)
        return outputs

    def _while(self, node: Node, inputs: list[Value], conditions: list) -> list[Value]:
        condition, body = (self.functions[index] for index in (node.options.condSubgraphIndex, node.options.bodySubgraphIndex))

        def goes_on(carry: tuple) -> Value:
            return jnp.reshape(self.call(condition, carry[0], [])[0], ())

        def step(carry: tuple) -> tuple:
            state, holds = carry
            found: list[Value] = []
            state = [jnp.asarray(value) for value in self.call(body, state, found)]
            return state, holds & all_hold(found)

        state, holds = jax.lax.while_loop(goes_on, step, ([jnp.asarray(value) for value in inputs], jnp.array(True)))
        conditions.append(holds)
        return state


def all_hold(conditions: Sequence[Value]) -> Value:
    """Whether each of some conditions holds, as one bool of JAX."""
    holds = jnp.array(True)
    for condition in conditions:
        holds = holds & jnp.asarray(condition)
    return holds
