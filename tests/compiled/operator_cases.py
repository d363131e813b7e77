"""How each operator of the table is used: name -> a function that draws a use of it from hypothesis."""

from __future__ import annotations

import math
from typing import Any, Callable

import numpy as np
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from one_operator import Case
from tensorflow.lite.python import schema_py_generated as schema

F32, I32, I64, BOOL = np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.bool_)
TF_TYPES = {F32: tf.float32, I32: tf.int32, I64: tf.int64, BOOL: tf.bool}
# Kinks, ties, both zeros, the bounds of activations and of what is wild.
EDGES = (0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, 6.0, -3.0, 3.0, -9.0, 16.62, 20.0, -100.0, 1e-6, 1e15, -1e15, 1e18)
ORDINARY = st.floats(-8, 8, width=32).map(lambda number: 0.0 if abs(number) < 1e-30 else number)
# A draw function, as hypothesis' composite strategies get it.
Draw = Callable[..., Any]

CASES: dict[str, Callable[[Draw], Case]] = {}
# The options that a builtin has in the schema.
OPTIONS: dict[str, str] = {}


def case(*names: str, options: str = "", **arguments: Any) -> Callable:
    """Enters a function as the case of operators; with several it is given the name."""

    def enter(make: Callable) -> Callable:
        for name in names:
            CASES[name] = (lambda draw, name=name: make(draw, name, **arguments)) if len(names) > 1 else make
            if options:
                OPTIONS[name] = options
        return make

    return enter


def shape(draw: Draw, least: int = 0, most: int = 3) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.integers(1, 4), min_size=least, max_size=most)))


def values(draw: Draw, dims: tuple[int, ...], dtype: np.dtype = F32, *, elements: Any = None) -> np.ndarray:
    if elements is None:
        elements = {
            "f": ORDINARY | st.sampled_from(EDGES).map(lambda number: float(np.float32(number))),
            "i": st.integers(-100, 100),
            "b": st.booleans(),
        }[dtype.kind]
    return draw(arrays.arrays(dtype, dims, elements=elements))


def tame(draw: Draw, dims: tuple[int, ...]) -> np.ndarray:
    """Numbers whose products and sums float32 resolves."""
    return values(draw, dims, elements=ORDINARY)


def integers(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def one_of(draw: Draw, *choices: Any) -> Any:
    return draw(st.sampled_from(choices))


def broadcast(draw: Draw, dtype: np.dtype, **options: Any) -> list[np.ndarray]:
    shapes = draw(arrays.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=4)).input_shapes
    return [values(draw, dims, dtype, **options) for dims in shapes]


_FUSED = (0, 1, 2, 3)


@case("ADD", options="AddOptions")
def _add(draw: Draw) -> Case:
    return _arithmetic(draw, F32, I32, I64)


@case("SUB", options="SubOptions")
def _sub(draw: Draw) -> Case:
    return _arithmetic(draw, F32, I32, I64)


@case("MUL", options="MulOptions")
def _mul(draw: Draw) -> Case:
    return _arithmetic(draw, F32, I32, I64)


@case("DIV", options="DivOptions")
def _div(draw: Draw) -> Case:
    made = _arithmetic(draw, F32, I32)
    if made.outputs == [I32]:
        # An integer divided by zero ends the interpreter's process.
        a, b = made.inputs
        made.inputs = [a, np.where(b == 0, np.int32(1), b)]
    return made


def _arithmetic(draw: Draw, *dtypes: np.dtype) -> Case:
    dtype = one_of(draw, *dtypes)
    fused = one_of(draw, *_FUSED) if dtype == F32 else 0
    # Where the sum of two large numbers is small, nothing of it is left in float32: not what is compared here.
    elements = st.sampled_from([0.0, -0.0, 1.0, -1.0, 7.0, 2**-20]) | ORDINARY if dtype == F32 else None
    return Case(broadcast(draw, dtype, elements=elements), [dtype], options={"fusedActivationFunction": fused})


@case("FLOOR_DIV")
def _floor_div(draw: Draw) -> Case:
    dtype = one_of(draw, F32, I32)
    if dtype == F32:
        # Exact quotients: which side of an integer a rounded one falls on is anybody's.
        a, b = (array / np.float32(4) for array in broadcast(draw, F32, elements=st.integers(1, 40).map(float)))
        return Case([a, np.exp2(np.round(np.log2(b)))], [F32])
    return Case(broadcast(draw, I32), [I32])


