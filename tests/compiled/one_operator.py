"""A flatbuffer of one operator, run in TFLite's interpreter and by its translation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

import flatbuffers
import jax
import numpy as np
import tensorflow as tf
from flatbuffers import flexbuffers
from tensorflow.core.framework import node_def_pb2
from tensorflow.lite.python import schema_py_generated as schema

from odp_taskbuilder.compiled.client_program import WILD_MAGNITUDE
from odp_taskbuilder.compiled.graph import DTYPES, read_functions
from odp_taskbuilder.compiled.tracing import Tracer, all_hold

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# Destroying one that ran a flex op can end the process.
_interpreters: list[tf.lite.Interpreter] = []


@dataclasses.dataclass
class Case:
    """One use of an operator.

    Attributes:
      inputs: arrays; None for one that is left out.
      outputs: their dtypes.
      known: positions of the inputs that are constants of the graph.
      options: of a builtin, by the names of TFLite's schema; attributes of a flex op.
      tolerance: relative, of float32's arithmetic.
      resolution: absolute, where small numbers are differences of larger ones.
      gives_back: the translation may leave to the interpreter what that does, such as reading beyond the end.
      folds: it may also be known while tracing.
      version: of a builtin; for some the first is gone.
    """

    inputs: Sequence[Optional[np.ndarray]]
    outputs: Sequence[Union[str, type, np.dtype]]
    known: Sequence[int] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tolerance: float = 2e-6
    resolution: float = 1e-37
    gives_back: bool = False
    folds: bool = True
    version: int = 1


class OneOperator:
    """
    Args:
      op: TFLite's name of a builtin, or the name of a TensorFlow op.
      options_class: of a builtin, in TFLite's schema; None if it has no options.
    """

    def __init__(self, op: str, case: Case, options_class: Optional[str] = None):
        self._case = case
        self._feeds = [position for position, value in enumerate(case.inputs) if value is not None and position not in case.known]
        self.flatbuffer = _flatbuffer(op, case, options_class, self._feeds)

    def interpreted(self) -> Optional[list[np.ndarray]]:
        """What the interpreter yields; None if it fails on the values."""
        interpreter = tf.lite.Interpreter(
            model_content=self.flatbuffer,
            experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            num_threads=1,
        )
        _interpreters.append(interpreter)
        interpreter.allocate_tensors()
        for detail, position in zip(interpreter.get_input_details(), self._feeds):
            interpreter.set_tensor(detail["index"], self._case.inputs[position])
        try:
            interpreter.invoke()
        except RuntimeError:
            return None
        # Of an empty tensor the interpreter has no array.
        return [
            np.zeros(detail["shape"], detail["dtype"]) if 0 in detail["shape"] else interpreter.get_tensor(detail["index"])
            for detail in interpreter.get_output_details()
        ]

    def arguments(self) -> list[np.ndarray]:
        """What the graph is fed."""
        return [self._case.inputs[position] for position in self._feeds]

    def trace(self, arguments: Sequence[Any]) -> tuple[list[Any], Any]:
        """What the translation makes of arguments, arrays of NumPy or JAX; and whether it says that TFLite makes the same of them."""
        functions = read_functions(self.flatbuffer)
        conditions: list = []
        return Tracer(functions).call(functions[0], arguments, conditions), all_hold(conditions)


def translated(operators: Sequence[OneOperator], *, folded: bool) -> list[tuple[list[np.ndarray], bool]]:
    """What the translations of some operators yield, and whether they say that this is TFLite's. One program: compiling takes longest.

    Args:
      folded: every input is known while tracing.
    """
    with jax.experimental.enable_x64():
        arguments = [operator.arguments() for operator in operators]
        if folded:
            found = [operator.trace(values) for operator, values in zip(operators, arguments)]
        else:
            found = jax.jit(lambda given: [operator.trace(values) for operator, values in zip(operators, given)])(arguments)
        return [([np.asarray(output) for output in outputs], bool(holds)) for outputs, holds in found]


def assert_same(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray], case: Case) -> None:
    """Same dtypes, shapes and values. Of floating-point numbers beyond WILD_MAGNITUDE, or not finite, only that they are: such a client
    goes to the interpreter."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        if one.dtype.kind != "f":
            np.testing.assert_array_equal(one, other)
            continue
        tame = np.abs(other) < WILD_MAGNITUDE
        np.testing.assert_array_equal(np.abs(one) < WILD_MAGNITUDE, tame)
        scale = np.max(np.abs(other[tame]), initial=0)
        np.testing.assert_allclose(one[tame], other[tame], rtol=case.tolerance, atol=case.tolerance * scale + case.resolution)


def _flatbuffer(op: str, case: Case, options_class: Optional[str], feeds: Sequence[int]) -> bytes:
    model, subgraph, code, operator = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT(), schema.OperatorT()
    model.version, model.buffers, subgraph.tensors = 3, [schema.BufferT()], []
    operator.inputs = [-1 if value is None else _tensor(model, subgraph, value, i in case.known) for i, value in enumerate(case.inputs)]
    operator.outputs = [_tensor(model, subgraph, np.zeros((), dtype), False) for dtype in case.outputs]
    builtin = getattr(schema.BuiltinOperator, op, None)
    if builtin is None:
        code.builtinCode = schema.BuiltinOperator.CUSTOM
        code.customCode = f"Flex{op}".encode()
        operator.customOptions = _flex_options(op, len(case.inputs), case.options)
    else:
        code.builtinCode = builtin
        if options_class is not None:
            options = getattr(schema, f"{options_class}T")()
            for name, value in case.options.items():
                assert hasattr(options, name), name
                setattr(options, name, value)
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options_class)
            operator.builtinOptions = options
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = case.version
    subgraph.name = b"main"
    subgraph.inputs = [operator.inputs[position] for position in feeds]
    subgraph.outputs = list(operator.outputs)
    subgraph.operators = [operator]
    model.operatorCodes, model.subgraphs = [code], [subgraph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _tensor(model: Any, subgraph: Any, value: np.ndarray, is_constant: bool) -> int:
    tensor, buffer = schema.TensorT(), schema.BufferT()
    if is_constant:
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.type = getattr(schema.TensorType, _NAMES[value.dtype])
    tensor.shape, tensor.hasRank = list(value.shape), True
    tensor.buffer = len(model.buffers) - 1
    tensor.name = f"t{len(subgraph.tensors)}".encode()
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def _flex_options(op: str, inputs: int, attributes: Mapping[str, Any]) -> np.ndarray:
    node_def = node_def_pb2.NodeDef(name=op, op=op, input=[""] * inputs)
    for name, value in attributes.items():
        if isinstance(value, tf.DType):
            node_def.attr[name].type = value.as_datatype_enum
        else:
            node_def.attr[name].i = value
    builder = flexbuffers.Builder()
    with builder.Vector():
        builder.String(op)
        # FlexBuffers' own strings must be text.
        builder.String(node_def.SerializeToString().decode())
    return np.frombuffer(bytes(builder.Finish()), np.uint8)
