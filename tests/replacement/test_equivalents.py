"""Each equivalent computes what TensorFlow's kernel computes: in TensorFlow, and in TFLite's interpreter with builtin ops alone."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from one_op import OneOp, worst_error

from odp_taskbuilder.ops.tflite import OpKind
from odp_taskbuilder.replacement import EQUIVALENTS, replace_distorted

raw = tf.raw_ops
# Relative to the largest element.
_TOLERANCE = 3e-6
_NEWEST_RUNTIME = (2, 10, 0)
_tested = set()


def check(op, write, inputs, static=(), tolerance=_TOLERANCE, wanted=None, has_kernel=True):
    """Where `wanted` is given, TensorFlow's kernel is compared with it, too, if processors have one."""
    _tested.add(op)
    node = OneOp(op, write, inputs, static)
    if wanted is None:
        wanted = node.reference()
    elif has_kernel:
        assert worst_error(node.reference(), wanted) <= tolerance
    assert worst_error(node.in_tensorflow(), wanted) <= tolerance
    got, ops = node.in_tflite()
    assert worst_error(got, wanted) <= tolerance
    assert {use.kind for use in ops.ops} == {OpKind.BUILTIN}
    assert ops.min_runtime is None or ops.min_runtime <= _NEWEST_RUNTIME


@st.composite
def windows(draw, dimensions, dilated=False):
    """(sizes of the input, window, strides, dilations, padding, sizes of the output)."""
    sizes = draw(st.lists(st.integers(3, 9 if dimensions == 2 else 6), min_size=dimensions, max_size=dimensions))
    window = draw(st.lists(st.integers(1, 3), min_size=dimensions, max_size=dimensions))
    strides = draw(st.lists(st.integers(1, 3), min_size=dimensions, max_size=dimensions))
    dilations = [1] * dimensions
    if dilated and set(strides) == {1}:
        dilations = draw(st.lists(st.integers(1, 2), min_size=dimensions, max_size=dimensions))
    padding = draw(st.sampled_from(["SAME", "VALID"]))
    reach = [(taps - 1) * dilation + 1 for taps, dilation in zip(window, dilations)]
    assume(all(size >= far for size, far in zip(sizes, reach)))
    if padding == "SAME":
        outputs = [math.ceil(size / stride) for size, stride in zip(sizes, strides)]
    else:
        outputs = [(size - far) // stride + 1 for size, far, stride in zip(sizes, reach, strides)]
    return sizes, window, strides, dilations, padding, outputs


def _normal(*shape):
    return np.random.default_rng(math.prod(shape)).normal(size=shape).astype(np.float32)


_RELAXED = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}
_few, _many = settings(max_examples=6, **_RELAXED), settings(max_examples=100, **_RELAXED)


def _attributes(strides, dilations, padding):
    return {"strides": [1, *strides, 1], "dilations": [1, *dilations, 1], "padding": padding}


