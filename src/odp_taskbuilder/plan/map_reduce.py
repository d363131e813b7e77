"""The server's part of a plan in MapReduce form (spec: plan.md, section 4).

One stateful graph: aggregators sum client updates into `intermediate_update/` variables and store them, the model updater merges
those into `aggregated_update/` variables, applies them to the `server/` state and stores that.
"""

from __future__ import annotations

import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder import errors
from odp_taskbuilder.plan import naming
from odp_taskbuilder.plan.importing import import_computation, versioned_graph_def
from odp_taskbuilder.plan.server_variables import add_saver, assign_all, create_variables, leaf_name, read_all
from odp_taskbuilder.proto import plan_pb2

_SESSION_TOKEN = "write_client_session_token"


def server_plan(form: tff.backends.mapreduce.MapReduceForm) -> plan_pb2.Plan:
    """Writes the server graph for `form`, with the messages that say what to run in it.

    Returns:
      A Plan with `server_savepoint`, `server_graph_bytes`, `version` and one phase that has a `server_phase`.

    Raises:
      errors.ModelError: the process asks for secure aggregation, which the server does not run.
    """
    simple_update_type, *secure_types = _elements(form.work.type_signature.result)
    if any(naming.leaves(secure_type, naming.UPDATE) for secure_type in secure_types):
        raise errors.ModelError(
            "The learning process uses secure aggregation, which on-device personalization servers do not run."
        )

    with tf.Graph().as_default() as graph:
        state = create_variables(form.prepare.type_signature.parameter, naming.SERVER)
        metrics = create_variables(metrics_type(form.update.type_signature.result[1]), naming.METRICS)
        client = create_variables(form.prepare.type_signature.result, naming.CLIENT)
        # The accumulators' type is one of four: the other three belong to secure aggregation.
        accumulator_type = tff.types.to_type([form.zero.type_signature.result])
        intermediate = create_variables(accumulator_type, naming.INTERMEDIATE_UPDATE)
        aggregated = create_variables(accumulator_type, naming.AGGREGATED_UPDATE)
        update = create_variables(simple_update_type, naming.UPDATE)

        plan = plan_pb2.Plan(version=1)
        plan.server_savepoint.CopyFrom(_server_savepoint(state, metrics))
        phase = plan.phase.add().server_phase
        phase.phase_init_op = _clear(form, intermediate, aggregated)
        phase.write_client_init.CopyFrom(_write_client_checkpoint(form, state, client))
        phase.read_update.CopyFrom(_read_update(update))
        phase.aggregate_into_accumulators_op = _accumulate(form, intermediate, update)
        intermediate_saver = add_saver("intermediate_update_savepoint", intermediate)
        phase.write_intermediate_update.saver_def.CopyFrom(intermediate_saver)
        phase.read_intermediate_update.saver_def.CopyFrom(intermediate_saver)
        phase.intermediate_aggregate_into_accumulators_op = _merge(form, aggregated, intermediate)
        phase.write_accumulators.saver_def.CopyFrom(add_saver("aggregated_update_savepoint", aggregated))
        phase.read_aggregated_update.before_restore_op = tf.no_op(name="read_secure_sums").name
        phase.read_aggregated_update.after_restore_op = tf.no_op(name="add_secure_sums").name
        phase.apply_aggregrated_updates_op = _apply(form, state, metrics, aggregated)
        for variable in metrics:
            published = naming.SERVER + leaf_name(variable)[len(naming.METRICS) :]
            phase.metrics.add(variable_name=variable.read_value().name, stat_name=published)
    plan.server_graph_bytes.Pack(versioned_graph_def(graph), deterministic=True)
    return plan


def metrics_type(result_type: tff.Type) -> tff.Type:
    """The type whose leaves are a round's metrics: a bare tensor is wrapped, so that it has a name of its own."""
    return tff.types.to_type([result_type]) if isinstance(result_type, tff.TensorType) else result_type


def _elements(struct_type: tff.StructType) -> list[tff.Type]:
    return [element for _, element in tff.structure.iter_elements(struct_type)]


def _server_savepoint(state: list[tf.Variable], metrics: list[tf.Variable]) -> plan_pb2.CheckpointOp:
    # A new server checkpoint holds the round's metrics too. They are not asked for when loading: the initial checkpoint has
    # none, and the evaluation task reads training checkpoints, whose metrics are others.
    return plan_pb2.CheckpointOp(
        saver_def=add_saver("server_savepoint", state, also_saved=metrics),
        before_restore_op=_initialize([*state, *metrics], "initialize_server_state_and_non_state_vars"),
    )


def _initialize(variables: list[tf.Variable], name: str) -> str:
    return tf.group(*(variable.initializer for variable in variables), name=name).name


def _clear(form: tff.backends.mapreduce.MapReduceForm, intermediate: list[tf.Variable], aggregated: list[tf.Variable]) -> str:
    # Assigning also initialises, which nobody else does for an aggregator: it never loads a server checkpoint.
    zero = import_computation(form.zero, name="zero")
    return tf.group(assign_all(intermediate, zero), assign_all(aggregated, zero), name="clear_accumulators").name


def _write_client_checkpoint(
    form: tff.backends.mapreduce.MapReduceForm, state: list[tf.Variable], client: list[tf.Variable]
) -> plan_pb2.CheckpointOp:
    session_token = tf.compat.v1.placeholder_with_default("", [], name=_SESSION_TOKEN)
    broadcast = import_computation(form.prepare, read_all(state), name="prepare", session_token=session_token)
    return plan_pb2.CheckpointOp(
        before_save_op=assign_all(client, broadcast).name,
        saver_def=add_saver("client_savepoint", client),
        session_token_tensor_name=session_token.name,
    )


def _read_update(update: list[tf.Variable]) -> plan_pb2.CheckpointOp:
    return plan_pb2.CheckpointOp(
        saver_def=add_saver("update_savepoint", update), before_restore_op=_initialize(update, "initialize_update_vars")
    )


def _accumulate(form: tff.backends.mapreduce.MapReduceForm, intermediate: list[tf.Variable], update: list[tf.Variable]) -> str:
    values = read_all([*intermediate, *update])
    return assign_all(intermediate, import_computation(form.accumulate, values, name="accumulate"), after=values).name


def _merge(form: tff.backends.mapreduce.MapReduceForm, aggregated: list[tf.Variable], intermediate: list[tf.Variable]) -> str:
    values = read_all([*aggregated, *intermediate])
    merged = import_computation(form.merge, values, name="merge")
    # The server also reduces intermediate updates into one another and stores the result with write_intermediate_update. Were
    # only `aggregated_update/` assigned, that file would hold the last input instead of the sum (spec: plan.md, section 4.6).
    return tf.group(
        assign_all(aggregated, merged, after=values),
        assign_all(intermediate, merged, after=values),
        name="merge_into_accumulators",
    ).name


def _apply(
    form: tff.backends.mapreduce.MapReduceForm,
    state: list[tf.Variable],
    metrics: list[tf.Variable],
    aggregated: list[tf.Variable],
) -> str:
    values = read_all([*state, *aggregated])
    report = import_computation(form.report, values[len(state) :], name="report")
    results = import_computation(form.update, [*values[: len(state)], *report], name="update_state")
    return assign_all([*state, *metrics], results, after=values).name
