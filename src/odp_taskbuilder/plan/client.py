"""The device's part of a plan (spec: plan.md, sections 4.7 and 5.4)."""

from __future__ import annotations

import dataclasses

import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder.config.spec import DatasetSpec
from odp_taskbuilder.learning import preprocessing
from odp_taskbuilder.plan import naming
from odp_taskbuilder.plan.external_dataset import external_dataset
from odp_taskbuilder.plan.files import restore, save
from odp_taskbuilder.plan.importing import import_computation
from odp_taskbuilder.proto import plan_pb2

_TARGET = "save_client_update_tensors"


@dataclasses.dataclass(frozen=True)
class DataSource:
    """What the device feeds into training: its examples, parsed and batched."""

    parser: preprocessing.ExampleParser
    dataset: DatasetSpec
    selector: plan_pb2.ExampleSelector


def client_graph(
    work: tff.Computation, broadcast_type: tff.Type, update_type: tff.Type, source: DataSource
) -> tuple[tf.compat.v1.GraphDef, plan_pb2.ClientPhase]:
    """Writes the graph that a device runs, and the message that says how.

    The device feeds three strings: the token of its data, the path of the checkpoint that the server sent, and the path to write
    its update to.

    Args:
      work: (dataset, broadcast) -> result, whose first tensors are those of `update_type`.
      broadcast_type: what the checkpoint holds, below `client/`.
      update_type: what the update holds, below `update/`.
    """
    with tf.Graph().as_default() as graph:
        input_filepath = tf.compat.v1.placeholder(tf.string, [], "input_filepath")
        broadcast = restore(input_filepath, naming.leaves(broadcast_type, naming.CLIENT))
        token = tf.compat.v1.placeholder(tf.string, [], "data_token")
        examples = external_dataset(token, source.selector.SerializeToString(deterministic=True))
        batches = preprocessing.batches(examples, source.parser, source.dataset)
        results = import_computation(work, [batches, *broadcast], name="work", session_token=token)
        output_filepath = tf.compat.v1.placeholder(tf.string, [], "output_filepath")
        update = naming.leaves(update_type, naming.UPDATE)
        save(output_filepath, update, results[: len(update)], _TARGET)

    phase = plan_pb2.ClientPhase()
    spec = phase.tensorflow_spec
    spec.dataset_token_tensor_name = token.name
    for path in (input_filepath, output_filepath):
        spec.input_tensor_specs.append(tf.TensorSpec([], tf.string, path.name).experimental_as_proto())
    spec.target_node_names.append(_TARGET)
    # Present even when empty: the device's job worker takes the selector from here.
    spec.example_selector.CopyFrom(source.selector)
    phase.federated_compute.input_filepath_tensor_name = input_filepath.name
    phase.federated_compute.output_filepath_tensor_name = output_filepath.name
    return graph.as_graph_def(), phase