@case("FLOOR_MOD")
def _floor_mod(draw: Draw) -> Case:
    dtype = one_of(draw, F32, I32, I64)
    if dtype == F32:
        return Case([array / np.float32(4) for array in broadcast(draw, F32, elements=st.integers(1, 40).map(float))], [F32])
    return Case(broadcast(draw, dtype), [dtype])


@case("POW")
def _pow(draw: Draw) -> Case:
    a, b = broadcast(draw, F32, elements=st.floats(0.125, 4, width=32))
    return Case([a, b], [F32], tolerance=1e-5)


@case("MAXIMUM", "MINIMUM", options="MaximumMinimumOptions")
def _extreme(draw: Draw, name: str) -> Case:
    dtype = one_of(draw, F32, I32, I64)
    return Case(broadcast(draw, dtype), [dtype])


@case("SQUARED_DIFFERENCE")
def _squared_difference(draw: Draw) -> Case:
    return Case(broadcast(draw, F32, elements=ORDINARY), [F32])


@case("ADD_N")
def _add_n(draw: Draw) -> Case:
    dtype, dims = one_of(draw, F32, I32), shape(draw)
    return Case([values(draw, dims, dtype, elements=ORDINARY if dtype == F32 else None) for _ in range(draw(st.integers(2, 4)))], [dtype])


@case("ABS", "NEG", "SQUARE", "SIGN", "FLOOR", "CEIL", "ROUND", "ZEROS_LIKE")
@case("SIN", "COS", "TANH", "ELU", "HARD_SWISH", "LOGISTIC", "RELU", "RELU_N1_TO_1", "RELU_0_TO_1", "RELU6")
def _unary(draw: Draw, name: str) -> Case:
    # The argument of a sine beyond some thousands has lost its place on the circle.
    elements = st.floats(-30, 30, width=32) if name in ("SIN", "COS") else None
    return Case([values(draw, shape(draw), elements=elements)], [F32])


@case("EXP")
def _exp(draw: Draw) -> Case:
    return Case([values(draw, shape(draw), elements=st.floats(-60, 60, width=32))], [F32])


@case("SQRT", "RSQRT", "LOG")
def _of_positive(draw: Draw, name: str) -> Case:
    return Case([values(draw, shape(draw), elements=st.floats(2**-20, 2**20, width=32) | st.sampled_from([0.0, 1.0, -1.0]))], [F32])


@case("LOGICAL_NOT")
def _logical_not(draw: Draw) -> Case:
    return Case([values(draw, shape(draw), BOOL)], [BOOL])


@case("LOGICAL_AND", "LOGICAL_OR")
def _logical(draw: Draw, name: str) -> Case:
    return Case(broadcast(draw, BOOL), [BOOL])


@case("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL")
def _comparison(draw: Draw, name: str) -> Case:
    dtypes = (F32, I32, I64, BOOL) if name.endswith("EQUAL") and len(name) < 10 and name != "LESS_EQUAL" else (F32, I32, I64)
    return Case(broadcast(draw, one_of(draw, *dtypes)), [BOOL])


@case("LOG_SOFTMAX", options="LogSoftmaxOptions")
def _log_softmax(draw: Draw) -> Case:
    return Case([tame(draw, shape(draw, 2))], [F32])


@case("SOFTMAX", options="SoftmaxOptions")
def _softmax(draw: Draw) -> Case:
    return Case([tame(draw, shape(draw, 1))], [F32], options={"beta": one_of(draw, 1.0, 0.5)})


@case("LEAKY_RELU", options="LeakyReluOptions")
def _leaky_relu(draw: Draw) -> Case:
    return Case([values(draw, shape(draw))], [F32], options={"alpha": one_of(draw, 0.25, 0.0)})


@case("PRELU")
def _prelu(draw: Draw) -> Case:
    dims = shape(draw, 1)
    return Case([values(draw, dims), tame(draw, dims[-1:])], [F32])


@case("GELU", options="GeluOptions")
def _gelu(draw: Draw) -> Case:
    return Case([tame(draw, shape(draw))], [F32], options={"approximate": draw(st.booleans())}, tolerance=1e-5, resolution=1e-6)


@case("L2_NORMALIZATION", options="L2NormOptions")
def _l2_normalization(draw: Draw) -> Case:
    return Case([tame(draw, shape(draw, 1))], [F32])


@case("ATAN2")
def _atan2(draw: Draw) -> Case:
    dims = shape(draw, 1)
    return Case([tame(draw, dims), tame(draw, dims)], [F32])


