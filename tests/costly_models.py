"""Files that make a scan expensive: as large as a scan reads, or full of what costs it most. Written without TensorFlow.

`KINDS` maps a name to a function of a number of bytes that returns the content of saved_model.pb, about that large at most. Those that
take less are limited by their number of parts, which `size` scales down as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable, Union

import odp_taskbuilder.proto  # noqa: F401 - makes TensorFlow's messages importable without TensorFlow.

from tensorflow.core.framework import attr_value_pb2, function_pb2, graph_pb2, node_def_pb2, types_pb2  # isort: skip
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2, struct_pb2  # isort: skip

FULL = 64 * 2**20

Attr = attr_value_pb2.AttrValue


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def _number(message: type, name: str) -> int:
    return message.DESCRIPTOR.fields_by_name[name].number


def in_meta_graph(content: bytes) -> bytes:
    return field(_number(saved_model_pb2.SavedModel, "meta_graphs"), content)


def in_graph(content: bytes) -> bytes:
    return in_meta_graph(field(_number(meta_graph_pb2.MetaGraphDef, "graph_def"), content))


def of_nodes(nodes: Iterable[node_def_pb2.NodeDef], functions: Iterable[function_pb2.FunctionDef] = ()) -> bytes:
    graph = graph_pb2.GraphDef()
    graph.node.extend(nodes)
    graph.library.function.extend(functions)
    return in_graph(graph.SerializeToString())


def _node(name: str, op: str, inputs: Iterable[str] = (), **attrs: Union[Attr, int, str]) -> node_def_pb2.NodeDef:
    node = node_def_pb2.NodeDef(name=name, op=op, input=inputs)
    for key, value in attrs.items():
        node.attr[key].CopyFrom(value if isinstance(value, Attr) else Attr(i=value) if isinstance(value, int) else _function(value))
    return node


def _function(*names: str) -> Attr:
    attr = Attr()
    if len(names) == 1:
        attr.func.name = names[0]
    else:
        for name in names:
            attr.list.func.add(name=name)
    return attr


def _constant(name: str, dtype: int, count: int, content: bytes = b"", **values: list) -> node_def_pb2.NodeDef:
    node = node_def_pb2.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = dtype
    tensor = node.attr["value"].tensor
    tensor.dtype = dtype
    tensor.tensor_shape.dim.add(size=count)
    tensor.tensor_content = content
    for key, items in values.items():
        getattr(tensor, key).extend(items)
    return node


def _parts(size: int, most: int) -> int:
    """As many parts of the most that are accepted as `size` is of a full file."""
    return max(2, most * size // FULL)


def empty_nodes(size: int) -> bytes:
    return in_graph(b"\x0a\x00" * (size // 2 - 16))


def nodes_with_attributes(size: int) -> bytes:
    return of_nodes(_node(f"n{i}", "NoOp", **{f"_a{k}": 1 for k in range(9)}) for i in range(_parts(size, 50_000)))


def small_functions(size: int) -> bytes:
    functions = []
    for i in range(_parts(size, 10_000)):
        functions.append(function_pb2.FunctionDef())
        functions[-1].signature.name = f"f_{i}"
        functions[-1].node_def.extend(_node(f"n{k}", "NoOp") for k in range(4))
    return of_nodes([], functions)


def functions_that_call_each_other(size: int) -> bytes:
    functions = []
    for i in range(_parts(size, 10_000)):
        functions.append(function_pb2.FunctionDef())
        functions[-1].signature.name = f"f_{i}"
        functions[-1].node_def.extend(_node(f"n{k}", "PartitionedCall", f=f"f_{i + 1 + k}") for k in range(4))
    return of_nodes([], functions)


def many_callers_of_many_arguments(size: int) -> bytes:
    callee = function_pb2.FunctionDef()
    callee.signature.name = "callee"
    count = _parts(size, 300_000)
    for i in range(count):
        callee.signature.input_arg.add(name=f"a{i}")
    callee.node_def.extend(_node(f"n{i}", "AddN", [f"a{k}" for k in range(i, min(i + 60, count))]) for i in range(0, count, 60))
    callee.node_def.extend(_node(f"fill{i}", "Fill", [f"n{i}"]) for i in range(0, count, 60))
    return of_nodes((_node(f"c{i}", "PartitionedCall", f="callee") for i in range(_parts(size, 30_000))), [callee])


def many_outputs_of_many_branches(size: int) -> bytes:
    functions = []
    for i in range(_parts(size, 9_000)):
        functions.append(function_pb2.FunctionDef())
        functions[-1].signature.name = f"f_{i}"
    case = _node("case", "Case", ["index"], branches=_function(*(f"f_{i}" for i in range(len(functions)))))
    fills = (_node(f"n{i}", "Fill", [f"case:{i}"]) for i in range(_parts(size, 49_000)))
    return of_nodes([case, *fills], functions)


def one_constant_by_many_names(size: int) -> bytes:
    constant = _constant("c", types_pb2.DT_INT16, size // 4, b"\1\0" * (size // 4))
    return of_nodes([constant, *(_node(f"n{i}", "DynamicStitch", [f"c:{i}", "c"]) for i in range(_parts(size, 49_000)))])


def one_assertion_many_times(size: int) -> bytes:
    constant = _constant("c", types_pb2.DT_BOOL, size // 2, b"\1" * (size // 2))
    return of_nodes([constant, *(_node(f"n{i}", "Assert", [f"c:{i}"]) for i in range(_parts(size, 49_000)))])


def long_constants_of_bytes(size: int) -> bytes:
    return of_nodes([_constant("c", types_pb2.DT_INT8, size - 2**10, b"\1" * (size - 2**10)), _node("n", "SegmentSum", ["c", "c"])])


def long_lists_of_numbers(size: int) -> bytes:
    count = _parts(size, 15 * 2**20)
    return of_nodes([_constant("c", types_pb2.DT_INT32, count, int_val=[1] * count), _node("n", "SegmentSum", ["c", "c"])])


def one_constant_of_many_objects(size: int) -> bytes:
    count = _parts(size, 1_500_000)
    meta_graph = meta_graph_pb2.MetaGraphDef()
    meta_graph.graph_def.node.append(_constant("c", types_pb2.DT_STRING, count, string_val=[b""] * count))
    for _ in range(_parts(size, 49_000)):
        meta_graph.object_graph_def.nodes.add().constant.operation = "c"
    return in_meta_graph(meta_graph.SerializeToString())


def objects_with_children(size: int) -> bytes:
    meta_graph = meta_graph_pb2.MetaGraphDef()
    for i in range(_parts(size, 49_000)):
        node = meta_graph.object_graph_def.nodes.add()
        node.user_object.identifier = "trackable_list_wrapper"
        node.user_object.version.producer = 1
        for k in range(5):
            node.children.add(node_id=i, local_name=str(k))
    return in_meta_graph(meta_graph.SerializeToString())


def nested_signatures(size: int) -> bytes:
    meta_graph = meta_graph_pb2.MetaGraphDef()
    value = struct_pb2.StructuredValue(none_value={})
    for _ in range(40):
        outer = struct_pb2.StructuredValue()
        outer.list_value.values.append(value)
        value = outer
    node = meta_graph.object_graph_def.nodes.add()
    for _ in range(_parts(size, 13_000)):
        node.function.function_spec.fullargspec.list_value.values.append(value)
    return in_meta_graph(meta_graph.SerializeToString())


def packed_vectors(size: int) -> bytes:
    """Nodes whose parts are known, each made of many others that are."""
    vectors = [_constant(f"c{i}", types_pb2.DT_INT32, 64, int_val=range(64)) for i in range(64)]
    packs = [_node(f"p{i}", "Pack", [f"c{k}" for k in range(64)]) for i in range(_parts(size, 20_000))]
    return of_nodes([*vectors, *packs, *(_node(f"f{i}", "Fill", [f"p{i}"]) for i in range(len(packs)))])


def long_names_that_are_wrong(size: int) -> bytes:
    node = _node("x" * 6_000, "Wrong" * 1_000, **{f"a{i}": Attr(placeholder="p") for i in range(40)})
    return of_nodes(node for _ in range(size // 13_000))


def messages_of_two_bytes(size: int) -> bytes:
    """Types of operations, which are large in memory."""
    info = field(_number(meta_graph_pb2.MetaGraphDef.MetaInfoDef, "stripped_op_list"), b"\x0a\x00" * _parts(size, 1_900_000))
    return in_meta_graph(field(_number(meta_graph_pb2.MetaGraphDef, "meta_info_def"), info))


def signatures_of_few_bytes(size: int) -> bytes:
    entries = (field(1, str(i).encode()) + field(2, b"") for i in range(_parts(size, 400_000)))
    return in_meta_graph(b"".join(field(_number(meta_graph_pb2.MetaGraphDef, "signature_def"), entry) for entry in entries))


def dimensions_of_two_bytes(size: int) -> bytes:
    shape = field(_number(Attr, "shape"), b"\x12\x00" * _parts(size, 1_900_000))
    attr = field(_number(node_def_pb2.NodeDef, "attr"), field(1, b"s") + field(2, shape))
    return in_graph(field(_number(graph_pb2.GraphDef, "node"), field(1, b"n") + attr))


def unknown_bytes(size: int) -> bytes:
    return field(1000, bytes(size - 16))


def unknown_numbers(size: int) -> bytes:
    return (varint(1000 << 3) + b"\1") * (size // 3)


def nested_groups(size: int) -> bytes:
    return (varint(1000 << 3 | 3)) * (size // 2)


def graph_in_pieces(size: int) -> bytes:
    """The same field again and again, which are merged."""
    return in_meta_graph(field(_number(meta_graph_pb2.MetaGraphDef, "graph_def"), b"") * _parts(size, 1_900_000))


def deep_functions_in_attributes(size: int) -> bytes:
    attr = field(_number(Attr, "func"), field(1, b"f"))
    for _ in range(25):
        attr = field(_number(Attr, "func"), field(1, b"f") + field(2, field(1, b"k") + field(2, attr)))
    node = field(1, b"n") + field(_number(node_def_pb2.NodeDef, "attr"), field(1, b"a") + field(2, attr))
    return in_graph(field(_number(graph_pb2.GraphDef, "node"), node) * _parts(size, 9_000))


def loops_over_many_values(size: int) -> bytes:
    condition, body = function_pb2.FunctionDef(), function_pb2.FunctionDef()
    count = _parts(size, 100_000)
    for function, name in ((condition, "condition"), (body, "body")):
        function.signature.name = name
        for i in range(count):
            function.signature.input_arg.add(name=f"a{i}")
    inputs = [f"x:{i}" for i in range(count)]
    loops = (_node(f"w{i}", "While", inputs, cond="condition", body="body") for i in range(5))
    return of_nodes(loops, [condition, body])


KINDS: dict[str, Callable[[int], bytes]] = {
    make.__name__: make
    for make in (
        empty_nodes,
        nodes_with_attributes,
        small_functions,
        functions_that_call_each_other,
        many_callers_of_many_arguments,
        many_outputs_of_many_branches,
        one_constant_by_many_names,
        one_assertion_many_times,
        long_constants_of_bytes,
        long_lists_of_numbers,
        one_constant_of_many_objects,
        objects_with_children,
        nested_signatures,
        packed_vectors,
        long_names_that_are_wrong,
        messages_of_two_bytes,
        signatures_of_few_bytes,
        dimensions_of_two_bytes,
        unknown_bytes,
        unknown_numbers,
        nested_groups,
        graph_in_pieces,
        deep_functions_in_attributes,
        loops_over_many_values,
    )
}
