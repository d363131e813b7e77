"""Converting the client graph into the TFLite flatbuffer that devices execute (spec: plan.md, section 7.3)."""

from __future__ import annotations

import logging

import tensorflow as tf

from odp_taskbuilder import errors
from odp_taskbuilder.proto import plan_pb2

# With functions that are called from several places conversion fails with this sentence; giving each call its own copy cures it.
_SHARED_FUNCTION = "'tf.StatefulPartitionedCall' op is neither a custom op nor a flex op"


def convert(graph_def: tf.compat.v1.GraphDef, spec: plan_pb2.TensorflowSpec) -> bytes:
    """Converts a client graph. The names of the graph's nodes survive as names of tensors (`compaction.compact` drops them).

    Raises:
      errors.ModelError: the converter refuses the graph; quotes its message.
    """
    try:
        return _convert(graph_def, spec, one_use=False)
    except Exception as error:  # noqa: BLE001 - the converter has no exception class of its own.
        if _SHARED_FUNCTION not in str(error):
            raise _conversion_error(error) from error
    try:
        return _convert(graph_def, spec, one_use=True)
    except Exception as error:  # noqa: BLE001
        raise _conversion_error(error) from error


def _convert(graph_def: tf.compat.v1.GraphDef, spec: plan_pb2.TensorflowSpec, *, one_use: bool) -> bytes:
    # The device matches the flatbuffer's inputs with the plan's names byte for byte, `:0` included.
    inputs: list[tuple[str, list[int]]] = [(spec.dataset_token_tensor_name, [])]
    inputs += [(tensor.name, [dim.size for dim in tensor.shape.dim]) for tensor in spec.input_tensor_specs]
    converter = tf.compat.v1.lite.TFLiteConverter(
        graph_def,
        input_tensors=None,
        output_tensors=None,
        input_arrays_with_shape=inputs,
        output_arrays=[tensor.name for tensor in spec.output_tensor_specs],
    )
    # The graph's only effect is a node without outputs.
    converter._control_output_arrays = list(spec.target_node_names)
    # Zeros of the model's size become a FILL.
    converter._experimental_unfold_large_splat_constant = True
    converter.exclude_conversion_metadata = True
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    converter._experimental_allow_all_select_tf_ops = True
    converter._experimental_guarantee_all_funcs_one_use = one_use
    converter._experimental_preserve_assert_op = True
    converter.experimental_enable_resource_variables = True
    logger = tf.get_logger()
    level = logger.level
    # The converter reports every flex op as a warning; the ops report says it better.
    logger.setLevel(logging.ERROR)
    try:
        return converter.convert()
    finally:
        logger.setLevel(level)


def _conversion_error(error: Exception) -> errors.ModelError:
    return errors.ModelError(f"TensorFlow Lite cannot convert the client graph: {str(error).strip()}")
