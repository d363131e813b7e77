"""Translations of elementwise operators, reductions and products.

Each says what TFLite's own kernel does with float32 and integers. TFLite clamps the results of ADD, SUB, MUL and DIV to the float32 range,
which is not translated: a client whose numbers come near it goes to the interpreter (client_program).
"""

from __future__ import annotations

import functools
from typing import Any, Optional

import jax
import jax.numpy as jnp
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from odp_taskbuilder.compiled.translation import Op, Value, translates

_ACTIVATIONS = {
    schema.ActivationFunctionType.NONE: lambda xp, x: x,
    schema.ActivationFunctionType.RELU: lambda xp, x: xp.maximum(x, xp.asarray(0, x.dtype)),
    schema.ActivationFunctionType.RELU_N1_TO_1: lambda xp, x: xp.clip(x, xp.asarray(-1, x.dtype), xp.asarray(1, x.dtype)),
    schema.ActivationFunctionType.RELU6: lambda xp, x: xp.clip(x, xp.asarray(0, x.dtype), xp.asarray(6, x.dtype)),
}
# Beyond these TFLite takes exp(x), and 1, for 1 / (1 + exp(-x)) (Eigen's scalar_logistic_op).
_LOGISTIC_LOWER, _LOGISTIC_UPPER = -9.0, 16.619047164916992


def activated(op: Op, x: Value) -> Value:
    """The activation that is fused into an operator."""
    code = op.options.fusedActivationFunction
    if code not in _ACTIVATIONS:
        raise op.refuse(f"its fused activation has number {code}")
    return _ACTIVATIONS[code](op.xp, x)


@translates("ADD", folds=True)
def _add(op: Op, a: Value, b: Value) -> Value:
    return activated(op, op.xp.add(a, b))


@translates("SUB", folds=True)
def _sub(op: Op, a: Value, b: Value) -> Value:
    return activated(op, op.xp.subtract(a, b))


@translates("MUL", folds=True)
def _mul(op: Op, a: Value, b: Value) -> Value:
    return activated(op, op.xp.multiply(a, b))


@translates("DIV", folds=True)
def _div(op: Op, a: Value, b: Value) -> Value:
    if np.issubdtype(op.output_dtype, np.integer):
        op.require(op.xp.all(b != 0))
        # Towards zero, as in C.
        quotient = op.xp.abs(a) // op.xp.maximum(op.xp.abs(b), 1)
        return activated(op, (quotient * op.xp.sign(a) * op.xp.sign(b)).astype(op.output_dtype))
    return activated(op, op.xp.divide(a, b))


@translates("FLOOR_DIV", folds=True)
def _floor_div(op: Op, a: Value, b: Value) -> Value:
    if np.issubdtype(op.output_dtype, np.integer):
        op.require(op.xp.all(b != 0))
        return op.xp.floor_divide(a, op.xp.where(b == 0, op.xp.ones_like(b), b))
    return op.xp.floor(op.xp.divide(a, b))


@translates("FLOOR_MOD", folds=True)
def _floor_mod(op: Op, a: Value, b: Value) -> Value:
    if np.issubdtype(op.output_dtype, np.integer):
        op.require(op.xp.all(b != 0))
        return op.xp.mod(a, op.xp.where(b == 0, op.xp.ones_like(b), b))
    return op.xp.mod(a, b)


@translates("POW")
def _pow(op: Op, a: Value, b: Value) -> Value:
    return jnp.power(a, b)


@translates("MAXIMUM", folds=True)
def _maximum(op: Op, a: Value, b: Value) -> Value:
    return op.xp.maximum(a, b)


@translates("MINIMUM", folds=True)
def _minimum(op: Op, a: Value, b: Value) -> Value:
    return op.xp.minimum(a, b)


@translates("SQUARED_DIFFERENCE")
def _squared_difference(op: Op, a: Value, b: Value) -> Value:
    return jnp.square(jnp.subtract(a, b))


@translates("ADD_N")
def _add_n(op: Op, first: Value, *others: Value) -> Value:
    return functools.reduce(jnp.add, others, jnp.asarray(first))


def _elementwise(name: str, function: Any, *, folds: bool = False) -> None:
    """Enters a function of one array, with the same name and meaning in NumPy and JAX."""

    @translates(name, folds=folds)
    def _apply(op: Op, x: Value) -> Value:
        return getattr(op.xp, function)(x) if isinstance(function, str) else function(x)


