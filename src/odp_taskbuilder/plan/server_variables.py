"""Variables of server graphs, and the ops that store and load them (spec: plan.md, sections 3.2 and 4.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf
import tensorflow_federated as tff
from tensorflow.core.protobuf import saver_pb2

from odp_taskbuilder.plan import naming


def create_variables(tff_type: tff.Type, prefix: str) -> list[tf.Variable]:
    """One resource variable for each tensor of `tff_type`, named below `prefix`; zero, empty or false at first.

    Where the type leaves a size open, or says 0, the variable takes values of any size.
    """
    return [_create_variable(leaf) for leaf in naming.leaves(tff_type, prefix)]


def _create_variable(leaf: naming.Leaf) -> tf.Variable:
    # tf.zeros becomes a Fill of two scalars: the zeros of a large variable stay out of the graph.
    return tf.Variable(
        lambda: tf.zeros(leaf.zero_shape, leaf.dtype),
        shape=tf.TensorShape([size or None for size in leaf.shape]),
        dtype=leaf.dtype,
        name=leaf.name,
        trainable=False,
    )


def leaf_name(variable: tf.Variable) -> str:
    """The checkpoint name of a variable from `create_variables`."""
    return variable.name[: -len(":0")]


def read_all(variables: Iterable[tf.Variable]) -> list[tf.Tensor]:
    return [variable.read_value() for variable in variables]


def assign_all(
    variables: Sequence[tf.Variable], values: Sequence[tf.Tensor], *, after: Sequence[tf.Tensor] = ()
) -> tf.Operation:
    """One op that assigns every value to its variable, none before all of `after` are computed.

    `after` takes the reads of the variables that are assigned: a value that does not depend on its variable could otherwise be
    assigned before the old one is read.
    """
    with tf.control_dependencies(list(after)):
        # The raw op accepts any shape, which variables of open size need.
        return tf.group(
            *(tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value) for variable, value in zip(variables, values))
        )


def add_saver(scope: str, variables: Sequence[tf.Variable], *, also_saved: Sequence[tf.Variable] = ()) -> saver_pb2.SaverDef:
    """Adds ops that store and load variables as one V1 checkpoint file, and returns their description.

    Args:
      scope: nodes are `<scope>/Const` (the file's name), `<scope>/control_dependency` (storing), `<scope>/restore_all`.
      variables: stored and loaded, each under its name.
      also_saved: stored beside them, and not asked for when loading.
    """
    restored = sorted(variables, key=lambda variable: variable.name)
    saved = sorted([*variables, *also_saved], key=lambda variable: variable.name)
    with tf.name_scope(scope):
        filename = tf.compat.v1.placeholder_with_default("", [], name="Const")
        save = tf.raw_ops.SaveSlices(
            filename=filename,
            tensor_names=[leaf_name(variable) for variable in saved],
            shapes_and_slices=[""] * len(saved),
            data=read_all(saved),
            name="save",
        )
        with tf.control_dependencies([save]):
            stored = tf.identity(filename, name="control_dependency")
        values = tf.raw_ops.RestoreV2(
            prefix=filename,
            tensor_names=[leaf_name(variable) for variable in restored],
            shape_and_slices=[""] * len(restored),
            dtypes=[variable.dtype for variable in restored],
        )
        with tf.control_dependencies([assign_all(restored, values)]):
            loaded = tf.no_op(name="restore_all")
    return saver_pb2.SaverDef(
        filename_tensor_name=filename.name,
        save_tensor_name=stored.name,
        restore_op_name=loaded.name,
        max_to_keep=5,
        keep_checkpoint_every_n_hours=10000,
        version=saver_pb2.SaverDef.V1,
    )
