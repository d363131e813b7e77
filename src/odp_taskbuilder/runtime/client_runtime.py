"""Executing a ClientOnlyPlan as a device does: the plan's own flatbuffer in TensorFlow Lite's stock interpreter.

Devices link a kernel for ExternalDataset, the op that yields their examples; TensorFlow's wheel does not. That one node is
replaced by a TFRecordDataset (and its options), so that the data token becomes the path of a TFRecord file of serialized
`tf.train.Example`s (spec: plan.md, section 12.3). Everything else runs as it would be deployed.
"""

from __future__ import annotations

import copy
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Union

import flatbuffers
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import dataset_options_pb2, node_def_pb2, types_pb2
from tensorflow.lite.python import schema_py_generated as schema

from odp_taskbuilder import errors
from odp_taskbuilder.proto import plan_pb2
from odp_taskbuilder.runtime import graph_edits, plan_files, seeded_draws

Path = Union[str, "os.PathLike[str]"]

_EXTERNAL_DATASET = b"FlexExternalDataset"
# The second part of the loss in a client's metrics (learning/metrics.py).
_NUM_EXAMPLES = "/loss/1"
_READ_BUFFER_BYTES = 262144
# A constant TFLite string tensor that holds one empty string: number of strings, then offsets of its begin and end.
_EMPTY_STRING = np.array([1, 12, 12], np.int32)

# Destroying an interpreter that ran an iterator crashes the process: those that were made stay until it ends.
_kept_alive: list[tf.lite.Interpreter] = []


