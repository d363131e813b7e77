"""The object graph of a SavedModel, from which TensorFlow makes Python objects while loading, and what surrounds it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import odp_taskbuilder.proto  # noqa: F401 - makes TensorFlow's messages importable without TensorFlow.
from odp_taskbuilder.scan import sizes
from odp_taskbuilder.scan.report import Finding, ScanLimits, printable

from tensorflow.core.framework import node_def_pb2, tensor_pb2, types_pb2  # isort: skip
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
# Lists and tuples, whose children are numbered, and dicts and signatures, which hold children under any name.
_NUMBERED = {"trackable_list_wrapper", "trackable_tuple_wrapper"}
_NAMED = {"signature_map", "trackable_dict_wrapper"}
# Of the number of a list's element: those that are left out, because they are empty, take a place all the same.
_MAX_DIGITS = 5
# What TensorFlow attaches to functions that it saves: their traces, and what they captured.
_FUNCTION_CHILD = re.compile(r"(trace|capture)_\d+")
# What a function may be bound to: values. Of any other object the loader would ask attributes.
_BOUND_KINDS = {"variable", "constant", "captured_tensor"}
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
    if graph.ByteSize() > limits.objects_bytes:
        yield Finding(_WHERE, "", "", f"{graph.ByteSize()} bytes; at most {limits.objects_bytes} are accepted")
        return
    functions = {function.signature.name for function in meta_graph.graph_def.library.function}
    constants = {node.name: node for node in meta_graph.graph_def.node if node.op == "Const"}
    constant_sizes: dict[str, int] = {}
    constant_bytes = variable_bytes = 0
    for i, saved_object in enumerate(graph.nodes):
        for reason in _object_problems(saved_object, i == 0, graph, functions, constants, limits):
            yield Finding(_WHERE, f"object {i}", "", reason)
        # Each object of a constant is a copy of it.
        constant_bytes += _constant_bytes(saved_object, constants, constant_sizes)
        variable_bytes += _variable_bytes(saved_object)
    for name, function in graph.concrete_functions.items():
        if name not in functions:
            yield Finding(_WHERE, name, "", "the function is not in the file")
        for node_id in function.bound_inputs:
            if not 0 <= node_id < len(graph.nodes):
                yield Finding(_WHERE, name, "", "the function is bound to an object that is not in the file")
            elif graph.nodes[node_id].WhichOneof("kind") not in _BOUND_KINDS:
                yield Finding(
                    _WHERE, name, "", f"the function is bound to object {node_id}, which is neither variable nor constant"
                )
        for value in (function.canonicalized_input_signature, function.output_signature):
            for reason in _value_problems(value, limits):
                yield Finding(_WHERE, name, "", reason)
            constant_bytes += sum(_tensor_bytes(tensor) for tensor in _tensors_in(value))
    for what, size, limit in (
        ("constants", constant_bytes, limits.constant_bytes),
        ("variables", variable_bytes, limits.variables_bytes),
    ):
        if size > limit:
            yield Finding(_WHERE, "", "", f"{what} of {size} bytes; at most {limit} are accepted")


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
    is_root: bool,
    graph: saved_object_graph_pb2.SavedObjectGraph,
    functions: set[str],
    constants: Collection[str],
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
    yield from _edge_problems(saved_object, is_root, graph, limits)

    kind = saved_object.WhichOneof("kind")
    if kind == "user_object":
        user_object = saved_object.user_object
        if user_object.identifier not in _USER_OBJECTS:
            yield f"made by the loader for {printable(user_object.identifier)!r}"
        # TensorFlow makes another object, whose children are its attributes, where the version does not fit.
        elif user_object.version.producer != 1 or user_object.version.min_consumer > 1 or user_object.version.bad_consumers:
            yield f"{printable(user_object.identifier)!r} in a version that does not exist"
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
    saved_object: saved_object_graph_pb2.SavedObject,
    is_root: bool,
    graph: saved_object_graph_pb2.SavedObjectGraph,
    limits: ScanLimits,
) -> Iterator[str]:
    """The loader sets children as attributes, which come before methods of the class: it would call them in their place."""
    edges = [*saved_object.children, *saved_object.dependencies]
    if len(edges) > limits.list_length:
        yield f"has {len(edges)} children; at most {limits.list_length} are accepted"
        return
    for edge in edges:
        if not 0 <= edge.node_id < len(graph.nodes):
            yield f"its child {printable(edge.local_name)!r} is not in the file"
    names = [child.local_name for child in saved_object.children]
    if len(set(names)) < len(names):
        yield "has two children of one name"
    kind = saved_object.WhichOneof("kind")
    identifier = saved_object.user_object.identifier if kind == "user_object" else ""
    for name in names:
        if kind in ("function", "bare_concrete_function"):
            fits = _FUNCTION_CHILD.fullmatch(name) is not None
        elif identifier in _NUMBERED:
            # The loader makes a list that is as long as the largest number, and ignores the names of a tuple's fields.
            numbered = name.isascii() and name.isdecimal() and len(name) <= _MAX_DIGITS
            fits = numbered or (identifier == "trackable_tuple_wrapper" and name.isidentifier())
        elif identifier in _NAMED:
            fits = True
        elif kind == "user_object":
            # The class has no attributes but internal ones.
            fits = not name.startswith("_") or (is_root and name in REQUIRED_MEMBERS)
        else:
            fits = False
        if not fits:
            yield f"its child {printable(name)!r} would be set as an attribute of the Python object that TensorFlow makes of it"
    if kind not in ("function", "bare_concrete_function") and saved_object.dependencies:
        yield "depends on other objects to be made, as only objects of classes of their own do"


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


def _constant_bytes(
    saved_object: saved_object_graph_pb2.SavedObject, constants: Mapping[str, node_def_pb2.NodeDef], known: dict[str, int]
) -> int:
    """The size of the tensors that the loader makes for an object, variables apart. `known` are those of constants seen before."""
    kind = saved_object.WhichOneof("kind")
    if kind == "constant":
        name = saved_object.constant.operation
        if name not in known:
            node = constants.get(name)
            known[name] = _tensor_bytes(node.attr["value"].tensor) if node is not None and "value" in node.attr else 0
        return known[name]
    if kind not in ("function", "bare_concrete_function"):
        return 0
    spec = getattr(saved_object, kind).function_spec
    return sum(_tensor_bytes(tensor) for value in (spec.fullargspec, spec.input_signature) for tensor in _tensors_in(value))


def _variable_bytes(saved_object: saved_object_graph_pb2.SavedObject) -> int:
    if saved_object.WhichOneof("kind") != "variable":
        return 0
    try:
        elements = sizes.num_elements(saved_object.variable.shape)
    except ValueError:
        return 0
    return elements * sizes.DTYPE_SIZES.get(saved_object.variable.dtype, 1)


def _tensor_bytes(tensor: tensor_pb2.TensorProto) -> int:
    try:
        return sizes.constant_size(tensor)[1]
    except ValueError:
        return 0


def _children(value: struct_pb2.StructuredValue) -> list[struct_pb2.StructuredValue]:
    kind = value.WhichOneof("kind")
    if kind in ("list_value", "tuple_value"):
        return list(getattr(value, kind).values)
    if kind == "dict_value":
        return list(value.dict_value.fields.values())
    if kind == "named_tuple_value":
        return [pair.value for pair in value.named_tuple_value.values]
    return [value.type_spec_value.type_state] if kind == "type_spec_value" else []


def _tensors_in(value: struct_pb2.StructuredValue) -> Iterator[tensor_pb2.TensorProto]:
    if value.WhichOneof("kind") == "tensor_value":
        yield value.tensor_value
    for child in _children(value):
        yield from _tensors_in(child)


def _value_problems(value: struct_pb2.StructuredValue, limits: ScanLimits) -> Iterator[str]:
    """Types and defaults of a function's arguments. Protobuf bounds the depth of this recursion, to 100."""
    kind = value.WhichOneof("kind")
    if kind == "type_spec_value" and value.type_spec_value.type_spec_class not in _TYPE_SPECS:
        yield f"its signature has a type of a class that no model needs ({printable(value.type_spec_value.type_spec_class_name)!r})"
    elif kind == "numpy_value":
        yield "its signature holds an array"
    elif kind == "tensor_value":
        yield from _tensor_problems(value.tensor_value, limits)
    elif kind == "bounded_tensor_spec_value":
        for bound in (value.bounded_tensor_spec_value.minimum, value.bounded_tensor_spec_value.maximum):
            yield from _tensor_problems(bound, limits)
    children = _children(value)
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