@case("SELECT", options="SelectOptions")
def _select(draw: Draw) -> Case:
    # Of one element the interpreter does not set the shape, and leaves what the graph says.
    dtype, dims = one_of(draw, F32, I32, I64), (draw(st.integers(2, 4)), *shape(draw, 1, 2))
    condition = one_of(draw, dims, dims[:1])
    return Case([values(draw, condition, BOOL), values(draw, dims, dtype), values(draw, dims, dtype)], [dtype])


@case("SELECT_V2", options="SelectV2Options")
def _select_v2(draw: Draw) -> Case:
    dtype, found = one_of(draw, F32, I32, I64), draw(arrays.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=4))
    # As for SELECT: not one element.
    a, (condition, b) = (2, *found.result_shape), found.input_shapes
    return Case([values(draw, condition, BOOL), values(draw, a, dtype), values(draw, b, dtype)], [dtype])


@case("CAST", options="CastOptions")
def _cast(draw: Draw) -> Case:
    dtypes = (F32, I32, I64, BOOL)
    source, target = one_of(draw, *dtypes), one_of(draw, *dtypes)
    # What a number beyond the range of an integer becomes is the processor's affair. XLA takes the smallest numbers for zero.
    elements = st.floats(-1e6, 1e6, width=32, allow_subnormal=False) if source == F32 else None
    return Case([values(draw, shape(draw), source, elements=elements)], [target])


def _axes(draw: Draw, rank: int) -> np.ndarray:
    chosen = draw(st.lists(st.integers(-rank, rank - 1), min_size=1, max_size=rank, unique_by=lambda axis: axis % rank))
    return integers(*chosen)


