"""The server state of iteration 0, tensor by tensor (spec: plan.md, section 8)."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Callable

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder.model.load import LoadedModel
from odp_taskbuilder.plan import naming
from odp_taskbuilder.plan.checkpoint import CheckpointTensor, write_checkpoint
from odp_taskbuilder.plan.importing import import_computation
from odp_taskbuilder.plan.optimize import without_optimization

_TRAINABLE = f"{naming.SERVER}/global_model_weights/trainable/"
_NON_TRAINABLE = f"{naming.SERVER}/global_model_weights/non_trainable/"


def training_checkpoint_writer(initialize: tff.Computation, model: LoadedModel) -> Callable[[pathlib.Path], None]:
    """A function that writes the initial checkpoint of a training task."""

    def write(path: pathlib.Path) -> None:
        with initial_state(initialize, model.trainable, model.non_trainable) as tensors, open(path, "wb") as file:
            write_checkpoint(file, tensors)

    return write


def zero_checkpoint_writer(state_type: tff.Type) -> Callable[[pathlib.Path], None]:
    """A function that writes the initial checkpoint of an evaluation task, which no server reads: zeros of the state's type."""

    def write(path: pathlib.Path) -> None:
        with open(path, "wb") as file:
            write_checkpoint(file, zero_state(state_type))

    return write


@contextlib.contextmanager
def initial_state(
    initialize: tff.Computation, trainable: Sequence[tf.Variable], non_trainable: Sequence[tf.Variable]
) -> Iterator[list[CheckpointTensor]]:
    """The result of `initialize`, with the model's weights in place of the zeros that the process was composed with.

    Values are computed when they are read, each alone: memory holds one tensor at a time. Those that depend on random numbers or the
    clock (the noise of tree aggregators) must fit each other and are computed in one run.
    """
    computation = tff.backends.mapreduce.get_state_initialization_computation(
        initialize, grappler_config=without_optimization()
    )
    variables = {f"{_TRAINABLE}{k}": variable for k, variable in enumerate(trainable)}
    variables.update({f"{_NON_TRAINABLE}{k}": variable for k, variable in enumerate(non_trainable)})
    leaves = naming.leaves(computation.type_signature.result, naming.SERVER)
    with tf.Graph().as_default() as graph:
        fetches = dict(zip((leaf.name for leaf in leaves), import_computation(computation, name="initialize")))
    # Not entered as a context: that would make its graph the default, in which variables cannot be read eagerly.
    with contextlib.closing(tf.compat.v1.Session(graph=graph)) as session:
        # Tensors whose size the type leaves open are those of the tree aggregators: few, and their size shows only in the value.
        random = {name: tensor for name, tensor in fetches.items() if name not in variables and _is_random(tensor)}
        values = session.run(random)
        tensors = []
        for leaf in leaves:
            if leaf.name in variables:
                read = variables[leaf.name].numpy
                shape = leaf.shape
            elif leaf.name in values:
                read = _constant(values[leaf.name])
                shape = np.shape(values[leaf.name])
            else:
                read = _fetch(session, fetches[leaf.name])
                shape = leaf.shape if None not in leaf.shape else np.shape(read())
            tensors.append(CheckpointTensor(leaf.name, leaf.dtype.as_datatype_enum, tuple(shape), read))
        yield tensors


def zero_state(state_type: tff.Type) -> list[CheckpointTensor]:
    """A state of `state_type` that is zero, empty or false throughout; open sizes are 0."""
    return [
        CheckpointTensor(leaf.name, leaf.dtype.as_datatype_enum, tuple(leaf.zero_shape), _zeros(leaf))
        for leaf in naming.leaves(state_type, naming.SERVER)
    ]


def _zeros(leaf: naming.Leaf) -> Callable[[], np.ndarray]:
    if leaf.dtype == tf.string:
        return lambda: np.full(leaf.zero_shape, b"", dtype=object)
    return lambda: np.zeros(leaf.zero_shape, leaf.dtype.as_numpy_dtype)


def _constant(value: np.ndarray) -> Callable[[], np.ndarray]:
    return lambda: value


def _fetch(session: tf.compat.v1.Session, tensor: tf.Tensor) -> Callable[[], np.ndarray]:
    return lambda: session.run(tensor)


def _is_random(tensor: tf.Tensor) -> bool:
    """Whether a stateful op, such as a clock or a random generator, takes part in computing `tensor`."""
    seen, pending = set(), [tensor.op]
    while pending:
        operation = pending.pop()
        if operation in seen:
            continue
        seen.add(operation)
        if operation.op_def is not None and operation.op_def.is_stateful:
            return True
        pending.extend(source.op for source in operation.inputs)
        pending.extend(operation.control_inputs)
    return False
