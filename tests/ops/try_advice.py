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
_VECTOR, _SEQUENCE, _CLASSES = (8,), (5, 3), 4


def _unsupported(shape, hidden, loss=None, label=((1,), tf.int64)):
    """Ops that phones lack, of the gradient of a model with the hidden layers; with a loss, of `label`, there are no others."""
    ends = [layers.Flatten(), layers.Dense(4)] if loss is None else []
    model = tf.keras.Sequential([layers.InputLayer(shape), *hidden, *ends])
    label_shape, label_dtype = label

    @tf.function(input_signature=[tf.TensorSpec([None, *shape], tf.float32), tf.TensorSpec([None, *label_shape], label_dtype)])
    def gradient(x, label):
        with tf.GradientTape() as tape:
            prediction = model(x, training=True)
            value = tf.reduce_sum(tf.square(prediction)) if loss is None else tf.reduce_mean(loss(label, prediction))
        return tape.gradient(value, model.trainable_variables)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([gradient.get_concrete_function()], model)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    converter._experimental_allow_all_select_tf_ops = True
    converter.experimental_enable_resource_variables = True
    return [use.op for use in report.ops_report(converter.convert()).unsupported()]


def _one_hot(from_logits):
    def loss(label, prediction):
        one_hot = tf.one_hot(tf.reshape(label, tf.shape(prediction)[:-1]), _CLASSES)
        return losses.categorical_crossentropy(one_hot, prediction, from_logits=from_logits)

    return loss


def _classifier(activation, loss):
    return _VECTOR, [layers.Dense(_CLASSES, activation=activation)], loss


def _tagger(loss):
    return _SEQUENCE, [layers.Dense(_CLASSES, activation="softmax")], loss, ((5,), tf.int64)


def _margin(label, prediction):
    return tf.reduce_mean(tf.maximum(1.0 - label * prediction, 0.0), -1)


def _scorer(loss):
    return _VECTOR, [layers.Dense(1)], loss, ((1,), tf.float32)


# Models as they are, without what a build replaces.
_WARNED = {
    "SparseSoftmaxCrossEntropyWithLogits": _classifier("softmax", losses.SparseCategoricalCrossentropy()),
    "TensorListReserve": (_SEQUENCE, [layers.LSTM(4)]),
    "OptionalFromValue": _scorer(losses.Hinge()),
}

_ADVISED = {
    "SparseSoftmaxCrossEntropyWithLogits": [
        _classifier("softmax", _one_hot(False)),
        _classifier(None, _one_hot(True)),
        _tagger(_one_hot(False)),
    ],
    "TensorListReserve": [(_SEQUENCE, [layers.LSTM(4, unroll=True)]), (_SEQUENCE, [layers.GRU(4, unroll=True)])],
    "OptionalFromValue": [_scorer(_margin), _scorer(lambda label, prediction: tf.square(_margin(label, prediction)))],
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