@case("SUM", "REDUCE_PROD", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_ANY", "REDUCE_ALL", "MEAN", options="ReducerOptions")
def _reduction(draw: Draw, name: str) -> Case:
    dtypes = {"REDUCE_ANY": (BOOL,), "REDUCE_ALL": (BOOL,), "MEAN": (F32,)}.get(name, (F32, I32, I64))
    dtype = one_of(draw, *dtypes)
    dims = shape(draw, 1)
    elements = {"f": ORDINARY, "i": st.integers(-9, 9), "b": None}[dtype.kind]
    x = values(draw, dims, dtype, elements=elements)
    if name in ("REDUCE_MAX", "REDUCE_MIN") and draw(st.booleans()):
        # Of many elements they are found in another way. Here one is the first element, the other the last.
        dims = (draw(st.integers(1, 3)), draw(st.integers(4_000, 9_000)))
        x = one_of(draw, 1, -1) * np.arange(dims[0] * dims[1]).reshape(dims).astype(dtype)
    return Case(
        [x, _axes(draw, len(dims))],
        [dtype],
        known=[1],
        options={"keepDims": draw(st.booleans())},
        tolerance=1e-5,
    )


@case("CUMSUM", options="CumsumOptions")
def _cumsum(draw: Draw) -> Case:
    dtype, dims = one_of(draw, F32, I32, I64), shape(draw, 1)
    x = values(draw, dims, dtype, elements=ORDINARY if dtype == F32 else None)
    axis = integers(draw(st.integers(-len(dims), len(dims) - 1)))
    return Case(
        [x, axis], [dtype], known=[1], options={"exclusive": draw(st.booleans()), "reverse": draw(st.booleans())}, tolerance=1e-5
    )


@case("ARG_MAX", options="ArgMaxOptions")
def _arg_max(draw: Draw) -> Case:
    return _arg(draw)


@case("ARG_MIN", options="ArgMinOptions")
def _arg_min(draw: Draw) -> Case:
    return _arg(draw)


def _arg(draw: Draw) -> Case:
    dims, target = shape(draw, 1), one_of(draw, I32, I64)
    axis = np.array(draw(st.integers(-len(dims), len(dims) - 1)), np.int32)
    # Few values: the first of several is asked for.
    x = values(draw, dims, elements=st.sampled_from([0.0, 1.0, -1.0]))
    output_type = schema.TensorType.INT32 if target == I32 else schema.TensorType.INT64
    return Case([x, axis], [target], known=[1], options={"outputType": output_type})


@case("BATCH_MATMUL", options="BatchMatMulOptions")
def _batch_matmul(draw: Draw) -> Case:
    rows, inner, columns = (draw(st.integers(1, 5)) for _ in range(3))
    batch = one_of(draw, (), (2,), (2, 3))
    adj_x, adj_y = draw(st.booleans()), draw(st.booleans())
    a = tame(draw, (*batch, *((inner, rows) if adj_x else (rows, inner))))
    b = tame(draw, (*batch, *((columns, inner) if adj_y else (inner, columns))))
    return Case([a, b], [F32], options={"adjX": adj_x, "adjY": adj_y}, tolerance=1e-5)


@case("FULLY_CONNECTED", options="FullyConnectedOptions")
def _fully_connected(draw: Draw) -> Case:
    rows, inner, columns = (draw(st.integers(1, 5)) for _ in range(3))
    keeps = draw(st.booleans())
    x = tame(draw, (2, rows, inner) if keeps else (rows, inner))
    bias = one_of(draw, None, tame(draw, (columns,)))
    options = {"keepNumDims": keeps, "fusedActivationFunction": one_of(draw, *_FUSED)}
    return Case([x, tame(draw, (columns, inner)), bias], [F32], options=options, tolerance=1e-5)


@case("L2Loss")
def _l2_loss(draw: Draw) -> Case:
    return Case([tame(draw, shape(draw))], [F32], options={"T": tf.float32}, tolerance=1e-5)


@case("ReluGrad", "Relu6Grad", "SigmoidGrad", "TanhGrad")
def _gradient(draw: Draw, name: str) -> Case:
    dims = shape(draw)
    kinks = st.sampled_from([0.0, -0.0, 6.0, 1.0]) | ORDINARY
    return Case([values(draw, dims, elements=kinks), values(draw, dims, elements=kinks)], [F32], options={"T": tf.float32})


@case("Relu6")
def _flex_relu6(draw: Draw) -> Case:
    return Case([values(draw, shape(draw))], [F32], options={"T": tf.float32})


def _image(draw: Draw, channels: int) -> np.ndarray:
    # No smaller than a window of three, dilated.
    return tame(draw, (draw(st.integers(1, 2)), draw(st.integers(5, 7)), draw(st.integers(5, 7)), channels))


def _window(draw: Draw) -> dict[str, int]:
    return {
        "padding": one_of(draw, schema.Padding.SAME, schema.Padding.VALID),
        "strideH": draw(st.integers(1, 2)),
        "strideW": draw(st.integers(1, 2)),
        "fusedActivationFunction": one_of(draw, *_FUSED),
    }


def _dilation(draw: Draw) -> dict[str, int]:
    return {"dilationHFactor": draw(st.integers(1, 2)), "dilationWFactor": 1}


@case("CONV_2D", options="Conv2DOptions")
def _conv_2d(draw: Draw) -> Case:
    groups, inner, outer = one_of(draw, 1, 2), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    x = _image(draw, groups * inner)
    filters = tame(draw, (groups * outer, draw(st.integers(1, 3)), draw(st.integers(1, 2)), inner))
    bias = tame(draw, (groups * outer,))
    return Case([x, filters, bias], [F32], options={**_window(draw), **_dilation(draw)}, tolerance=1e-5)


@case("DEPTHWISE_CONV_2D", options="DepthwiseConv2DOptions")
def _depthwise(draw: Draw) -> Case:
    channels, multiplier = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    filters = tame(draw, (1, draw(st.integers(1, 3)), draw(st.integers(1, 2)), channels * multiplier))
    options = {**_window(draw), **_dilation(draw), "depthMultiplier": multiplier}
    # With dilation TFLite wants strides of one.
    if options["dilationHFactor"] > 1:
        options.update(strideH=1, strideW=1)
    return Case([_image(draw, channels), filters, tame(draw, (channels * multiplier,))], [F32], options=options, tolerance=1e-5)


@case("TRANSPOSE_CONV", options="TransposeConvOptions")
def _transpose_conv(draw: Draw) -> Case:
    options = _window(draw)
    inner, outer, height, width = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    sizes = draw(st.integers(4, 7)), draw(st.integers(4, 7))
    strides = options["strideH"], options["strideW"]
    if options["padding"] == schema.Padding.SAME:
        lengths = [math.ceil(size / stride) for size, stride in zip(sizes, strides)]
    else:
        lengths = [math.ceil((size - kernel + 1) / stride) for size, kernel, stride in zip(sizes, (height, width), strides)]
    x, filters = tame(draw, (2, *lengths, inner)), tame(draw, (outer, height, width, inner))
    return Case([integers(2, *sizes, outer), filters, x], [F32], known=[0], options=options, tolerance=1e-5)


@case("MAX_POOL_2D", "AVERAGE_POOL_2D", options="Pool2DOptions")
def _pool(draw: Draw, name: str) -> Case:
    options = {**_window(draw), "filterHeight": draw(st.integers(1, 3)), "filterWidth": draw(st.integers(1, 3))}
    return Case([_image(draw, 2)], [F32], options=options)


@case("SHAPE", options="ShapeOptions")
def _shape(draw: Draw) -> Case:
    target = one_of(draw, I32, I64)
    output_type = schema.TensorType.INT32 if target == I32 else schema.TensorType.INT64
    return Case([tame(draw, shape(draw))], [target], options={"outType": output_type})


@case("RANK", options="RankOptions")
def _rank(draw: Draw) -> Case:
    return Case([tame(draw, shape(draw))], [I32])


@case("ShapeN")
def _shape_n(draw: Draw) -> Case:
    target = one_of(draw, I32, I64)
    inputs = [tame(draw, shape(draw)) for _ in range(2)]
    return Case(inputs, [target] * 2, options={"N": 2, "T": tf.float32, "out_type": TF_TYPES[target]})


@case("ConcatOffset")
def _concat_offset(draw: Draw) -> Case:
    rank = draw(st.integers(1, 3))
    axis, dims = draw(st.integers(0, rank - 1)), draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank))
    shapes = []
    for _ in range(3):
        dims[axis] = draw(st.integers(1, 4))
        shapes.append(integers(*dims))
    return Case([np.array(axis, np.int32), *shapes], [I32] * 3, known=range(4), options={"N": 3})


