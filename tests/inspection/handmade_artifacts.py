"""A complete set of artifacts, made by hand: small, and without TensorFlow.

One weight `w` float32[3, 2]. The client restores it, and saves it as its update; the server graph has the variables and nodes that
the plan names, but no edges between them: it is there to be read, not to be run.
"""

import importlib.util
import pathlib

import flatbuffers
import numpy as np
from flatbuffers import flexbuffers

from odp_taskbuilder.artifacts import artifact_set, directory
from odp_taskbuilder.plan import checkpoint
from odp_taskbuilder.proto import plan_pb2

# isort: split
from tensorflow.core.framework import graph_pb2, node_def_pb2, types_pb2

WEIGHT = (3, 2)
_FLOAT = types_pb2.DT_FLOAT


def save(folder, *, task="population_name: 'p'", report="# made by hand\n", config=(), **options):
    """Writes the artifacts of a training task, with their manifest."""
    plan = make_plan(**options)
    client_plan = plan_pb2.ClientOnlyPlan(phase=plan.phase[0].client_phase, tflite_graph=plan.client_tflite_graph_bytes)
    built = artifact_set.TaskArtifacts(plan.SerializeToString(), client_plan.SerializeToString(), write_checkpoint, task)
    artifacts = artifact_set.ArtifactSet(built, None, report)
    directory.save(artifacts, folder, form="MapReduce", inputs={"task_config": "0" * 64}, config=config)
    return pathlib.Path(folder)


def write_checkpoint(path, weight=None, clip=0.5):
    weight = np.arange(6, dtype=np.float32).reshape(WEIGHT) if weight is None else weight
    tensors = {
        "server/global_model_weights/trainable/0": weight,
        "server/aggregator/query_state/numerator_state/l2_norm_clip": np.float32(clip),
    }
    with open(path, "wb") as file:
        checkpoint.write_checkpoint(
            file,
            [
                checkpoint.CheckpointTensor(name, _FLOAT, np.shape(value), lambda value=value: value)
                for name, value in tensors.items()
            ],
        )


def make_plan(**options):
    """A Plan in MapReduce form."""
    plan = plan_pb2.Plan(version=1, client_tflite_graph_bytes=make_tflite(**options))
    phase = plan.phase.add()
    spec = phase.client_phase.tensorflow_spec
    spec.dataset_token_tensor_name = "data_token:0"
    spec.example_selector.SetInParent()
    spec.target_node_names.append("save")
    for name in ("input_filepath:0", "output_filepath:0"):
        spec.input_tensor_specs.add(name=name, dtype=types_pb2.DT_STRING).shape.SetInParent()
    router = phase.client_phase.federated_compute
    router.input_filepath_tensor_name, router.output_filepath_tensor_name = "input_filepath:0", "output_filepath:0"
    server = phase.server_phase
    server.phase_init_op = "init"
    server.aggregate_into_accumulators_op = "aggregate"
    server.intermediate_aggregate_into_accumulators_op = "merge"
    server.apply_aggregrated_updates_op = "apply"
    server.metrics.add(variable_name="loss:0", stat_name="server/loss")
    _saver(plan.server_savepoint, "server_savepoint")
    for name in ("write_client_init", "read_update", "write_intermediate_update", "read_intermediate_update"):
        _saver(getattr(server, name), name)
    plan.server_graph_bytes.Pack(_server_graph())
    return plan


def _saver(step, scope):
    saver = step.saver_def
    saver.filename_tensor_name = f"{scope}/Const:0"
    saver.save_tensor_name = f"{scope}/save:0"
    saver.restore_op_name = f"{scope}/restore"
    saver.version = saver.V1


