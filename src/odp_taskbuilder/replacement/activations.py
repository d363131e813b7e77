"""Activations and their gradients.

Source: the definitions in TensorFlow's documentation; the error function by the rational approximation of Eigen, which TensorFlow uses.
Errors: at most 3e-7 relative to the largest element.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from odp_taskbuilder.base.elementwise import magnitude, square
from odp_taskbuilder.replacement.equivalent import Node, equivalent

# Klambauer et al., Self-Normalizing Neural Networks, 2017.
_SELU_SCALE = 1.0507009873554804934193349852946
_SELU_SCALE_ALPHA = 1.7580993408473768599402175208123


@equivalent("EluGrad", by="the gradient times (output + 1) below 0")
def elu_grad(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: gradient, output of elu."""
    gradient, output = node.inputs
    return [gradient * (tf.minimum(output, 0) + 1)]


@equivalent("SeluGrad", by="the gradient times (output + scale * alpha) below 0, times scale above")
def selu_grad(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: gradient, output of selu."""
    gradient, output = node.inputs
    return [tf.where(output < 0, gradient * (output + _SELU_SCALE_ALPHA), gradient * _SELU_SCALE)]


@equivalent("LeakyReluGrad", by="the gradient times alpha where the input is not positive")
def leaky_relu_grad(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: gradient, input of leaky relu."""
    gradient, feature = node.inputs
    return [tf.where(feature > 0, gradient, gradient * node.attr("alpha"))]


@equivalent("Relu6Grad", by="the gradient where the input lies between 0 and 6")
def relu6_grad(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: gradient, input of relu6 or its output."""
    gradient, feature = node.inputs
    zeros = tf.zeros_like(feature)
    # Factors of 0 and 1, as in TensorFlow's own kernel.
    return [gradient * tf.cast(feature > zeros, feature.dtype) * tf.cast(feature < zeros + 6, feature.dtype)]


@equivalent("Softsign", by="x / (1 + |x|)")
def softsign(node: Node) -> Sequence[tf.Tensor]:
    """Input: any tensor."""
    (feature,) = node.inputs
    return [feature / (1 + magnitude(feature))]


@equivalent("SoftsignGrad", by="the gradient over (1 + |x|) squared")
def softsign_grad(node: Node) -> Sequence[tf.Tensor]:
    """Inputs: gradient, input of softsign."""
    gradient, feature = node.inputs
    return [gradient / square(1 + magnitude(feature))]


@equivalent("Sign", by="whether it is above 0, minus whether it is below")
def sign(node: Node) -> Sequence[tf.Tensor]:
    """Input: any numbers; the gradient of absolute values asks for it. Exact; 0 for NaN."""
    (feature,) = node.inputs
    return [tf.cast(feature > 0, feature.dtype) - tf.cast(feature < 0, feature.dtype)]


# Coefficients of x and x * x, highest power first, for |x| < 4, beyond which float32 has no number below 1 left.
_ERF_NUMERATOR = (
    -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
    -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02,
)  # fmt: skip
_ERF_DENOMINATOR = (
    -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02,
)  # fmt: skip


@equivalent("Erf", by="a rational function")
def erf(node: Node) -> Sequence[tf.Tensor]:
    """Input: float32."""
    (feature,) = node.inputs
    bounded = tf.clip_by_value(feature, -4.0, 4.0)
    squared = square(bounded)
    return [bounded * _polynomial(squared, _ERF_NUMERATOR) / _polynomial(squared, _ERF_DENOMINATOR)]


def _polynomial(variable: tf.Tensor, coefficients: Sequence[float]) -> tf.Tensor:
    value = variable * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * variable + coefficient
    return value