@case("BroadcastGradientArgs")
def _broadcast_gradient_args(draw: Draw) -> Case:
    dtype = one_of(draw, I32, I64)
    shapes = draw(arrays.mutually_broadcastable_shapes(num_shapes=2, min_dims=0, max_dims=4, max_side=3)).input_shapes
    return Case([np.array(dims, dtype) for dims in shapes], [dtype] * 2, known=[0, 1], options={"T": TF_TYPES[dtype]})


@case("BROADCAST_ARGS")
def _broadcast_args(draw: Draw) -> Case:
    dtype = one_of(draw, I32, I64)
    shapes = draw(arrays.mutually_broadcastable_shapes(num_shapes=2, min_dims=1, max_dims=4, max_side=3)).input_shapes
    return Case([np.array(dims, dtype) for dims in shapes], [dtype], known=[0, 1])


@case("BROADCAST_TO", options="BroadcastToOptions")
def _broadcast_to(draw: Draw) -> Case:
    dtype, found = one_of(draw, F32, I32, I64), draw(arrays.mutually_broadcastable_shapes(num_shapes=1, min_dims=1, max_dims=3, max_side=3))
    target = (*shape(draw, 0, 1), *found.result_shape)
    return Case([values(draw, found.input_shapes[0], dtype), integers(*target)], [dtype], known=[1], version=2)


@case("RESHAPE", options="ReshapeOptions")
def _reshape(draw: Draw) -> Case:
    dims, dtype = shape(draw, 1), one_of(draw, F32, I32, I64, BOOL)
    target = draw(st.permutations(dims))
    if draw(st.booleans()):
        target[draw(st.integers(0, len(target) - 1))] = -1
    x = values(draw, dims, dtype)
    if draw(st.booleans()):
        return Case([x], [dtype], options={"newShape": target})
    # A vector's length may be computed, rightly or not.
    if draw(st.booleans()):
        return Case([x, integers(draw(st.sampled_from([-1, x.size, x.size + 1])))], [dtype], folds=False)
    return Case([x, integers(*target)], [dtype], known=[1])


@case("SQUEEZE", options="SqueezeOptions")
def _squeeze(draw: Draw) -> Case:
    dims = (1, *shape(draw, 1, 2), 1)
    return Case([tame(draw, dims)], [F32], options={"squeezeDims": one_of(draw, [], [0], [-1], [0, -1])})


@case("EXPAND_DIMS", options="ExpandDimsOptions")
def _expand_dims(draw: Draw) -> Case:
    dims = shape(draw)
    axis = draw(st.integers(-len(dims) - 1, len(dims)))
    return Case([tame(draw, dims), integers(axis)], [F32], known=[1])


@case("TRANSPOSE", options="TransposeOptions")
def _transpose(draw: Draw) -> Case:
    dims, dtype = shape(draw, 1, 4), one_of(draw, F32, I32, I64, BOOL)
    return Case([values(draw, dims, dtype), integers(*draw(st.permutations(range(len(dims)))))], [dtype], known=[1])


@case("PACK", options="PackOptions")
def _pack(draw: Draw) -> Case:
    dims, dtype, count = shape(draw), one_of(draw, F32, I32, I64), draw(st.integers(1, 3))
    options = {"axis": draw(st.integers(-len(dims) - 1, len(dims))), "valuesCount": count}
    return Case([values(draw, dims, dtype) for _ in range(count)], [dtype], options=options)


