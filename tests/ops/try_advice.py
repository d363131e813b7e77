"""Run by test_advice.py: converts small models, and prints which ops of each phones lack, as JSON.

For every line of the advice table there is a model with what the table warns of, and one with what it advises.
"""

import json
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow as tf

from odp_taskbuilder.ops import report

layers, losses = tf.keras.layers, tf.keras.losses
_IMAGE, _VECTOR, _SEQUENCE = (12, 12, 2), (8,), (5, 3)


def _unsupported(shape, hidden, loss=None):
    """Ops that phones lack, of the gradient of a model with the hidden layers."""
    ends = [layers.Flatten(), layers.Dense(4)] if loss is None else []
    model = tf.keras.Sequential([layers.InputLayer(shape), *hidden, *ends])

    @tf.function(input_signature=[tf.TensorSpec([None, *shape], tf.float32), tf.TensorSpec([None, 1], tf.int64)])
    def gradient(x, label):
        with tf.GradientTape() as tape:
            prediction = model(x, training=True)
            value = tf.reduce_sum(tf.square(prediction)) if loss is None else loss(label, prediction)
        return tape.gradient(value, model.trainable_variables)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([gradient.get_concrete_function()], model)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    converter._experimental_allow_all_select_tf_ops = True
    converter.experimental_enable_resource_variables = True
    return [use.op for use in report.ops_report(converter.convert()).unsupported()]


def _activation(function):
    return _VECTOR, [layers.Dense(4, activation=function)]


def _image(*hidden):
    return _IMAGE, [layers.Dense(3), *hidden]


def _patches(x):
    return [x[:, i : i + 10, j : j + 10, :] for i in range(3) for j in range(3)]


def _blocks(reduce):
    return layers.Lambda(lambda x: reduce(tf.reshape(x, [-1, 6, 2, 6, 2, 3]), axis=[2, 4]))


class _DepthwiseSum(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight("kernel", [3, 9])

    def call(self, x):
        return tf.reduce_sum(tf.stack(_patches(x), -1) * self.kernel, -1)


def _normalize(x):
    mean = tf.reduce_mean(x, -1, keepdims=True)
    variance = tf.reduce_mean(tf.square(x - mean), -1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 1e-3)


def _one_hot(from_logits):
    def loss(label, prediction):
        one_hot = tf.one_hot(tf.reshape(label, [-1]), 4)
        return tf.reduce_mean(losses.categorical_crossentropy(one_hot, prediction, from_logits=from_logits))

    return loss


def _classifier(activation, loss):
    return _VECTOR, [layers.Dense(4, activation=activation)], loss


_WARNED = {
    "SparseSoftmaxCrossEntropyWithLogits": _classifier("softmax", losses.SparseCategoricalCrossentropy()),
    "Conv2DBackpropFilter": _image(layers.Conv2D(3, 3)),
    "DepthwiseConv2dNativeBackpropFilter": _image(layers.DepthwiseConv2D(3)),
    "MaxPoolGrad": _image(layers.MaxPool2D()),
    "AvgPoolGrad": _image(layers.AveragePooling2D()),
    "FusedBatchNormV3": _image(layers.BatchNormalization()),
    "EluGrad": _activation("elu"),
    "SeluGrad": _activation("selu"),
    "LeakyReluGrad": (_VECTOR, [layers.Dense(4), layers.LeakyReLU()]),
    "Relu6Grad": _activation(tf.nn.relu6),
    "Softsign": _activation("softsign"),
    "Erf": _activation("gelu"),
    "ResizeNearestNeighborGrad": _image(layers.UpSampling2D()),
    "TensorListReserve": (_SEQUENCE, [layers.LSTM(4)]),
}

_ADVISED = {
    "SparseSoftmaxCrossEntropyWithLogits": [_classifier("softmax", _one_hot(False)), _classifier(None, _one_hot(True))],
    "Conv2DBackpropFilter": [_image(layers.Lambda(lambda x: tf.concat(_patches(x), -1)), layers.Dense(3))],
    "DepthwiseConv2dNativeBackpropFilter": [_image(_DepthwiseSum())],
    "MaxPoolGrad": [_image(_blocks(tf.reduce_max)), _image(layers.GlobalMaxPool2D())],
    "AvgPoolGrad": [_image(_blocks(tf.reduce_mean)), _image(layers.GlobalAveragePooling2D())],
    "FusedBatchNormV3": [
        _image(layers.BatchNormalization(fused=False)),
        (_VECTOR, [layers.Dense(4), layers.Lambda(_normalize)]),
    ],
    "EluGrad": [_activation(lambda x: tf.maximum(x, 0.0) + tf.exp(tf.minimum(x, 0.0)) - 1.0), _activation("relu")],
    "SeluGrad": [_activation(lambda x: 1.0507 * (tf.maximum(x, 0.0) + 1.6733 * (tf.exp(tf.minimum(x, 0.0)) - 1.0)))],
    "LeakyReluGrad": [_activation(lambda x: tf.maximum(x, 0.2 * x))],
    "Relu6Grad": [_activation(lambda x: tf.minimum(tf.nn.relu(x), 6.0))],
    "Softsign": [_activation(lambda x: x / (1 + tf.abs(x)))],
    "Erf": [_activation(lambda x: tf.nn.gelu(x, approximate=True))],
    "ResizeNearestNeighborGrad": [_image(layers.Lambda(lambda x: tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)))],
    "TensorListReserve": [(_SEQUENCE, [layers.LSTM(4, unroll=True)]), (_SEQUENCE, [layers.GRU(4, unroll=True)])],
}


def main(names):
    result = {
        name: {"warned": _unsupported(*_WARNED[name]), "advised": [_unsupported(*model) for model in _ADVISED[name]]}
        for name in names
    }
    print(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
