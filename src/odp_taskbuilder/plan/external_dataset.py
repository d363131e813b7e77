"""The op through which a device's examples enter the client graph (spec: plan.md, sections 6.1 and 12.1).

Devices link its kernel; the wheel of TensorFlow does not know it. Graphs and the converter need its signature only.
"""

from __future__ import annotations

import threading

import tensorflow as tf
from tensorflow.lite.python import convert
from tensorflow.python.framework import op_def_registry

OP_NAME = "ExternalDataset"

_OP_DEF = (
    f'name: "{OP_NAME}" input_arg {{ name: "token" type: DT_STRING }} input_arg {{ name: "selector" type: DT_STRING }} '
    'output_arg { name: "handle" type: DT_VARIANT } is_stateful: true'
)
_lock = threading.Lock()


def external_dataset(token: tf.Tensor, selector: bytes) -> tf.Tensor:
    """A scalar variant tensor: a dataset of serialized `tf.train.Example`s.

    Args:
      token: scalar string; at run time the device's name for the data.
      selector: a serialized ExampleSelector; empty for the empty one.
    """
    _register()
    operation = tf.compat.v1.get_default_graph().create_op(
        OP_NAME, [token, tf.constant(selector, name="selector")], [tf.variant], name=OP_NAME
    )
    handle = operation.outputs[0]
    handle.set_shape([])
    return handle


def _register() -> None:
    # Registering twice, or beside a library that brings the op, aborts the process.
    with _lock:
        if op_def_registry.get(OP_NAME) is None:
            convert.register_custom_opdefs([_OP_DEF])