def _server_graph():
    graph = graph_pb2.GraphDef()
    for name in ("init", "aggregate", "merge", "apply", "loss"):
        graph.node.add(name=name, op="NoOp")
    for scope in (
        "server_savepoint",
        "write_client_init",
        "read_update",
        "write_intermediate_update",
        "read_intermediate_update",
    ):
        for name in ("Const", "save", "restore"):
            graph.node.add(name=f"{scope}/{name}", op="NoOp")
    variables = {
        "server/global_model_weights/trainable/0": WEIGHT,
        "server/aggregator/query_state/numerator_state/l2_norm_clip": (),
        "client/0": WEIGHT,
        "update/0": WEIGHT,
    }
    for name, shape in variables.items():
        node = graph.node.add(name=name, op="VarHandleOp")
        node.attr["dtype"].type = _FLOAT
        node.attr["shape"].shape.SetInParent()
        for size in shape:
            node.attr["shape"].shape.dim.add(size=size)
    return graph


def tflite_schema():
    """The schema module of TensorFlow's wheel, which needs no TensorFlow."""
    wheel = pathlib.Path(importlib.util.find_spec("tensorflow").submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location("tflite_schema", wheel / "lite" / "python" / "schema_py_generated.py")
    schema = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(schema)
    return schema


def make_tflite(batch_size=7, extra_op=None, builtin="ADD", inputs=(0, 1, 2)):
    """A client graph: ExternalDataset, BatchDatasetV2, a builtin op, RestoreV2 and SaveSlices of one tensor."""
    schema = tflite_schema()
    model = schema.ModelT()
    model.version, model.description = 3, b"handmade"
    model.buffers, model.operatorCodes = [schema.BufferT()], []
    main = schema.SubGraphT()
    main.name, main.tensors, main.operators = b"main", [], []

    def tensor(name, type_, shape, constant=None):
        result = schema.TensorT()
        result.name, result.type, result.shape, result.hasRank, result.buffer = name, type_, np.array(shape, np.int32), True, 0
        if constant is not None:
            model.buffers.append(schema.BufferT())
            model.buffers[-1].data = np.frombuffer(constant, np.uint8)
            result.buffer = len(model.buffers) - 1
        main.tensors.append(result)
        return len(main.tensors) - 1

    def operator(inputs, outputs, op=None):
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, builtin) if op is None else schema.BuiltinOperator.CUSTOM
        # Codes beyond the old one-byte field have a placeholder there.
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.customCode = None if op is None else f"Flex{op}".encode()
        model.operatorCodes.append(code)
        result = schema.OperatorT()
        result.opcodeIndex = len(model.operatorCodes) - 1
        result.inputs, result.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        if op is not None:
            result.customOptions = np.frombuffer(flex_options(op), np.uint8)
        main.operators.append(result)

    types = schema.TensorType
    token, read, write = (tensor(f"{name}:0", types.STRING, []) for name in ("data_token", "input_filepath", "output_filepath"))
    selector = tensor("selector", types.STRING, [], _string(b""))
    dataset, batches = (tensor(name, types.VARIANT, []) for name in ("dataset", "batches"))
    size = tensor("batch_size", types.INT64, [], np.int64(batch_size).tobytes())
    operator([token, selector], [dataset], "ExternalDataset")
    operator([dataset, size], [batches], "BatchDatasetV2")
    slices = tensor("slices", types.STRING, [1], _string(b""))
    weight = tensor("weight", types.FLOAT32, WEIGHT)
    operator([read, tensor("restored", types.STRING, [1], _string(b"client/0")), slices], [weight], "RestoreV2")
    operator([weight, weight], [weight])
    if extra_op is not None:
        operator([weight], [weight], extra_op)
    operator([write, tensor("saved", types.STRING, [1], _string(b"update/0")), slices, weight], [], "SaveSlices")
    main.inputs, main.outputs = np.array(inputs, np.int32), np.array([], np.int32)
    model.subgraphs = [main]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def flex_options(op):
    """The custom options of a flex op."""
    builder = flexbuffers.Builder()
    with builder.Vector():
        builder.String(op)
        builder.String(node_def_pb2.NodeDef(op=op).SerializeToString().decode())
    return bytes(builder.Finish())


def _string(text):
    return np.array([1, 12, 12 + len(text)], np.int32).tobytes() + text