_elementwise("ABS", "abs", folds=True)
_elementwise("NEG", "negative", folds=True)
_elementwise("SQUARE", "square", folds=True)
_elementwise("SIGN", "sign", folds=True)
_elementwise("FLOOR", "floor", folds=True)
_elementwise("CEIL", "ceil", folds=True)
# To even, where two integers are as near.
_elementwise("ROUND", "round", folds=True)
_elementwise("LOGICAL_NOT", "logical_not", folds=True)
_elementwise("ZEROS_LIKE", "zeros_like", folds=True)
_elementwise("SQRT", "sqrt")
_elementwise("RSQRT", lambda x: 1 / jnp.sqrt(x))
_elementwise("EXP", "exp")
_elementwise("LOG", "log")
_elementwise("SIN", "sin")
_elementwise("COS", "cos")
_elementwise("TANH", "tanh")
_elementwise("RELU", lambda x: jnp.maximum(x, 0))
_elementwise("RELU_N1_TO_1", lambda x: jnp.clip(x, -1, 1))
_elementwise("RELU_0_TO_1", lambda x: jnp.clip(x, 0, 1))
_elementwise("RELU6", lambda x: jnp.clip(x, 0, 6))
_elementwise("ELU", lambda x: jnp.where(x < 0, jnp.expm1(x), x))
_elementwise("HARD_SWISH", lambda x: x * jnp.clip(x + 3, 0, 6) / 6)
_elementwise("LOG_SOFTMAX", lambda x: jax.nn.log_softmax(x, axis=-1))


@translates("LOGISTIC")
def _logistic(op: Op, x: Value) -> Value:
    inner = 1 / (1 + jnp.exp(-x))
    return jnp.where(x < _LOGISTIC_LOWER, jnp.exp(x), jnp.where(x > _LOGISTIC_UPPER, jnp.ones_like(inner), inner))


@translates("LEAKY_RELU")
def _leaky_relu(op: Op, x: Value) -> Value:
    return jnp.where(x > 0, x, x * np.float32(op.options.alpha))


@translates("PRELU")
def _prelu(op: Op, x: Value, alpha: Value) -> Value:
    return jnp.where(x >= 0, x, x * alpha)


@translates("GELU")
def _gelu(op: Op, x: Value) -> Value:
    return jax.nn.gelu(x, approximate=bool(op.options.approximate))


@translates("SOFTMAX")
def _softmax(op: Op, x: Value) -> Value:
    return jax.nn.softmax(x * np.float32(op.options.beta), axis=-1)


@translates("L2_NORMALIZATION")
def _l2_normalization(op: Op, x: Value) -> Value:
    norm = jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True))
    return activated(op, x / jnp.maximum(norm, np.float32(1e-6)))


@translates("ATAN2")
def _atan2(op: Op, y: Value, x: Value) -> Value:
    return jnp.arctan2(y, x)


def _comparison(name: str, function: str) -> None:
    @translates(name, folds=True)
    def _apply(op: Op, a: Value, b: Value) -> Value:
        return getattr(op.xp, function)(a, b)


for _name, _function in (
    ("EQUAL", "equal"),
    ("NOT_EQUAL", "not_equal"),
    ("LESS", "less"),
    ("LESS_EQUAL", "less_equal"),
    ("GREATER", "greater"),
    ("GREATER_EQUAL", "greater_equal"),
    ("LOGICAL_AND", "logical_and"),
    ("LOGICAL_OR", "logical_or"),
):
    _comparison(_name, _function)


@translates("SELECT", folds=True)
def _select(op: Op, condition: Value, a: Value, b: Value) -> Value:
    if condition.ndim == 1 and a.ndim > 1:
        # A vector selects rows.
        condition = condition.reshape(condition.shape + (1,) * (a.ndim - 1))
    return op.xp.where(condition, a, b)


@translates("SELECT_V2", folds=True)
def _select_v2(op: Op, condition: Value, a: Value, b: Value) -> Value:
    return op.xp.where(condition, a, b)


@translates("CAST", folds=True)
def _cast(op: Op, x: Value) -> Value:
    return x.astype(op.output_dtype)


def _axes(op: Op, x: Value, axes: Value) -> tuple[int, ...]:
    return tuple(axis % max(1, x.ndim) for axis in op.integers(axes, "axes"))


# XLA looks for an extreme of float numbers one by one: five times as long as it takes to compare one half with the other again and again.
_IN_HALVES = {"max": jnp.maximum, "min": jnp.minimum}
_HALVED_ELEMENTS = 4096


def _in_halves(function: str, x: Value) -> Value:
    """The extreme of all elements, as a scalar; like NumPy's it is NaN where there is one."""
    x = x.reshape(-1)
    while x.size > _HALVED_ELEMENTS:
        half = x.size // 2
        # Of an odd number one element is in both.
        x = _IN_HALVES[function](x[:-half], x[half:])
    return getattr(jnp, function)(x)