@case("UNPACK", options="UnpackOptions")
def _unpack(draw: Draw) -> Case:
    dims, dtype = shape(draw, 1), one_of(draw, F32, I32)
    axis = draw(st.integers(-len(dims), len(dims) - 1))
    return Case([values(draw, dims, dtype)], [dtype] * dims[axis], options={"axis": axis, "num": dims[axis]})


def _parts(draw: Draw, dims: tuple[int, ...], axis: int) -> list[np.ndarray]:
    return [tame(draw, tuple(draw(st.integers(1, 3)) if i == axis % len(dims) else size for i, size in enumerate(dims))) for _ in range(3)]


@case("CONCATENATION", options="ConcatenationOptions")
def _concatenation(draw: Draw) -> Case:
    dims = shape(draw, 1)
    axis = draw(st.integers(-len(dims), len(dims) - 1))
    return Case(_parts(draw, dims, axis), [F32], options={"axis": axis})


@case("ConcatV2")
def _concat_v2(draw: Draw) -> Case:
    dims = shape(draw, 1)
    axis = draw(st.integers(-len(dims), len(dims) - 1))
    options = {"N": 3, "T": tf.float32, "Tidx": tf.int32}
    return Case([*_parts(draw, dims, axis), np.array(axis, np.int32)], [F32], known=[3], options=options)


@case("SPLIT", options="SplitOptions")
def _split(draw: Draw) -> Case:
    x, axis, count = _divisible(draw)
    return Case([np.array(axis, np.int32), x], [F32] * count, known=[0], options={"numSplits": count})


@case("Split")
def _flex_split(draw: Draw) -> Case:
    x, axis, count = _divisible(draw)
    return Case([np.array(axis, np.int32), x], [F32] * count, known=[0], options={"num_split": count, "T": tf.float32})


def _divisible(draw: Draw) -> tuple[np.ndarray, int, int]:
    dims, count = list(shape(draw, 1)), draw(st.integers(1, 3))
    axis = draw(st.integers(-len(dims), len(dims) - 1))
    dims[axis] *= count
    return tame(draw, tuple(dims)), axis, count


@case("SPLIT_V", options="SplitVOptions")
def _split_v(draw: Draw) -> Case:
    dims, sizes = list(shape(draw, 1)), draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    axis = draw(st.integers(-len(dims), len(dims) - 1))
    dims[axis], told = sum(sizes), list(sizes)
    if draw(st.booleans()):
        told[draw(st.integers(0, len(told) - 1))] = -1
    inputs = [tame(draw, tuple(dims)), integers(*told), np.array(axis, np.int32)]
    return Case(inputs, [F32] * len(sizes), known=[1, 2], options={"numSplits": len(sizes)})


@case("SLICE", options="SliceOptions")
def _slice(draw: Draw) -> Case:
    dims = shape(draw, 1)
    begin = [draw(st.integers(0, size - 1)) for size in dims]
    lengths = [draw(st.integers(1, size - start)) for size, start in zip(dims, begin)]
    known = [1, 2] if draw(st.booleans()) else [2]
    if 1 in known and draw(st.booleans()):
        lengths[0] = -1
    return Case([tame(draw, dims), integers(*begin), integers(*lengths)], [F32], known=known)


_MASKS = ("beginMask", "endMask", "ellipsisMask", "newAxisMask", "shrinkAxisMask")


def _strided(draw: Draw) -> tuple[tuple[int, ...], list[np.ndarray], dict[str, int]]:
    dims = shape(draw, 1)
    begin, end, strides, shrink = [], [], [], 0
    for axis, size in enumerate(dims):
        start, step = draw(st.integers(-size, size - 1)), one_of(draw, 1, 1, 2, -1)
        begin.append(start)
        strides.append(step)
        if step == 1 and draw(st.booleans()):
            shrink |= 1 << axis
            end.append(start + 1)
            continue
        # Not empty.
        end.append(start % size + (1 if step > 0 else -1) * draw(st.integers(1, 3)))
        if end[-1] < 0:
            end[-1] = -size - 1
    masks = {"beginMask": draw(st.integers(0, 7)) & ~shrink, "endMask": draw(st.integers(0, 7)) & ~shrink, "shrinkAxisMask": shrink}
    return dims, [integers(*vector) for vector in (begin, end, strides)], {**masks, "ellipsisMask": 0, "newAxisMask": 0}


