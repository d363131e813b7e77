"""The server's part of a plan in DistributeAggregate form (spec: plan.md, section 5).

Two stateless graphs that read and write files, `prepare` before the clients and `result` after them, and messages that tell the native
aggregation core what to do with each tensor of the clients' updates.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder import errors
from odp_taskbuilder.plan import naming
from odp_taskbuilder.plan.files import restore, save
from odp_taskbuilder.plan.importing import import_computation, versioned_graph_def
from odp_taskbuilder.plan.map_reduce import metrics_type
from odp_taskbuilder.plan.optimize import without_optimization
from odp_taskbuilder.proto import plan_pb2

_FEDERATED_SUM = "federated_sum"
# What the server's aggregation core adds up.
_SUMMABLE = (tf.float32, tf.float64, tf.int32, tf.int64, tf.uint64)


def extract_tensorflow(component: tff.Computation) -> tff.Computation:
    """The one block of TensorFlow that a component of a DistributeAggregateForm amounts to."""
    block = tff.backends.mapreduce.consolidate_and_extract_local_processing(
        component.to_building_block(), without_optimization()
    )
    return tff.framework.ConcreteComputation.from_building_block(block)


def server_plan(form: tff.backends.mapreduce.DistributeAggregateForm) -> plan_pb2.Plan:
    """Writes both server graphs and the aggregations for `form`.

    Returns:
      A Plan with `server_graph_prepare_bytes`, `server_graph_result_bytes`, `version` and one phase that has a `server_phase_v2`.

    Raises:
      errors.ModelError: the process needs an aggregation that servers lack.
    """
    plan = plan_pb2.Plan(version=1)
    phase = plan.phase.add().server_phase_v2
    phase.aggregations.extend(_aggregations(form))
    graph = _prepare_graph(extract_tensorflow(form.server_prepare), phase)
    plan.server_graph_prepare_bytes.Pack(versioned_graph_def(graph), deterministic=True)
    graph = _result_graph(extract_tensorflow(form.server_result), phase)
    plan.server_graph_result_bytes.Pack(versioned_graph_def(graph), deterministic=True)
    return plan


def _prepare_graph(prepare: tff.Computation, phase: plan_pb2.ServerPhaseV2) -> tf.Graph:
    """state file -> file for the devices, file with what `result` needs beside the aggregate."""
    state_type = prepare.type_signature.parameter
    broadcast_type, temporary_type = (element for _, element in tff.structure.iter_elements(prepare.type_signature.result))
    spec = phase.tensorflow_spec_prepare
    with tf.Graph().as_default() as graph:
        state_path = _path(spec, "server_state_input_filepath")
        client_path = _path(spec, "server_prepare_output_filepath")
        temporary_path = _path(spec, "server_intermediate_state_output_filepath")
        results = import_computation(
            prepare, restore(state_path, naming.leaves(state_type, naming.SERVER)), name="server_prepare"
        )
        broadcast = naming.leaves(broadcast_type, naming.CLIENT)
        temporary = naming.leaves(temporary_type, naming.INTERMEDIATE_STATE)
        if broadcast:
            spec.target_node_names.append(
                save(client_path, broadcast, results[: len(broadcast)], "save_prepared_values_tensors")
            )
        if temporary:
            name = "save_intermediate_state_values_tensors"
            spec.target_node_names.append(save(temporary_path, temporary, results[len(broadcast) :], name))
    router = phase.prepare_router
    router.prepare_server_state_input_filepath_tensor_name = state_path.name
    router.prepare_output_filepath_tensor_name = client_path.name
    router.prepare_intermediate_state_output_filepath_tensor_name = temporary_path.name
    return graph


def _result_graph(result: tff.Computation, phase: plan_pb2.ServerPhaseV2) -> tf.Graph:
    """intermediate state file, aggregate file -> new state file, metrics."""
    temporary_type, aggregate_type = (element for _, element in tff.structure.iter_elements(result.type_signature.parameter))
    state_type, round_metrics_type = (element for _, element in tff.structure.iter_elements(result.type_signature.result))
    spec = phase.tensorflow_spec_result
    with tf.Graph().as_default() as graph:
        temporary_path = _path(spec, "server_intermediate_state_input_filepath")
        aggregate_path = _path(spec, "aggregate_result_input_filepath")
        state_path = _path(spec, "server_state_output_filepath")
        arguments = restore(temporary_path, naming.leaves(temporary_type, naming.INTERMEDIATE_STATE))
        arguments += restore(aggregate_path, naming.leaves(tff.types.to_type([aggregate_type]), naming.INTERMEDIATE_UPDATE))
        results = import_computation(result, arguments, name="server_result")
        state = naming.leaves(state_type, naming.SERVER)
        metric_values = results[len(state) :]
        for leaf, value in zip(naming.leaves(metrics_type(round_metrics_type), naming.SERVER), metric_values):
            # The published name of the metric is this node's name.
            named = tf.identity(value, name=leaf.name)
            spec.output_tensor_specs.append(_spec(named.name, leaf))
        saved = state + naming.leaves(metrics_type(round_metrics_type), naming.METRICS)
        spec.target_node_names.append(save(state_path, saved, results, "save_server_state_tensors"))
    router = phase.result_router
    router.result_intermediate_state_input_filepath_tensor_name = temporary_path.name
    router.result_aggregate_result_input_filepath_tensor_name = aggregate_path.name
    router.result_server_state_output_filepath_tensor_name = state_path.name
    return graph


def _path(spec: plan_pb2.TensorflowSpec, name: str) -> tf.Tensor:
    placeholder = tf.compat.v1.placeholder(tf.string, [], name)
    spec.input_tensor_specs.append(tf.TensorSpec([], tf.string, placeholder.name).experimental_as_proto())
    return placeholder


def _spec(name: str, leaf: naming.Leaf) -> Any:
    return tf.TensorSpec(leaf.shape, leaf.dtype, name).experimental_as_proto()


def _aggregations(form: tff.backends.mapreduce.DistributeAggregateForm) -> list[plan_pb2.ServerAggregationConfig]:
    """One message for each tensor that the aggregation core computes, in the order of the intrinsic calls."""
    building_blocks = tff.framework
    aggregation = form.client_to_server_aggregation.to_building_block()
    result_type = tff.types.to_type([form.client_to_server_aggregation.type_signature.result])
    outputs = iter(naming.leaves(result_type, naming.INTERMEDIATE_UPDATE))
    configs = []
    for _, call in aggregation.result.locals:
        intrinsic = call.function
        if not isinstance(intrinsic, building_blocks.Intrinsic) or intrinsic.uri != _FEDERATED_SUM:
            uri = getattr(intrinsic, "uri", type(intrinsic).__name__)
            raise errors.ModelError(
                f"The learning process uses {uri}, which servers lack in DistributeAggregate form; they have {_FEDERATED_SUM}."
            )
        inputs = _argument_leaves(call.argument, aggregation.parameter_name)
        for leaf, output in zip(inputs, itertools.islice(outputs, len(inputs))):
            if not leaf.name.startswith(f"{naming.UPDATE}/") or leaf.dtype not in _SUMMABLE:
                raise errors.ModelError(
                    f"The server cannot sum {leaf.name} ({leaf.dtype.name}); it sums numbers of client updates."
                )
            config = plan_pb2.ServerAggregationConfig(intrinsic_uri=_FEDERATED_SUM, output_tensors=[_spec(output.name, output)])
            config.intrinsic_args.add().input_tensor.CopyFrom(_spec(leaf.name, leaf))
            configs.append(config)
    return configs


def _argument_leaves(argument: tff.framework.ComputationBuildingBlock, parameter: str) -> list[naming.Leaf]:
    """The tensors of an argument: a selection from the parameter <temporary state, client update>, or a struct of such."""
    if isinstance(argument, tff.framework.Struct):
        return [leaf for _, element in tff.structure.iter_elements(argument) for leaf in _argument_leaves(element, parameter)]
    path = _selection_path(argument, parameter)
    prefix = naming.INTERMEDIATE_STATE if path[0] == 0 else naming.UPDATE
    return naming.leaves(argument.type_signature, "/".join([prefix, *map(str, path[1:])]))


def _selection_path(block: tff.framework.ComputationBuildingBlock, parameter: str) -> Sequence[int]:
    path: list[int] = []
    while isinstance(block, tff.framework.Selection):
        path.insert(0, block.as_index() if callable(getattr(block, "as_index", None)) else block.index)
        block = block.source
    if not isinstance(block, tff.framework.Reference) or block.name != parameter or not path:
        raise errors.ModelError(
            f"The learning process aggregates {block.compact_representation()}, which is not part of a client's update."
        )
    return path