def _taps(drawn):
    """(indices of a tap in the kernel, slices of the padded image that it meets), and what is padded on both sides."""
    sizes, window, strides, dilations, _, outputs = drawn
    reach = [(taps - 1) * dilation + 1 for taps, dilation in zip(window, dilations)]
    padding = [max((output - 1) * stride + far - size, 0) for output, stride, far, size in zip(outputs, strides, reach, sizes)]
    pads = [(0, 0), *((pad // 2, pad - pad // 2) for pad in padding), (0, 0)]
    taps = []
    for tap in itertools.product(*map(range, window)):
        firsts = [index * dilation for index, dilation in zip(tap, dilations)]
        spans = (slice(first, first + (output - 1) * stride + 1, stride) for first, output, stride in zip(firsts, outputs, strides))
        taps.append((tap, (slice(None), *spans)))
    return taps, pads


def kernel_gradient(drawn, image, gradient):
    """By definition, in double precision. TensorFlow's kernels on processors know no dilation unless oneDNN's serve, as by default on few."""
    taps, pads = _taps(drawn)
    padded, gradient = np.pad(image.astype(np.float64), pads), gradient.astype(np.float64)
    result = np.zeros([*drawn[1], image.shape[-1], gradient.shape[-1]])
    for tap, span in taps:
        result[tap] = padded[span].reshape(-1, image.shape[-1]).T @ gradient.reshape(-1, gradient.shape[-1])
    return result.astype(np.float32)


def input_gradient(drawn, kernel, gradient):
    """By definition, in double precision."""
    taps, pads = _taps(drawn)
    padded = np.zeros([gradient.shape[0], *(size + before + after for size, (before, after) in zip(drawn[0], pads[1:-1])), kernel.shape[-2]])
    for tap, span in taps:
        padded[span] += gradient.astype(np.float64) @ kernel[tap].astype(np.float64).T
    inside = tuple(slice(before, before + size) for size, (before, _) in zip(drawn[0], pads[1:-1]))
    return padded[(slice(None), *inside)].astype(np.float32)


def check_kernel_gradient(drawn):
    sizes, window, strides, dilations, padding, outputs = drawn
    op = "Conv2DBackpropFilter" if len(sizes) == 2 else "Conv3DBackpropFilterV2"
    image, gradient = _normal(2, *sizes, 3), _normal(2, *outputs, 4)
    check(
        op,
        lambda image, gradient: getattr(raw, op)(
            input=image, filter_sizes=[*window, 3, 4], out_backprop=gradient, **_attributes(strides, dilations, padding)
        ),
        [image, gradient],
        wanted=[kernel_gradient(drawn, image, gradient)],
        has_kernel=set(dilations) == {1},
    )


def check_input_gradient(drawn):
    sizes, window, strides, dilations, padding, outputs = drawn
    op = "Conv2DBackpropInput" if len(sizes) == 2 else "Conv3DBackpropInputV2"
    kernel, gradient = _normal(*window, 3, 4), _normal(2, *outputs, 4)
    check(
        op,
        lambda kernel, gradient: getattr(raw, op)(
            input_sizes=tf.stack([tf.shape(gradient)[0], *sizes, 3]),
            filter=kernel,
            out_backprop=gradient,
            **_attributes(strides, dilations, padding),
        ),
        [kernel, gradient],
        static=[kernel.shape, [None, *outputs, 4]],
        wanted=[input_gradient(drawn, kernel, gradient)],
        has_kernel=set(dilations) == {1},
    )


def check_depthwise_gradients(drawn, multiplier):
    sizes, window, strides, _, padding, outputs = drawn
    assume(strides[0] == strides[1])
    attributes = {"strides": [1, *strides, 1], "padding": padding}
    kernel, gradient = _normal(*window, 3, multiplier), _normal(2, *outputs, 3 * multiplier)
    check(
        "DepthwiseConv2dNativeBackpropFilter",
        lambda image, gradient: raw.DepthwiseConv2dNativeBackpropFilter(
            input=image, filter_sizes=[*window, 3, multiplier], out_backprop=gradient, **attributes
        ),
        [_normal(2, *sizes, 3), gradient],
    )
    check(
        "DepthwiseConv2dNativeBackpropInput",
        lambda kernel, gradient: raw.DepthwiseConv2dNativeBackpropInput(
            input_sizes=tf.stack([tf.shape(gradient)[0], *sizes, 3]), filter=kernel, out_backprop=gradient, **attributes
        ),
        [kernel, gradient],
        static=[kernel.shape, [None, *outputs, 3 * multiplier]],
    )


def check_max_pool(drawn):
    sizes, window, strides, _, padding, outputs = drawn
    attributes = {"ksize": [1, *window, 1], "strides": [1, *strides, 1], "padding": padding}
    suffix, pool = ("", raw.MaxPool) if len(sizes) == 2 else ("3D", raw.MaxPool3D)
    # Small whole numbers, half of them 0 as after relu: full of ties.
    image = np.maximum(np.round(2 * _normal(2, *sizes, 3)), 0)
    maximum = pool(input=image, **attributes).numpy()
    check(
        f"MaxPool{suffix}Grad",
        lambda image, maximum, gradient: getattr(raw, f"MaxPool{suffix}Grad")(
            orig_input=image, orig_output=maximum, grad=gradient, **attributes
        ),
        [image, maximum, _normal(2, *outputs, 3)],
    )
    if len(sizes) == 3:
        check("MaxPool3D", lambda image: raw.MaxPool3D(input=image, **attributes), [image])


def check_average_pool(drawn):
    sizes, window, strides, _, padding, outputs = drawn
    attributes = {"ksize": [1, *window, 1], "strides": [1, *strides, 1], "padding": padding}
    op = "AvgPoolGrad" if len(sizes) == 2 else "AvgPool3DGrad"
    check(
        op,
        lambda gradient: getattr(raw, op)(
            orig_input_shape=tf.stack([tf.shape(gradient)[0], *sizes, 3]), grad=gradient, **attributes
        ),
        [_normal(2, *outputs, 3)],
    )
    if len(sizes) == 3:
        check("AvgPool3D", lambda image: raw.AvgPool3D(input=image, **attributes), [_normal(2, *sizes, 3)])


_WINDOWED = {
    "kernel gradient 2D": (check_kernel_gradient, 2, True),
    "kernel gradient 3D": (check_kernel_gradient, 3, False),
    "input gradient 2D": (check_input_gradient, 2, True),
    "input gradient 3D": (check_input_gradient, 3, False),
    "depthwise": (lambda drawn: check_depthwise_gradients(drawn, 1), 2, False),
    "depthwise, multiplier 2": (lambda drawn: check_depthwise_gradients(drawn, 2), 2, False),
    "max pooling 2D": (check_max_pool, 2, False),
    "max pooling 3D": (check_max_pool, 3, False),
    "average pooling 2D": (check_average_pool, 2, False),
    "average pooling 3D": (check_average_pool, 3, False),
}


def _run(name, profile):
    checked, dimensions, dilated = _WINDOWED[name]

    @profile
    @given(windows(dimensions, dilated))
    def property_(drawn):
        checked(drawn)

    property_()


@pytest.mark.parametrize("name", _WINDOWED)
def test_windows_of_any_size_stride_dilation_and_padding(name):
    _run(name, _few)


@pytest.mark.full
@pytest.mark.parametrize("name", _WINDOWED)
def test_windows_of_any_size_stride_dilation_and_padding_at_length(name):
    _run(name, _many)


@pytest.mark.parametrize("op", ["Conv2DBackpropFilter", "Conv2DBackpropInput"])
def test_explicit_padding_beyond_the_reach_of_the_window(op):
    attributes = {
        "strides": [1, 2, 1, 1], "dilations": [1, 1, 1, 1], "padding": "EXPLICIT", "explicit_paddings": [0, 0, 3, 0, 1, 2, 0, 0]
    }  # fmt: skip
    image, kernel = _normal(2, 7, 6, 3), _normal(2, 3, 3, 4)
    gradient = _normal(*raw.Conv2D(input=image, filter=kernel, **attributes).shape)
    if op == "Conv2DBackpropFilter":
        write = lambda image, gradient: raw.Conv2DBackpropFilter(  # noqa: E731
            input=image, filter_sizes=kernel.shape, out_backprop=gradient, **attributes
        )
        check(op, write, [image, gradient])
    else:
        write = lambda kernel, gradient: raw.Conv2DBackpropInput(  # noqa: E731
            input_sizes=tf.stack([tf.shape(gradient)[0], 7, 6, 3]), filter=kernel, out_backprop=gradient, **attributes
        )
        check(op, write, [kernel, gradient], static=[kernel.shape, [None, *gradient.shape[1:]]])


def test_a_convolution_that_converters_leave_alone():
    check(
        "Conv2D",
        lambda image, kernel: raw.Conv2D(input=image, filter=kernel, strides=[1, 2, 1, 1], padding="SAME"),
        [_normal(2, 7, 6, 3), _normal(3, 2, 3, 4)],
        static=[[None, 7, 6, 3], [3, 2, 3, 4]],
    )


@pytest.mark.parametrize("scale", [1, 30])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_sparse_softmax_crossentropy(dtype, scale):
    check(
        "SparseSoftmaxCrossEntropyWithLogits",
        lambda logits, labels: raw.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=labels),
        [scale * _normal(9, 5), np.arange(9, dtype=dtype) % 5],
    )


@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_out_of_range_fails_the_run_as_in_tensorflow(label):
    node = OneOp(
        "SparseSoftmaxCrossEntropyWithLogits",
        lambda logits, labels: raw.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=labels),
        [_normal(3, 5), np.array([0, label, 1])],
    )
    with pytest.raises(tf.errors.InvalidArgumentError):
        node.reference()
    with pytest.raises(tf.errors.InvalidArgumentError):
        node.in_tensorflow()
    with pytest.raises(RuntimeError):
        node.in_tflite()


_ELEMENTWISE = {
    "EluGrad": lambda gradient, feature: raw.EluGrad(gradients=gradient, outputs=feature),
    "SeluGrad": lambda gradient, feature: raw.SeluGrad(gradients=gradient, outputs=feature),
    "LeakyReluGrad": lambda gradient, feature: raw.LeakyReluGrad(gradients=gradient, features=feature, alpha=0.3),
    "Relu6Grad": lambda gradient, feature: raw.Relu6Grad(gradients=gradient, features=feature),
    "SoftsignGrad": lambda gradient, feature: raw.SoftsignGrad(gradients=gradient, features=feature),
    "Softsign": lambda feature: raw.Softsign(features=feature),
    "Erf": lambda feature: raw.Erf(x=feature),
    "Sign": lambda feature: raw.Sign(x=feature),
}


@pytest.mark.parametrize("op", _ELEMENTWISE)
def test_activations(op):
    edges = np.array([0.0, -0.0, 6.0, 1e-30, -1e-30, 40.0, -40.0], np.float32)
    features = np.concatenate([np.linspace(-8, 8, 200, dtype=np.float32), edges])[:, None]
    inputs = [features] if op in ("Softsign", "Erf", "Sign") else [_normal(len(features), 1), features]
    check(op, _ELEMENTWISE[op], inputs)


@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
@pytest.mark.parametrize("is_training", [True, False])
def test_batch_normalization(is_training, data_format):
    # Layers call it with channels first only as LayerNormalization does it: TensorFlow's kernel takes that for training alone.
    if data_format == "NCHW" and not is_training:
        pytest.skip("TensorFlow's kernel does not take it")
    shape = (1, 5, 7, 1) if data_format == "NCHW" else (4, 3, 3, 5)
    static = [None, 5, 7, 1] if data_format == "NCHW" else [None, 3, 3, 5]
    vector = np.abs(_normal(5)) + 0.1
    attributes = {"epsilon": 1e-3, "is_training": is_training, "data_format": data_format}
    # What is kept for the gradient has no meaning outside training, where kernels differ: oneDNN's repeats the statistics, the other has zeros.
    outputs = 5 if is_training else 3
    for factor in (1.0, 0.3):
        check(
            "FusedBatchNormV3",
            lambda image, scale, offset, mean, variance, factor=factor: [
                *raw.FusedBatchNormV3(
                    x=image, scale=scale, offset=offset, mean=mean, variance=variance, exponential_avg_factor=factor, **attributes
                )
            ][:outputs],
            [_normal(*shape), vector, _normal(5), _normal(5), vector],
            static=[static, [5], [5], [5], [5]],
        )
    check(
        "FusedBatchNormGradV3",
        lambda gradient, image, scale, mean, variance: [
            *raw.FusedBatchNormGradV3(
                y_backprop=gradient, x=image, scale=scale, reserve_space_1=mean, reserve_space_2=variance,
                reserve_space_3=tf.zeros([0]), **attributes,
            )
        ][:3],
        [_normal(*shape), _normal(*shape)[::-1], vector, _normal(5), vector],
        static=[static, static, [5], [5], [5]],
    )  # fmt: skip


@pytest.mark.parametrize("new", [(6, 10), (4, 7), (2, 3)])
@pytest.mark.parametrize("corners", [(False, False), (True, False), (False, True)])
def test_resizing_to_a_size(corners, new):
    options = dict(zip(("align_corners", "half_pixel_centers"), corners))
    images, gradient = _normal(2, 3, 5, 2), _normal(2, *new, 2)
    for name in ("ResizeBilinearGrad", "ResizeBicubicGrad"):
        check(
            name,
            lambda gradient, images, name=name: getattr(raw, name)(grads=gradient, original_image=images, **options),
            [gradient, images],
        )
    check(
        "ResizeNearestNeighborGrad",
        lambda gradient: raw.ResizeNearestNeighborGrad(grads=gradient, size=[3, 5], **options),
        [gradient],
    )
    check("ResizeBicubic", lambda images: raw.ResizeBicubic(images=images, size=new, **options), [images])


@pytest.mark.parametrize("kernel", ["lanczos3", "gaussian", "keyscubic"])
def test_resizing_by_a_scale(kernel):
    options = {"scale": [4 / 3, 9 / 5], "translation": [0.1, -0.2], "kernel_type": kernel, "antialias": True}
    images, gradient = _normal(2, 3, 5, 2), _normal(2, 4, 9, 2)
    check("ScaleAndTranslate", lambda images: raw.ScaleAndTranslate(images=images, size=[4, 9], **options), [images])
    check(
        "ScaleAndTranslateGrad",
        lambda gradient, images: raw.ScaleAndTranslateGrad(grads=gradient, original_image=images, **options),
        [gradient, images],
    )


@pytest.mark.parametrize("binary", [True, False])
def test_counting(binary):
    values = np.arange(20).reshape(4, 5) % 9
    check(
        "DenseBincount",
        lambda values: raw.DenseBincount(input=values, size=7, weights=tf.zeros([0]), binary_output=binary),
        [values],
    )


@pytest.mark.parametrize("divisor_sizes", [(2, 3, 2, 2, 4), (2, 1, 1, 2, 1)])
def test_division_in_five_dimensions(divisor_sizes):
    divisor = _normal(*divisor_sizes)
    divisor[:, :, :, 0] = 0
    check("DivNoNan", lambda x, y: raw.DivNoNan(x=x, y=y), [_normal(2, 3, 2, 2, 4), divisor])


def test_what_the_converter_would_distort_is_found_whatever_phones_have():
    """A gradient of a convolution in two groups, a division in five dimensions; one group and four dimensions are left alone."""
    image, kernel, whole = [None, 5, 4, 6], _normal(2, 2, 3, 4), _normal(2, 2, 6, 4)
    with tf.Graph().as_default() as graph:
        placeholder = tf.compat.v1.placeholder
        gradient = placeholder(tf.float32, [None, 5, 4, 4], "gradient")
        for name, weights in (("groups", kernel), ("one_group", whole)):
            sizes = [tf.shape(gradient)[0], *image[1:]]
            raw.Conv2DBackpropInput(
                input_sizes=sizes, filter=weights, out_backprop=gradient, strides=[1, 1, 1, 1], padding="SAME", name=name
            )
        for name, shape in (("five", [None, 2, 2, 2, 2]), ("four", [None, 2, 2, 2])):
            raw.DivNoNan(x=placeholder(tf.float32, shape), y=placeholder(tf.float32, shape), name=name)
    replaced, counts = replace_distorted(graph.as_graph_def())
    assert counts == {"Conv2DBackpropInput": 1, "DivNoNan": 1}
    left = {node.name for node in replaced.node if node.op in ("Conv2DBackpropInput", "DivNoNan")}
    assert left == {"one_group", "four"}


def test_every_line_of_the_table_is_tested_here():
    assert _tested == set(EQUIVALENTS)