@case("STRIDED_SLICE", options="StridedSliceOptions")
def _strided_slice(draw: Draw) -> Case:
    dtype = one_of(draw, F32, I32, I64, BOOL)
    if draw(st.booleans()):
        # One row, whose number is computed: in range or not.
        dims = shape(draw, 1, 2)
        row = draw(st.integers(-dims[0], dims[0] - 1))
        rest = (1 << len(dims)) - 2
        masks = {**dict.fromkeys(_MASKS, 0), "beginMask": rest, "endMask": rest, "shrinkAxisMask": 1}
        begin, end, strides = ([row] + [0] * (len(dims) - 1), [row + 1] + [0] * (len(dims) - 1), [1] * len(dims))
        return Case([values(draw, dims, dtype), integers(*begin), integers(*end), integers(*strides)], [dtype], known=[3], options=masks)
    dims, vectors, masks = _strided(draw)
    return Case([values(draw, dims, dtype), *vectors], [dtype], known=[1, 2, 3], options=masks)


@case("StridedSliceGrad")
def _strided_slice_grad(draw: Draw) -> Case:
    dims, vectors, masks = _strided(draw)
    snake = {"".join("_" + c.lower() if c.isupper() else c for c in name): mask for name, mask in masks.items()}
    read = tf.raw_ops.StridedSlice(input=np.zeros(dims), begin=vectors[0], end=vectors[1], strides=vectors[2], **snake).shape
    options = {"Index": tf.int32, "T": tf.float32, **snake}
    return Case([integers(*dims), *vectors, tame(draw, tuple(read))], [F32], known=range(4), options=options)


@case("GATHER", options="GatherOptions")
def _gather(draw: Draw) -> Case:
    dtype, dims = one_of(draw, F32, I32, I64), shape(draw, 1)
    batch = draw(st.integers(0, 1)) if len(dims) > 1 else 0
    axis = draw(st.integers(batch, len(dims) - 1))
    beyond = draw(st.booleans())
    indices = values(
        draw, (*dims[:batch], *shape(draw, 0, 2)), one_of(draw, I32, I64), elements=st.integers(0, dims[axis] - (not beyond))
    )
    return Case([values(draw, dims, dtype), indices], [dtype], options={"axis": axis, "batchDims": batch}, gives_back=beyond)


@case("GATHER_ND", options="GatherNdOptions")
def _gather_nd(draw: Draw) -> Case:
    dims = shape(draw, 1)
    depth = draw(st.integers(1, len(dims)))
    rows = draw(st.integers(1, 3))
    indices = np.stack([values(draw, (rows,), I32, elements=st.integers(0, dims[axis] - 1)) for axis in range(depth)], axis=-1)
    return Case([tame(draw, dims), indices], [F32])


@case("SCATTER_ND", options="ScatterNdOptions")
def _scatter_nd(draw: Draw) -> Case:
    dims, rows = shape(draw, 1), draw(st.integers(1, 5))
    depth = draw(st.integers(1, len(dims)))
    # The same place may be written twice: the values add up.
    indices = np.stack([values(draw, (rows,), I32, elements=st.integers(0, dims[axis] - 1)) for axis in range(depth)], axis=-1)
    return Case([indices, tame(draw, (rows, *dims[depth:])), integers(*dims)], [F32], known=[2])


@case("UNSORTED_SEGMENT_SUM", options="UnsortedSegmentSumOptions")
def _segment_sum(draw: Draw) -> Case:
    dims, count = shape(draw, 1), draw(st.integers(1, 4))
    segments = values(draw, dims[:1], I32, elements=st.integers(-1, count - 1))
    return Case([tame(draw, dims), segments, integers(count)], [F32], known=[2])


@case("EMBEDDING_LOOKUP")
def _embedding_lookup(draw: Draw) -> Case:
    dims = shape(draw, 2)
    return Case([values(draw, (draw(st.integers(1, 4)),), I32, elements=st.integers(0, dims[0] - 1)), tame(draw, dims)], [F32])


@case("ONE_HOT", options="OneHotOptions")
def _one_hot(draw: Draw) -> Case:
    dtype, dims, depth = one_of(draw, F32, I32), shape(draw), draw(st.integers(1, 4))
    # No class, no hot element.
    indices = values(draw, dims, one_of(draw, I32, I64), elements=st.integers(-1, depth + 1))
    on, off = np.array(3, dtype), np.array(-1, dtype)
    return Case([indices, np.array(depth, np.int32), on, off], [dtype], known=[1, 2, 3], options={"axis": draw(st.integers(-1, len(dims)))})


@case("FILL", options="FillOptions")
def _fill(draw: Draw) -> Case:
    dtype = one_of(draw, F32, I32, I64, BOOL)
    return Case([integers(*shape(draw, 1)), values(draw, (), dtype)], [dtype], known=[0])