def _reduction(name: str, function: str, *, dtype_argument: bool = False) -> None:
    @translates(name, folds=True)
    def _apply(op: Op, x: Value, axes: Value) -> Value:
        # Sums of int32 are int64 otherwise.
        more = {"dtype": x.dtype} if dtype_argument else {}
        reduced = tuple(dict.fromkeys(_axes(op, x, axes)))
        if x.ndim == 0:
            return x
        if function in _IN_HALVES and op.xp is jnp and len(reduced) == x.ndim:
            x = _in_halves(function, x)
            return x.reshape((1,) * len(reduced) if op.options.keepDims else ())
        return getattr(op.xp, function)(x, axis=reduced, keepdims=bool(op.options.keepDims), **more)


for _name, _function, _dtype_argument in (
    ("SUM", "sum", True),
    ("REDUCE_PROD", "prod", True),
    ("REDUCE_MAX", "max", False),
    ("REDUCE_MIN", "min", False),
    ("REDUCE_ANY", "any", False),
    ("REDUCE_ALL", "all", False),
):
    _reduction(_name, _function, dtype_argument=_dtype_argument)


@translates("MEAN")
def _mean(op: Op, x: Value, axes: Value) -> Value:
    if not np.issubdtype(x.dtype, np.floating):
        raise op.refuse(f"its input is {x.dtype}")
    return jnp.mean(x, axis=_axes(op, x, axes), keepdims=bool(op.options.keepDims)) if x.ndim else jnp.asarray(x)


@translates("CUMSUM")
def _cumsum(op: Op, x: Value, axis: Value) -> Value:
    (axis,) = _axes(op, x, axis)
    if op.options.reverse:
        x = jnp.flip(x, axis)
    total = jnp.cumsum(x, axis=axis, dtype=x.dtype)
    if op.options.exclusive:
        total = total - x
    return jnp.flip(total, axis) if op.options.reverse else total


def _arg(name: str, function: str) -> None:
    @translates(name)
    def _apply(op: Op, x: Value, axis: Value) -> Value:
        (axis,) = _axes(op, x, axis)
        return getattr(jnp, function)(x, axis=axis).astype(op.output_dtype)


# The first of several.
_arg("ARG_MAX", "argmax")
_arg("ARG_MIN", "argmin")


# Gradients of weights are products of this kind: as long as a batch is, and as wide as the layer. XLA's library packs them first, which takes
# two (a batch of 16) to ten times (of 3) as long as to add up the products of columns and rows; and that, it puts together with the step of the optimizer.
_OUTER_LENGTH = 16


def _product(a: Value, b: Value) -> Value:
    """Of matrices, or of stacks of them."""
    length = a.shape[-1]
    if a.ndim == b.ndim == 2 and 1 < length <= _OUTER_LENGTH and length < min(a.shape[0], b.shape[1]):
        return functools.reduce(jnp.add, (a[:, k : k + 1] * b[k : k + 1, :] for k in range(length)))
    return jnp.matmul(a, b)


@translates("BATCH_MATMUL")
def _batch_matmul(op: Op, a: Value, b: Value) -> Value:
    if op.options.adjX:
        a = jnp.swapaxes(a, -1, -2)
    if op.options.adjY:
        b = jnp.swapaxes(b, -1, -2)
    return _product(a, b)


@translates("FULLY_CONNECTED")
def _fully_connected(op: Op, x: Value, weights: Value, bias: Optional[Value] = None) -> Value:
    if op.options.weightsFormat != schema.FullyConnectedOptionsWeightsFormat.DEFAULT:
        raise op.refuse("its weights are shuffled")
    batch = x.shape[:-1] if op.options.keepNumDims else (-1,)
    product = _product(x.reshape(-1, weights.shape[1]), weights.T)
    if bias is not None:
        product = product + bias
    return activated(op, product.reshape(*batch, weights.shape[0]))


@translates("L2Loss")
def _l2_loss(op: Op, x: Value) -> Value:
    return jnp.sum(jnp.square(x)) / 2


@translates("ReluGrad")
def _relu_grad(op: Op, gradient: Value, features: Value) -> Value:
    return jnp.where(features > 0, gradient, jnp.zeros_like(gradient))


@translates("Relu6")
def _relu6(op: Op, x: Value) -> Value:
    return jnp.clip(x, 0, 6)


@translates("Relu6Grad")
def _relu6_grad(op: Op, gradient: Value, features: Value) -> Value:
    return jnp.where((features > 0) & (features < 6), gradient, jnp.zeros_like(gradient))


@translates("SigmoidGrad")
def _sigmoid_grad(op: Op, y: Value, gradient: Value) -> Value:
    return gradient * y * (1 - y)


@translates("TanhGrad")
def _tanh_grad(op: Op, y: Value, gradient: Value) -> Value:
    return gradient * (1 - y * y)
