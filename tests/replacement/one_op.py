"""One node, run as TensorFlow's kernel, as its equivalent in TensorFlow, and as its equivalent in TFLite's interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import numpy as np
import tensorflow as tf

from odp_taskbuilder.ops.report import OpsReport, ops_report
from odp_taskbuilder.replacement import replace_ops
from odp_taskbuilder.replacement.graph import _CALL

# What the interpreter is destroyed with is not our concern: kept for the life of the process.
_interpreters: list[tf.lite.Interpreter] = []


class OneOp:
    """A graph with the nodes of one op.

    Args:
      op: what is replaced.
      write: from symbolic inputs, whose first dimension is unknown, to outputs.
      inputs: their values.
      static: the static shapes, where they are not those of the values with an unknown first dimension.
    """

    def __init__(self, op: str, write: Callable[..., Any], inputs: Sequence[np.ndarray], static: Sequence[Any] = ()):
        self.op = op
        self.values = [*inputs]
        with tf.Graph().as_default() as graph:
            shapes = [*static] or [[None, *value.shape[1:]] for value in inputs]
            placeholders = [
                tf.compat.v1.placeholder(value.dtype, shape, f"x{i}") for i, (value, shape) in enumerate(zip(inputs, shapes))
            ]
            outputs = tf.nest.flatten(write(*placeholders))
            self.outputs = [tf.identity(output, f"y{i}") for i, output in enumerate(outputs)]
        assert any(operation.type == op for operation in graph.get_operations())
        self.graph_def = graph.as_graph_def()
        self.shapes = shapes
        self.new_graph_def, self.kept = replace_ops(self.graph_def, {op})

    def reference(self) -> list[np.ndarray]:
        """By TensorFlow's kernel."""
        return self._run(self.graph_def)

    def in_tensorflow(self) -> list[np.ndarray]:
        """By the equivalent, in TensorFlow."""
        assert not self.kept, self.kept
        assert any(node.op == _CALL for node in self.new_graph_def.node)
        return self._run(self.new_graph_def)

    def in_tflite(self) -> tuple[list[np.ndarray], OpsReport]:
        """By the equivalent, in the interpreter; and the ops that it needed."""
        content = self._convert(self.new_graph_def)
        interpreter = tf.lite.Interpreter(
            model_content=content,
            experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        _interpreters.append(interpreter)
        by_name = {detail["name"].split(":")[0]: detail["index"] for detail in interpreter.get_input_details()}
        for i, value in enumerate(self.values):
            if f"x{i}" in by_name:
                interpreter.resize_tensor_input(by_name[f"x{i}"], value.shape)
        interpreter.allocate_tensors()
        for i, value in enumerate(self.values):
            if f"x{i}" in by_name:
                interpreter.set_tensor(by_name[f"x{i}"], value)
        interpreter.invoke()
        details = interpreter.get_output_details()
        return [interpreter.get_tensor(detail["index"]) for detail in details], ops_report(content)

    def _run(self, graph_def: tf.compat.v1.GraphDef) -> list[np.ndarray]:
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            tf.import_graph_def(graph_def, name="")
            feeds = {f"x{i}:0": value for i, value in enumerate(self.values)}
            return session.run([f"y{i}:0" for i in range(len(self.outputs))], feeds)

    def _convert(self, graph_def: tf.compat.v1.GraphDef) -> bytes:
        @tf.function(
            input_signature=[tf.TensorSpec(shape, value.dtype, f"x{i}") for i, (shape, value) in enumerate(zip(self.shapes, self.values))]
        )
        def run(*inputs):
            names = [f"y{i}:0" for i in range(len(self.outputs))]
            return tf.graph_util.import_graph_def(graph_def, {f"x{i}:0": tensor for i, tensor in enumerate(inputs)}, names)

        converter = tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
        converter._experimental_allow_all_select_tf_ops = True
        return converter.convert()


def worst_error(got: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """The largest error, relative to the largest element of its tensor."""
    for one, other in zip(got, wanted):
        assert one.shape == other.shape and one.dtype == other.dtype, (one.shape, other.shape)
    scales = [max(float(np.max(np.abs(other), initial=0)), 1e-30) for other in wanted]
    return max(
        float(np.max(np.abs(one.astype(np.float64) - other), initial=0)) / scale for one, other, scale in zip(got, wanted, scales)
    )