class ClientRuntime:
    """One device: `run` trains (or evaluates) on one client's examples. Building costs about 50 ms, a run a few milliseconds.

    Args:
      seed_draws: make what the plan draws (dropout) a function of a seed that each `run` is given. Otherwise it is drawn from the
        system's random numbers, as on a device.
      watched: tensors of the plan's main subgraph, by index, whose values `watched_values` tells after a run.

    Raises:
      errors.ArtifactError: the plan is none that a device would run.
    """

    def __init__(self, plan: plan_pb2.ClientOnlyPlan, *, seed_draws: bool = False, watched: Sequence[int] = ()):
        spec = plan.phase.tensorflow_spec
        router = plan.phase.federated_compute
        self._token = spec.dataset_token_tensor_name
        self._input = router.input_filepath_tensor_name
        self._output = router.output_filepath_tensor_name
        model = _model_reading_tfrecords(plan.tflite_graph)
        self._seeds_draws = seed_draws and seeded_draws.draws(model)
        if self._seeds_draws:
            seeded_draws.seed_draws(model)
        self._watched = tuple(watched)
        main = model.subgraphs[0]
        # The memory of other tensors is used again before a run ends.
        main.outputs = [*([] if main.outputs is None else main.outputs), *self._watched]
        try:
            self._interpreter = tf.lite.Interpreter(
                model_content=_packed(model),
                # The default delegate (XNNPACK) is not what devices use beside flex ops; flex ops work without it.
                experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
                num_threads=1,
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise errors.ArtifactError(f"TensorFlow Lite cannot load the client plan's graph: {error}") from error
        _kept_alive.append(self._interpreter)
        self._indices = {detail["name"]: detail["index"] for detail in self._interpreter.get_input_details()}
        # The checks of the device's engine.
        expected = {self._token, *(tensor.name for tensor in spec.input_tensor_specs)}
        if set(self._indices) - {seeded_draws.STATE} != expected or {self._input, self._output} - {""} != expected - {self._token}:
            raise errors.ArtifactError(
                f"The client plan feeds {sorted(expected)}, its graph takes {sorted(self._indices)}: a device would refuse it."
            )

    def run(self, examples: Path, checkpoint: Path, update: Path, *, draws_seed: int = 0) -> None:
        """Executes the plan once.

        Args:
          examples: TFRecord file of serialized `tf.train.Example`s.
          checkpoint: what the server sent.
          update: file to write the client's update to.
          draws_seed: 64 bits; of use with `seed_draws` only.

        Raises:
          errors.ArtifactError: an example lacks a feature of the plan or has another shape, or a file is not what it should be.
          errors.StorageError: there is no space for the update.
        """
        for name, path in ((self._token, examples), (self._input, checkpoint), (self._output, update)):
            if name:
                # Strings go in as numpy byte strings; objects would be read as garbage.
                self._interpreter.set_tensor(self._indices[name], np.array(os.fspath(path).encode()))
        if self._seeds_draws:
            self._interpreter.set_tensor(self._indices[seeded_draws.STATE], seeded_draws.state_of(draws_seed))
        try:
            self._interpreter.invoke()
        except UnicodeDecodeError as error:
            # TensorFlow quotes the record that it cannot parse, and pybind cannot make text of it.
            raise errors.ArtifactError(f"The client plan failed on {examples}: a record is no tf.train.Example.") from error
        except RuntimeError as error:
            if "No space left on device" in str(error):
                raise errors.StorageError(f"Cannot write {update}: no space left on device.") from error
            raise errors.ArtifactError(f"The client plan failed on {examples}: {_reason(error)}") from error

    def watched_values(self) -> list[np.ndarray]:
        """What the watched tensors were in the last run, in their order."""
        return [self._interpreter.get_tensor(index) for index in self._watched]


def graph_reading_tfrecords(tflite_graph: bytes) -> bytes:
    """A client plan's flatbuffer as `ClientRuntime` executes it, for interpreters elsewhere: its data token is the path of a TFRecord file.

    Raises:
      errors.ArtifactError: it has no ExternalDataset.
    """
    return _packed(_model_reading_tfrecords(tflite_graph))


def sent_zeros(update: Mapping[str, np.ndarray]) -> bool:
    """Whether a client that has examples reported nothing but zeros (learning/client_work.py): its metrics count no example.

    Args:
      update: its tensors, by name.
    """
    counts = [value for name, value in update.items() if name.endswith(_NUM_EXAMPLES)]
    return bool(counts) and not counts[0].any()


def load_client_only_plan(path: Path) -> plan_pb2.ClientOnlyPlan:
    """Reads a ClientOnlyPlan from a file.

    Raises:
      errors.StorageError: it cannot be read.
      errors.ArtifactError: it is none.
    """
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise errors.StorageError(f"Cannot read {path}: {error.strerror}.") from error
    return plan_files.parse_client_only_plan(content, pathlib.Path(path))


def _reason(error: RuntimeError) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else "TensorFlow Lite gives no reason"


def _packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _model_reading_tfrecords(tflite_graph: bytes) -> Any:
    """A ModelT whose ExternalDataset is replaced. Raises ArtifactError if there is none."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tflite_graph, 0))
    codes = [code.customCode for code in model.operatorCodes]
    if _EXTERNAL_DATASET not in codes:
        raise errors.ArtifactError("The client plan's graph has no ExternalDataset: it cannot read a device's examples.")
    external = codes.index(_EXTERNAL_DATASET)
    for subgraph in model.subgraphs:
        for position, operator in enumerate(subgraph.operators):
            if operator.opcodeIndex == external:
                compression = graph_edits.add_constant(model, subgraph, schema.TensorType.STRING, _EMPTY_STRING)
                buffer_size = graph_edits.add_constant(model, subgraph, schema.TensorType.INT64, np.array([_READ_BUFFER_BYTES], np.int64))
                subgraph.tensors.append(copy.copy(subgraph.tensors[operator.outputs[0]]))
                records = len(subgraph.tensors) - 1
                source = [operator.inputs[0], compression, buffer_size]
                subgraph.operators[position : position + 1] = [
                    graph_edits.flex_operator(model, _tfrecord_node(), source, [records]),
                    graph_edits.flex_operator(model, _options_node(), [records], operator.outputs),
                ]
                break
    return model


def _tfrecord_node() -> node_def_pb2.NodeDef:
    node_def = node_def_pb2.NodeDef(op="TFRecordDataset", input=["", "", ""])
    node_def.attr["metadata"].s = b""
    return node_def


def _options_node() -> node_def_pb2.NodeDef:
    """Switches tf.data's rewriting of the pipeline off: on a handful of examples it costs more than it saves, a third of a
    whole run."""
    options = dataset_options_pb2.Options()
    options.optimization_options.apply_default_optimizations = False
    options.autotune_options.enabled = False
    node_def = node_def_pb2.NodeDef(op="OptionsDataset", input=[""])
    node_def.attr["serialized_options"].s = options.SerializeToString()
    node_def.attr["output_types"].list.type.append(types_pb2.DT_STRING)
    node_def.attr["output_shapes"].list.shape.add()
    node_def.attr["metadata"].s = b""
    return node_def
