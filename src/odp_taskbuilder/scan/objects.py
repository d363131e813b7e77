"""The object graph of a SavedModel, from which TensorFlow makes Python objects while loading, and what surrounds it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import odp_taskbuilder.proto  # noqa: F401 - makes TensorFlow's messages importable without TensorFlow.
from odp_taskbuilder.scan import sizes
from odp_taskbuilder.scan.report import Finding, ScanLimits, printable

from tensorflow.core.framework import tensor_pb2, types_pb2  # isort: skip
from tensorflow.core.protobuf import meta_graph_pb2, saved_object_graph_pb2, struct_pb2  # isort: skip

# What tff.learning.models.save_functional_model attaches to the root; older releases leave some type specs out.
REQUIRED_MEMBERS = (
    "predict_on_batch_training",
    "predict_on_batch_inference",
    "loss",
    "serialized_input_spec",
    "_weights",
    "__call__",
)

# Plain containers. Every other identifier makes TensorFlow or Keras run code of its own, for optimizers for example.
_USER_OBJECTS = {
    "_generic_user_object",
    "signature_map",
    "trackable_dict_wrapper",
    "trackable_list_wrapper",
    "trackable_tuple_wrapper",
}
_TYPE_SPECS = {
    struct_pb2.TypeSpecProto.SPARSE_TENSOR_SPEC,
    struct_pb2.TypeSpecProto.INDEXED_SLICES_SPEC,
    struct_pb2.TypeSpecProto.RAGGED_TENSOR_SPEC,
}
_WHERE = "object graph"


def is_functional_model(graph: saved_object_graph_pb2.SavedObjectGraph) -> bool:
    """Whether the root object has what a FunctionalModel consists of."""
    members = {child.local_name for child in graph.nodes[0].children} if graph.nodes else set()
    # A SavedModel drops empty lists: without weights there is no `_weights`.
    return members.issuperset(set(REQUIRED_MEMBERS) - {"_weights"})


def scan_objects(meta_graph: meta_graph_pb2.MetaGraphDef, limits: ScanLimits) -> Iterator[Finding]:
    """Looks at the objects, and at everything else in a meta graph that is neither a graph nor about it."""
    for asset in meta_graph.asset_file_def:
        yield Finding("assets", asset.filename, "", "a model needs no assets")
    yield from _scan_collections(meta_graph)
    for key, signature in meta_graph.signature_def.items():
        for name, tensor in signature.defaults.items():
            for reason in _tensor_problems(tensor, limits):
                yield Finding(f"signature {key}", name, "", reason)

    graph = meta_graph.object_graph_def
    for what, number, limit in (
        ("objects", len(graph.nodes), limits.objects),
        ("bytes", graph.ByteSize(), limits.objects_bytes),
    ):
        if number > limit:
            yield Finding(_WHERE, "", "", f"{number} {what}; at most {limit} are accepted")
            return
    functions = {function.signature.name for function in meta_graph.graph_def.library.function}
    constants = {node.name for node in meta_graph.graph_def.node if node.op == "Const"}
    for i, saved_object in enumerate(graph.nodes):
        for reason in _object_problems(saved_object, graph, functions, constants, limits):
            yield Finding(_WHERE, f"object {i}", "", reason)
    for name, function in graph.concrete_functions.items():
        if name not in functions:
            yield Finding(_WHERE, name, "", "the function is not in the file")
        if any(not 0 <= node_id < len(graph.nodes) for node_id in function.bound_inputs):
            yield Finding(_WHERE, name, "", "the function is bound to an object that is not in the file")
        for value in (function.canonicalized_input_signature, function.output_signature):
            for reason in _value_problems(value, limits):
                yield Finding(_WHERE, name, "", reason)


def _scan_collections(meta_graph: meta_graph_pb2.MetaGraphDef) -> Iterator[Finding]:
    """Collections name operations that loaders run. The one that TensorFlow writes names a node that does nothing."""
    no_ops = {node.name for node in meta_graph.graph_def.node if node.op == "NoOp" and not node.input}
    for key, collection in meta_graph.collection_def.items():
        if collection.WhichOneof("kind") != "node_list" or not no_ops.issuperset(collection.node_list.value):
            yield Finding("collections", key, "", "a collection other than an initialisation that does nothing")
    init_op = meta_graph.signature_def.get("__saved_model_init_op")
    if init_op is not None and not no_ops.issuperset(output.name.partition(":")[0] for output in init_op.outputs.values()):
        yield Finding("signatures", "__saved_model_init_op", "", "an initialisation that does something")


def _object_problems(
    saved_object: saved_object_graph_pb2.SavedObject,
    graph: saved_object_graph_pb2.SavedObjectGraph,
    functions: set[str],
    constants: set[str],
    limits: ScanLimits,
) -> Iterator[str]:
    if saved_object.registered_name or saved_object.serialized_user_proto.ByteSize():
        yield f"made by the registered class {printable(saved_object.registered_name)!r} of the host's Python"
    if saved_object.registered_saver:
        yield f"restored by the registered saver {printable(saved_object.registered_saver)!r} of the host's Python"
    if saved_object.saveable_objects:
        yield "saved and restored by functions of its own"
    if saved_object.slot_variables:
        yield "has an optimizer's slot variables"
    yield from _edge_problems(saved_object, graph, limits)

    kind = saved_object.WhichOneof("kind")
    if kind == "user_object":
        if saved_object.user_object.identifier not in _USER_OBJECTS:
            yield f"made by the loader for {printable(saved_object.user_object.identifier)!r}"
    elif kind == "variable":
        yield from _variable_problems(saved_object.variable, limits)
    elif kind == "function":
        yield from _function_problems(
            saved_object.function.concrete_functions, saved_object.function.function_spec, functions, limits
        )
    elif kind == "bare_concrete_function":
        bare = saved_object.bare_concrete_function
        yield from _function_problems([bare.concrete_function_name], bare.function_spec, functions, limits)
    elif kind == "constant":
        if saved_object.constant.operation not in constants:
            yield "a constant that is none in the main graph"
    elif kind == "captured_tensor":
        if saved_object.captured_tensor.concrete_function not in functions:
            yield "a tensor of a function that is not in the file"
    elif kind == "asset":
        yield "an asset; a model needs none"
    elif kind == "resource":
        yield "a resource, whose creation and initialisation run while loading"
    else:
        yield "an object of no kind that is known"


def _edge_problems(
    saved_object: saved_object_graph_pb2.SavedObject, graph: saved_object_graph_pb2.SavedObjectGraph, limits: ScanLimits
) -> Iterator[str]:
    edges = [*saved_object.children, *saved_object.dependencies]
    if len(edges) > limits.list_length:
        yield f"has {len(edges)} children; at most {limits.list_length} are accepted"
        return
    for edge in edges:
        if not 0 <= edge.node_id < len(graph.nodes):
            yield f"its child {printable(edge.local_name)!r} is not in the file"
        # The loader sets children as attributes, and would replace methods that it calls itself.
        if edge.local_name.startswith("_") and edge.local_name not in REQUIRED_MEMBERS:
            yield f"sets the internal attribute {printable(edge.local_name)!r} of a Python object"


def _variable_problems(variable: saved_object_graph_pb2.SavedVariable, limits: ScanLimits) -> Iterator[str]:
    if variable.experimental_distributed_variable_components:
        yield "a variable in several parts"
    if variable.dtype != types_pb2.DT_STRING and variable.dtype not in sizes.DTYPE_SIZES:
        yield f"a variable of a type that no weight has ({variable.dtype})"
        return
    try:
        elements = sizes.num_elements(variable.shape)
    except ValueError as error:
        yield f"a variable of {error}"
        return
    size = elements * sizes.DTYPE_SIZES.get(variable.dtype, 1)
    if size > limits.variables_bytes:
        yield f"a variable of {size} bytes; at most {limits.variables_bytes} are accepted"


def _function_problems(
    names: Sequence[str], spec: saved_object_graph_pb2.FunctionSpec, functions: set[str], limits: ScanLimits
) -> Iterator[str]:
    for name in names:
        if name not in functions:
            yield f"its function {printable(name)!r} is not in the file"
    yield from _value_problems(spec.fullargspec, limits)
    yield from _value_problems(spec.input_signature, limits)


def _value_problems(value: struct_pb2.StructuredValue, limits: ScanLimits) -> Iterator[str]:
    """Types and defaults of a function's arguments. Protobuf bounds the depth of this recursion, to 100."""
    kind = value.WhichOneof("kind")
    if kind in ("list_value", "tuple_value"):
        children = list(getattr(value, kind).values)
    elif kind == "dict_value":
        children = list(value.dict_value.fields.values())
    elif kind == "named_tuple_value":
        children = [pair.value for pair in value.named_tuple_value.values]
    elif kind == "type_spec_value":
        if value.type_spec_value.type_spec_class not in _TYPE_SPECS:
            yield f"its signature has a type of a class that no model needs ({printable(value.type_spec_value.type_spec_class_name)!r})"
        children = [value.type_spec_value.type_state]
    else:
        if kind == "numpy_value":
            yield "its signature holds an array"
        elif kind == "tensor_value":
            yield from _tensor_problems(value.tensor_value, limits)
        elif kind == "bounded_tensor_spec_value":
            for bound in (value.bounded_tensor_spec_value.minimum, value.bounded_tensor_spec_value.maximum):
                yield from _tensor_problems(bound, limits)
        return
    if len(children) > limits.list_length:
        yield f"its signature has {len(children)} parts; at most {limits.list_length} are accepted"
        return
    for child in children:
        yield from _value_problems(child, limits)


def _tensor_problems(tensor: tensor_pb2.TensorProto, limits: ScanLimits) -> Iterator[str]:
    try:
        elements, _ = sizes.constant_size(tensor)
    except ValueError as error:
        yield f"states a tensor of {error}"
        return
    if elements > limits.tensor_elements:
        yield f"states a tensor of {elements} elements; at most {limits.tensor_elements} are accepted"
