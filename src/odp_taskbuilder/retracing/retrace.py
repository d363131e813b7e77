"""Which forward functions of a model are traced again, and the model with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.eager.polymorphic_function import function_type_utils
from tensorflow.python.eager.polymorphic_function.concrete_function import ConcreteFunction
from tensorflow.python.framework import function_def_to_graph
from tensorflow.python.framework.func_graph import FuncGraph

from odp_taskbuilder.model.load import ForwardFunction, LoadedModel
from odp_taskbuilder.retracing.conditionals import CONDITIONAL_HANDLERS
from odp_taskbuilder.retracing.gradients import differentiated, gradients_of
from odp_taskbuilder.retracing.lists import LIST_HANDLERS
from odp_taskbuilder.retracing.loops import LOOP_HANDLERS
from odp_taskbuilder.retracing.shapes import StaticShapes, loses_shapes
from odp_taskbuilder.retracing.tracer import PROBE, RetracedLoop, Tracer, probe
from odp_taskbuilder.retracing.values import NotCovered, as_tensor

_HANDLERS = {**LIST_HANDLERS, **LOOP_HANDLERS, **CONDITIONAL_HANDLERS}
# Whose gradient, or which itself, no phone has.
_OCCASIONS = ("Assert", *LOOP_HANDLERS, *CONDITIONAL_HANDLERS)


def retrace_model(model: LoadedModel) -> tuple[LoadedModel, tuple[RetracedLoop, ...]]:
    """The model with forward functions that phones can train, and what became of its loops and conditionals.

    A function without any of them, and whose shapes saving kept, is left as it is, and so is one that cannot be traced again. Must be
    called outside of any graph.
    """
    report: dict[str, RetracedLoop] = {}
    replaced: dict[str, ForwardFunction] = {}
    for name in ("training", "inference", "loss"):
        function = _Function(getattr(model.forward, name), differentiable=name != "inference")
        # The loss as it was saved may not know the number of classes, which a model that is traced again tells it.
        if function.occasions or function.loses_shapes or (name == "loss" and replaced):
            succeeds, loops = function.try_again()
            report.update({loop.name: loop for loop in loops})
            if succeeds:
                replaced[name] = function
    if not replaced:
        return model, tuple(report.values())
    return model.with_forward(dataclasses.replace(model.forward, **replaced)), tuple(report.values())


class _Function:
    """A function of the model that is traced again where it is called."""

    def __init__(self, function: ConcreteFunction, *, differentiable: bool):
        self._function = function
        self._differentiable = differentiable
        # A copy: differentiating a function changes its graph.
        shapes = [tensor.shape for tensor in function.inputs]
        self._graph = function_def_to_graph.function_def_to_graph(function.function_def, input_shapes=shapes)
        self._library = _library(self._graph)
        self._shapes = self._static_shapes() if self.loses_shapes else StaticShapes()

    @tf.autograph.experimental.do_not_convert
    def __call__(self, *args: Any, **kwargs: Any) -> list[tf.Tensor]:
        bound = function_type_utils.canonicalize_function_inputs(args, kwargs, self._function.function_type)
        outputs, _ = self._trace([_with_shape(tensor) for tensor in self._function.function_type.unpack_inputs(bound)])
        return outputs

    @property
    def occasions(self) -> list[str]:
        """Names of its loops, conditionals and assertions, those of the functions that it calls included."""
        graphs = (self._graph, *self._library.values())
        return [op.name for graph in graphs for op in graph.get_operations() if op.type in _OCCASIONS]

    @property
    def loses_shapes(self) -> bool:
        """Whether tensors of it may have shapes that only a trace with a known batch shows."""
        return any(loses_shapes(graph) for graph in (self._graph, *self._library.values()))

    def _static_shapes(self) -> StaticShapes:
        shapes = StaticShapes()
        for batch in (2, PROBE):
            tracer = Tracer(_HANDLERS, self._library, differentiable=False, seen=shapes)
            with FuncGraph("shapes").as_default():
                try:
                    tracer.run(self._graph, [probe(tensor, batch) for tensor in self._graph.inputs])
                except Exception:  # noqa: BLE001 - shapes are not needed; tracing for good tells what is wrong.
                    return StaticShapes()
        return shapes

    def try_again(self) -> tuple[bool, list[RetracedLoop]]:
        """Traces it and its gradient in a graph that is thrown away.

        Returns:
          Whether that can be done, and what becomes of its loops and conditionals.
        """
        count = len(self._function.inputs) - len(self._function.captured_inputs)
        with FuncGraph(self._function.name).as_default():
            inputs = [tf.compat.v1.placeholder(tensor.dtype, tensor.shape) for tensor in self._function.inputs[:count]]
            try:
                outputs, report = self._trace(inputs)
                if self._differentiable:
                    gradients_of(outputs, differentiated(inputs), [tf.ones_like(output) for output in outputs])
                return True, list(report.values())
            except NotCovered as error:
                reason = str(error)
            except Exception as error:  # noqa: BLE001 - what TensorFlow makes of a user's function is told, and the function kept.
                reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        return False, [RetracedLoop(name, "kept", reason=reason) for name in self.occasions]

    def _trace(self, inputs: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], dict[str, RetracedLoop]]:
        tracer = Tracer(_HANDLERS, self._library, differentiable=self._differentiable, lost=self._shapes)
        values = tracer.run(self._graph, [*inputs, *self._function.captured_inputs])
        return [as_tensor(value) for value in values], tracer.report


def _with_shape(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor with its static shape, the number of classes for example, in the graph: what a function returned has one in Python
    only, which is gone when its caller is read from a file."""
    shape = tensor.shape
    if shape.rank is None or shape.rank < 2 or shape[0] is not None or None in shape.as_list()[1:] or tensor.op.type == "Placeholder":
        return tensor
    return tf.reshape(tensor, [-1, *shape[1:]])


def _library(graph: FuncGraph) -> dict[str, FuncGraph]:
    """The functions that a function calls, and those that these call, by name."""
    library: dict[str, FuncGraph] = {}
    pending = [graph]
    while pending:
        for op in pending.pop().get_operations():
            for value in op.node_def.attr.values():
                for name in (value.func.name, *(called.name for called in value.list.func)):
                    if name and name not in library:
                        library[name] = function_def_to_graph.function_def_to_graph(context.context().get_function_def(name))
                        pending.append(library[name])
    return library