@case("RANGE", options="RangeOptions")
def _range(draw: Draw) -> Case:
    start, delta = draw(st.integers(-3, 3)), one_of(draw, 1, 2, -1)
    bounds = [np.array(number, np.int32) for number in (start, start + delta * draw(st.integers(1, 4)), delta)]
    return Case(bounds, [I32], known=range(3))


@case("TILE", options="TileOptions")
def _tile(draw: Draw) -> Case:
    dims, dtype = shape(draw, 1), one_of(draw, F32, I32, I64, BOOL)
    return Case([values(draw, dims, dtype), integers(*(draw(st.integers(1, 3)) for _ in dims))], [dtype], known=[1])


def _paddings(draw: Draw, dims: tuple[int, ...], most: int = 2) -> np.ndarray:
    return np.array([[draw(st.integers(0, min(most, size))) for _ in range(2)] for size in dims], np.int32).reshape(len(dims), 2)


@case("PAD", options="PadOptions")
def _pad(draw: Draw) -> Case:
    dims, dtype = shape(draw, 1), one_of(draw, F32, I32, I64)
    return Case([values(draw, dims, dtype), _paddings(draw, dims)], [dtype], known=[1])


@case("PADV2", options="PadV2Options")
def _pad_v2(draw: Draw) -> Case:
    dims, dtype = shape(draw, 1), one_of(draw, F32, I32, I64)
    return Case([values(draw, dims, dtype), _paddings(draw, dims), np.array([5], dtype)], [dtype], known=[1])


@case("MIRROR_PAD", options="MirrorPadOptions")
def _mirror_pad(draw: Draw) -> Case:
    dims = tuple(size + 1 for size in shape(draw, 1))
    return Case([tame(draw, dims), _paddings(draw, dims, most=1)], [F32], known=[1], options={"mode": draw(st.integers(0, 1))})


@case("REVERSE_V2", options="ReverseV2Options")
def _reverse(draw: Draw) -> Case:
    dims = shape(draw, 1)
    return Case([tame(draw, dims), integers(draw(st.integers(0, len(dims) - 1)))], [F32], known=[1])


@case("TOPK_V2", options="TopKV2Options")
def _top_k(draw: Draw) -> Case:
    dims = shape(draw, 1, 2)
    # With ties: the lower index first.
    x = values(draw, dims, elements=st.sampled_from([0.0, 1.0, -1.0, 2.0]))
    return Case([x, np.array(draw(st.integers(1, dims[-1])), np.int32)], [F32, I32], known=[1])


@case("SPACE_TO_DEPTH", options="SpaceToDepthOptions")
def _space_to_depth(draw: Draw) -> Case:
    block, (batch, height, width, depth) = draw(st.integers(1, 3)), shape(draw, 4, 4)
    return Case([tame(draw, (batch, height * block, width * block, depth))], [F32], options={"blockSize": block})


@case("DEPTH_TO_SPACE", options="DepthToSpaceOptions")
def _depth_to_space(draw: Draw) -> Case:
    block, (batch, height, width, depth) = draw(st.integers(1, 3)), shape(draw, 4, 4)
    return Case([tame(draw, (batch, height, width, depth * block * block))], [F32], options={"blockSize": block})


@case("SPACE_TO_BATCH_ND", options="SpaceToBatchNDOptions")
def _space_to_batch(draw: Draw) -> Case:
    batch, height, width, depth = shape(draw, 4, 4)
    blocks = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    paddings = [[draw(st.integers(0, 1)), 0] for _ in blocks]
    for pair, size, block in zip(paddings, (height, width), blocks):
        pair[1] = -(size + pair[0]) % block
    return Case([tame(draw, (batch, height, width, depth)), integers(*blocks), np.array(paddings, np.int32)], [F32], known=[1, 2])


@case("BATCH_TO_SPACE_ND", options="BatchToSpaceNDOptions")
def _batch_to_space(draw: Draw) -> Case:
    batch, height, width, depth = shape(draw, 4, 4)
    blocks = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    crops = [[draw(st.integers(0, 1)) if block > 1 else 0, 0] for block in blocks]
    x = tame(draw, (batch * math.prod(blocks), height, width, depth))
    return Case([x, integers(*blocks), np.array(crops, np.int32)], [F32], known=[1, 2])


@case("MATRIX_DIAG", options="MatrixDiagOptions")
def _matrix_diag(draw: Draw) -> Case:
    return Case([tame(draw, shape(draw, 1, 2))], [F32])
