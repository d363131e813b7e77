"""Each kind of hostile model in several spellings: the kind is refused, not the case in which it was first seen.

Of the other kinds of hostile inputs, each in three variants at least: a model that is refused at one place only (tests/cli/test_refused_models.py,
tests/server/test_serve_real_build.py: three operations at every command and both endpoints), models that are costly to scan
(tests/costly_models.py), plans that do harm in a simulation (tests/simulation/test_foreign_plans.py), metrics files (tests/cli/test_metrics.py),
artifacts (tests/inspection/test_hostile_files.py). What a file can hold that TensorFlow would write is in tests/hostile_models.py.
"""

from __future__ import annotations

import re
import shutil
import struct

import pytest
import refused_models

from odp_taskbuilder import scan

from tensorflow.core.framework import attr_value_pb2, node_def_pb2, types_pb2  # isort: skip
from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2, saved_model_pb2, struct_pb2  # isort: skip

_FLOAT, _INT, _LONG, _TEXT = types_pb2.DT_FLOAT, types_pb2.DT_INT32, types_pb2.DT_INT64, types_pb2.DT_STRING


class _Model:
    """The shipped example, to be edited."""

    def __init__(self):
        self.saved_model = saved_model_pb2.SavedModel.FromString((refused_models.EXAMPLE / "saved_model.pb").read_bytes())
        self.meta_graph = self.saved_model.meta_graphs[0]
        self.graph = self.meta_graph.graph_def
        self.library = self.graph.library
        self.objects = self.meta_graph.object_graph_def

    @property
    def saver_node(self):
        name = self.meta_graph.saver_def.save_tensor_name.partition(":")[0]
        return next(node for node in self.graph.node if node.name == name)

    @property
    def saves(self):
        """The function that writes the variables: refused wherever anything but the saver can reach it."""
        name = self.saver_node.attr["f"].func.name
        return next(function for function in self.library.function if function.signature.name == name)

    def function(self, name="added", nodes=(), takes=(), gives=()):
        made = self.library.function.add()
        made.signature.name = name
        for key, dtype in takes:
            made.signature.input_arg.add(name=key, type=dtype)
        for key, dtype, source in gives:
            made.signature.output_arg.add(name=key, type=dtype)
            made.ret[key] = source
        made.node_def.extend(nodes)
        return made

    def object(self, *path):
        """The object at the end of a path of children from the root."""
        found = self.objects.nodes[0]
        for name in path:
            found = self.objects.nodes[next(child.node_id for child in found.children if child.local_name == name)]
        return found

    def calling_object(self, name):
        """The number of a new object that calls the library's function."""
        made = self.objects.nodes.add()
        made.function.concrete_functions.append(name)
        self.objects.concrete_functions[name].SetInParent()
        return len(self.objects.nodes) - 1


def _node(name, op, *inputs, **attrs):
    node = node_def_pb2.NodeDef(name=name, op=op, input=inputs)
    for key, value in attrs.items():
        if isinstance(value, attr_value_pb2.AttrValue):
            node.attr[key].CopyFrom(value)
        elif isinstance(value, str):
            node.attr[key].func.name = value
        elif isinstance(value, bytes):
            node.attr[key].s = value
        elif isinstance(value, list):
            node.attr[key].list.i.extend(value)
        else:
            node.attr[key].i = value
    return node


def _constant(name, *values, dtype=_INT, shape=None):
    node = node_def_pb2.NodeDef(name=name, op="Const")
    tensor = node.attr["value"].tensor
    node.attr["dtype"].type = tensor.dtype = dtype
    tensor.tensor_shape.SetInParent()
    for extent in [len(values)] if shape is None else shape:
        tensor.tensor_shape.dim.add(size=extent)
    field = {_INT: "int_val", _LONG: "int64_val", _FLOAT: "float_val", _TEXT: "string_val"}[dtype]
    getattr(tensor, field).extend(value.encode() if isinstance(value, str) else value for value in values)
    return node


def _constant_of_bytes(name, *values):
    node = _constant(name, shape=[len(values)])
    node.attr["value"].tensor.tensor_content = struct.pack(f"<{len(values)}i", *values)
    return node


def _text(name, value):
    return _constant(name, value, dtype=_TEXT, shape=[])


def _shape(*extents):
    attr = attr_value_pb2.AttrValue()
    attr.shape.SetInParent()
    for extent in extents:
        attr.shape.dim.add(size=extent)
    return attr


def _list_of_functions(*names):
    attr = attr_value_pb2.AttrValue()
    for name in names:
        attr.list.func.add(name=name)
    return attr


# --- A function that writes or reads files, disguised as one of the saver's or as an operation.

_SAVE = [
    _constant("names", "x", dtype=_TEXT),
    _constant("slices", "", dtype=_TEXT),
    _node("save", "SaveV2", "path", "names:output:0", "slices:output:0", "names:output:0"),
]
_RESTORE = [_constant("names", "x", dtype=_TEXT), _constant("slices", "", dtype=_TEXT), _node("read", "RestoreV2", "path", "names:output:0", "slices:output:0")]
_PATH = [("path", _TEXT)]


def _named_like_an_operation(name, body, mention=True):
    def change(model):
        model.function(name, body, _PATH)
        model.function("hook", [_text("path", "/x"), _node("call", name, "path:output:0")])
        if mention:
            model.saver_node.attr["_also"].func.name = name

    return change


def _reached(reach):
    """The saver's own function, reached by something else too."""
    return lambda model: reach(model, model.saves.signature.name)


def _own_path(*nodes):
    def change(model):
        function = model.saves
        function.node_def.extend(nodes)
        save = next(node for node in function.node_def if node.op == "SaveV2")
        save.input[0] = f"{nodes[-1].name}:output:0"

    return change


def _another_saver(model):
    model.function("__inference__traced_save_1", _SAVE, _PATH)
    model.graph.node.append(_node("second", "StatefulPartitionedCall", f="__inference__traced_save_1"))
    model.meta_graph.saver_def.restore_op_name = "second"
    model.function("hook", [_node("call", "PartitionedCall", f="__inference__traced_save_1")])


def _function_object(model, name):
    model.object().children.add(local_name="more", node_id=model.calling_object(name))


def _function_in_a_signature(model, name):
    made = model.objects.nodes.add()
    made.bare_concrete_function.concrete_function_name = name
    model.object("signatures").children.add(local_name="serving", node_id=len(model.objects.nodes) - 1)


def _saveable(model, name):
    saveable = model.objects.nodes[1].saveable_objects["value"]
    saveable.save_function = saveable.restore_function = model.calling_object(name)


def _gradient(model, name):
    model.library.registered_gradients.add(gradient_func=name, registered_op_type="CustomGradient-1")


def _older_gradient(model, name):
    model.library.gradient.add(function_name=model.library.function[0].signature.name, gradient_func=name)


DISGUISED = {
    "named like an operation, reached as one": _named_like_an_operation("Elu", _SAVE),
    "another name, which reads": _named_like_an_operation("Relu6", _RESTORE),
    "an operation that is not allowed": _named_like_an_operation("WriteFile", _SAVE),
    "an operation of an older TensorFlow": _named_like_an_operation("BatchFFT", _SAVE),
    "an operation with an underscore": _named_like_an_operation("_FusedMatMul", _SAVE),
    "an operation of a library": _named_like_an_operation("Addons>Norm", _SAVE),
    "not mentioned by the saver": _named_like_an_operation("Tanh", _SAVE, mention=False),
    "no name of an operation": _named_like_an_operation("elu", _SAVE),
    "the saver's function as an attribute": _reached(lambda m, f: m.function(nodes=[_node("c", "PartitionedCall", f=f)])),
    "in a list of branches": _reached(lambda m, f: m.function(nodes=[_node("c", "Case", branches=_list_of_functions(f))])),
    "as a loop's body": _reached(lambda m, f: m.function(nodes=[_node("c", "While", body=f, cond=f)])),
    "as the name of a node's operation": _reached(lambda m, f: m.function(nodes=[_node("c", f)])),
    "in a text": _reached(lambda m, f: m.function(nodes=[_node("c", "Identity", _hint=f.encode())])),
    "by an attribute that means nothing": _reached(lambda m, f: m.function(nodes=[_node("c", "Identity", _any=f)])),
    "by a function's attribute": _reached(lambda m, f: m.function().attr["api_implements"].MergeFrom(attr_value_pb2.AttrValue(s=f.encode()))),
    "by an argument's attribute": _reached(lambda m, f: m.function().arg_attr[0].attr["_f"].func.MergeFrom(attr_value_pb2.NameAttrList(name=f))),
    "by a node of the main graph": _reached(lambda m, f: m.graph.node.append(_node("c", "StatefulPartitionedCall", f=f))),
    "by an object": _reached(_function_object),
    "by a signature": _reached(_function_in_a_signature),
    "by what saves an object": _reached(_saveable),
    "as a gradient": _reached(_gradient),
    "as a gradient in the older form": _reached(_older_gradient),
    "a second one of such a name": _another_saver,
    "a path of its own": _own_path(_text("own", "/x")),
    "a path of its own, handed on": _own_path(_text("own", "/x"), _node("same", "Identity", "own:output:0")),
    "a path of its own before the given one": _own_path(_text("own", "/x"), _node("joined", "StringJoin", "own:output:0", "file_prefix", N=2)),
    "a path made of pieces": _own_path(_text("own", "/"), _node("joined", "ReduceJoin", "own:output:0", "own:output:0")),
    "a path that nothing begins": _own_path(_node("a", "Identity", "b:output:0"), _node("b", "Identity", "a:output:0")),
    "a file's shard": _own_path(_text("own", "/x"), _node("shard", "ShardedFilename", "own:output:0")),
}

# --- What takes the place of a method of the class that TensorFlow makes of an object.


def _child(name, *path):
    def change(model):
        callee = model.library.function[0].signature.name
        model.object(*path).children.add(local_name=name, node_id=model.calling_object(callee))

    return change


def _child_of_kind(name, kind):
    def change(model):
        target = next(item for item in model.objects.nodes if item.WhichOneof("kind") == kind)
        target.children.add(local_name=name, node_id=model.calling_object(model.library.function[0].signature.name))

    return change


def _child_of_a_list(name):
    def change(model):
        callee = model.calling_object(model.library.function[0].signature.name)
        made = model.objects.nodes.add()
        made.user_object.identifier = "trackable_list_wrapper"
        made.user_object.version.producer = made.user_object.version.min_consumer = 1
        made.children.add(local_name=name, node_id=callee)
        model.object().children.add(local_name="more", node_id=len(model.objects.nodes) - 1)

    return change


REPLACING = {
    "a variable's value": _child_of_kind("numpy", "variable"),
    "another of its methods": _child_of_kind("read_value", "variable"),
    "how it is restored": _child_of_kind("_restore_from_tensors", "variable"),
    "how it is written": _child_of_kind("__class__", "variable"),
    "any child of a variable": _child_of_kind("anything", "variable"),
    "a constant's value": _child("numpy", "serialized_input_spec"),
    "a function's call": _child("__call__", "loss"),
    "a function's traces": _child("_list_all_concrete_functions", "loss"),
    "a trace without a number": _child("trace_", "loss"),
    "how the root is restored": _child("_restore_from_tensors"),
    "how the root is initialised": _child("_initialize"),
    "where the root's children are": _child("__dict__"),
    "a list's method": _child_of_a_list("append"),
    "a number of another script": _child_of_a_list("١"),
    "a list of a billion": _child_of_a_list("1000000000"),
}

# --- Sizes, counts and settings.


def _made(op, *nodes, inputs, **attrs):
    """An operation over constants, in a function."""
    return lambda model: model.function(nodes=[*nodes, _node("n", op, *inputs, **attrs)], takes=[("a", _FLOAT), ("b", _INT)])


_BIG = _constant("big", 1 << 20, 1 << 20)
_BIG_LONG = _constant("big", 1 << 20, 1 << 20, dtype=_LONG)
_HALF = _constant("half", 1 << 16)
_HUGE = _constant("huge", 2**31 - 1, shape=[])
_PAIR = [_constant("one", 1 << 20, shape=[]), _node("big", "Pack", "one:output:0", "one:output:0", N=2)]


def _through_a_call(model):
    model.function("fills", [_node("n", "Fill", "dims", "x")], [("dims", _INT), ("x", _FLOAT)], [("y", _FLOAT, "n:output:0")])
    model.function(nodes=[_BIG, _node("n", "PartitionedCall", "big:output:0", "a", f="fills")], takes=[("a", _FLOAT)])


def _returned_by_a_call(model):
    model.function("states", [_BIG], gives=[("y", _INT, "big:output:0")])
    model.function(nodes=[_node("c", "PartitionedCall", f="states"), _node("n", "Fill", "c:output:0", "a")], takes=[("a", _FLOAT)])


def _captured_by_a_branch(model):
    model.function("fills", [_node("n", "Fill", "dims", "x")], [("dims", _INT), ("x", _FLOAT)], [("y", _FLOAT, "n:output:0")])
    model.function(
        nodes=[_BIG, _node("n", "If", "c", "big:output:0", "a", then_branch="fills", else_branch="fills")],
        takes=[("a", _FLOAT), ("c", types_pb2.DT_BOOL)],
    )


def _carried_by_a_loop(model):
    model.function("fills", [_node("n", "Fill", "dims", "x")], [("dims", _INT), ("x", _FLOAT)], [("y", _INT, "dims"), ("z", _FLOAT, "n:output:0")])
    model.function("goes_on", [_node("n", "Less", "x", "x")], [("dims", _INT), ("x", _FLOAT)], [("y", types_pb2.DT_BOOL, "n:z:0")])
    model.function(nodes=[_BIG, _node("n", "While", "big:output:0", "a", body="fills", cond="goes_on")], takes=[("a", _FLOAT)])


def _many_fills(model):
    size = _constant("d", 1 << 27)
    model.function(nodes=[size, *(_node(f"f{i}", "Fill", "d:output:0", "a") for i in range(100))], takes=[("a", _FLOAT)])


def _many_constants(model):
    model.function(nodes=[_constant(f"c{i}", 0.0, dtype=_FLOAT, shape=[1 << 26]) for i in range(10)])


def _many_objects_of_one_constant(model):
    model.graph.node.append(_constant("big", 0.0, dtype=_FLOAT, shape=[1 << 24]))
    for _ in range(100):
        model.objects.nodes.add().constant.operation = "big"


def _many_variables(model):
    for _ in range(100):
        made = model.objects.nodes.add().variable
        made.dtype = _FLOAT
        made.shape.dim.add(size=1 << 27)


def _large_default_of_a_signature(model):
    value = struct_pb2.StructuredValue()
    value.tensor_value.dtype = _FLOAT
    value.tensor_value.float_val.append(0)
    value.tensor_value.tensor_shape.dim.add(size=1 << 30)
    next(iter(model.objects.concrete_functions.values())).output_signature.list_value.values.append(value)


def _configured(key, value):
    def change(model):
        model.function("callee")
        model.function(nodes=[_node("n", "PartitionedCall", f="callee", **{key: value})])

    return change


def _optimizer_settings(**settings):
    return rewriter_config_pb2.RewriterConfig(**settings).SerializeToString()


def _session_settings(**settings):
    return config_pb2.ConfigProto(graph_options=config_pb2.GraphOptions(rewrite_options=rewriter_config_pb2.RewriterConfig(**settings))).SerializeToString()


SIZES = {
    "a shape in one constant": _made("Fill", _BIG, inputs=("big:output:0", "a")),
    "of another type": _made("Fill", _BIG_LONG, inputs=("big:output:0", "a")),
    "in bytes": _made("Fill", _constant_of_bytes("big", 1 << 20, 1 << 20), inputs=("big:output:0", "a")),
    "packed of numbers": _made("Fill", *_PAIR, inputs=("big:output:0", "a")),
    "joined of vectors": _made("Fill", _constant("x", 1 << 20), _constant("axis", 0, shape=[]), _node("big", "ConcatV2", "x:output:0", "x:output:0", "axis:output:0", N=2), inputs=("big:output:0", "a")),
    "computed": _made("Fill", _HALF, _node("big", "Mul", "half:output:0", "half:output:0"), inputs=("big:z:0", "a")),
    "squared": _made("Fill", _HALF, _node("big", "Square", "half:output:0"), inputs=("big:y:0", "a")),
    "cast": _made("Fill", _constant("f", 3e9, dtype=_FLOAT), _node("big", "Cast", "f:output:0", DstT=attr_value_pb2.AttrValue(type=_LONG)), inputs=("big:y:0", "a")),
    "part of a vector": _made("Fill", _constant("v", 3, 1 << 30), _constant("begin", 1), _constant("size", 1), _node("big", "Slice", "v:output:0", "begin:output:0", "size:output:0"), inputs=("big:output:0", "a")),
    "the greatest of several": _made("Fill", _constant("v", 3, 1 << 30), _constant("axis", 0), _node("big", "Max", "v:output:0", "axis:output:0"), inputs=("big:output:0", "a")),
    "the shape of a constant": _made("BroadcastTo", _constant("c", 0.0, dtype=_FLOAT, shape=[1 << 14, 1 << 14, 4]), _node("big", "Shape", "c:output:0"), inputs=("a", "big:output:0")),
    "handed to a function": _through_a_call,
    "returned by a function": _returned_by_a_call,
    "captured by a branch": _captured_by_a_branch,
    "carried by a loop": _carried_by_a_loop,
    "an image": _made("ResizeBilinear", _BIG, inputs=("a", "big:output:0")),
    "a projected image": _made("ImageProjectiveTransformV3", _BIG, inputs=("a", "b", "big:output:0", "a")),
    "a filled image": _made("ScaleAndTranslate", _BIG, inputs=("a", "big:output:0")),
    "a gradient of a slice": _made("StridedSliceGrad", _BIG, inputs=("big:output:0",)),
    "a filter's gradient": _made("Conv2DBackpropFilter", _constant("big", 1, 1, 1 << 20, 1 << 20), inputs=("a", "big:output:0", "a")),
    "a transposed convolution": _made("Conv2DBackpropInput", _constant("big", 1, 1 << 20, 1 << 20, 1), inputs=("big:output:0", "a", "a")),
    "segments": _made("UnsortedSegmentSum", _HUGE, inputs=("a", "b", "huge:output:0")),
    "sparse segments": _made("SparseSegmentSumWithNumSegments", _HUGE, inputs=("a", "b", "b", "huge:output:0")),
    "segments by their largest number": _made("SegmentSum", _constant("big", 0, 1 << 30), inputs=("a", "big:output:0")),
    "bins": _made("DenseBincount", _HUGE, inputs=("b", "huge:output:0", "a")),
    "a sparse tensor's rows": _made("SparseFillEmptyRows", _constant("big", 1 << 31, 2, dtype=_LONG), inputs=("a", "b", "big:output:0", "a")),
    "a dense one of it": _made("SparseToDense", _BIG_LONG, inputs=("b", "big:output:0", "a", "a")),
    "scattered": _made("ScatterNd", _BIG, inputs=("b", "a", "big:output:0")),
    "classes": _made("OneHot", _HUGE, inputs=("b", "huge:output:0", "a", "a")),
    "a range": _made("Range", _constant("zero", 0, shape=[]), _HUGE, _constant("one", 1, shape=[]), inputs=("zero:output:0", "huge:output:0", "one:output:0")),
    "numbers between others": _made("LinSpace", _HUGE, inputs=("a", "a", "huge:output:0")),
    "repetition": _made("Tile", _constant("c", 0.0, dtype=_FLOAT, shape=[1 << 14]), _constant("times", 1 << 20), inputs=("c:output:0", "times:output:0")),
    "padding": _made("Pad", _constant("p", 0, 2**31 - 1, shape=[1, 2]), inputs=("a", "p:output:0")),
    "mirrored padding": _made("MirrorPad", _constant("p", 1 << 20, 1 << 20, 1 << 20, 1 << 20, shape=[2, 2]), inputs=("a", "p:output:0")),
    "random numbers": _made("RandomStandardNormal", _BIG, inputs=("big:output:0",)),
    "random numbers of a seed": _made("StatelessRandomUniform", _BIG, inputs=("big:output:0", "b")),
    "a list": _made("TensorListReserve", _HUGE, inputs=("b", "huge:output:0")),
    "elements of a list": _made("EmptyTensorList", _BIG, inputs=("big:output:0", "b")),
    "outer sum": _made("AddV2", _constant("x", 0.0, dtype=_FLOAT, shape=[1 << 20, 1]), _constant("y", 0.0, dtype=_FLOAT, shape=[1, 1 << 20]), inputs=("x:output:0", "y:output:0")),
    "outer product": _made("MatMul", _constant("x", 0.0, dtype=_FLOAT, shape=[1 << 20, 1]), _constant("y", 0.0, dtype=_FLOAT, shape=[1, 1 << 20]), inputs=("x:output:0", "y:output:0")),
    "an attribute": _made("DecodePaddedRaw", _HUGE, inputs=("a", "huge:output:0")),
    "a shape in an attribute": _made("Placeholder", inputs=(), shape=_shape(1 << 20, 1 << 20)),
    "a shape of a variable": lambda model: model.graph.node.append(_node("n", "VarHandleOp", shape=_shape(1 << 40))),
    "windows in an attribute": _made("MaxPool", inputs=("a",), ksize=[1, 1 << 20, 1 << 20, 1]),
    "paddings in an attribute": _made("Conv2D", inputs=("a", "a"), explicit_paddings=[0, 0, 1 << 20, 0, 1 << 20, 0, 0, 0]),
    "a count in an attribute": _made("Unpack", inputs=("a",), num=2**31),
    "an attribute that the caller would give": _made("Fill", node_def_pb2.NodeDef(name="d", op="Const", attr={"value": attr_value_pb2.AttrValue(placeholder="v")}), inputs=("d:output:0", "a")),
    "many of a size that is accepted": _many_fills,
    "many constants": _many_constants,
    "many objects of one constant": _many_objects_of_one_constant,
    "many variables": _many_variables,
    "a signature's value": _large_default_of_a_signature,
    "an optimizer of another's": _configured("config", _optimizer_settings(custom_optimizers=[{"name": "anything"}])),
    "an optimizer's memory": _configured("config", _optimizer_settings(memory_optimizer_target_node_name_scope="x")),
    "an optimizer's rounds": _configured("config", _optimizer_settings(meta_optimizer_iterations=2)),
    "an optimizer in the session's settings": _configured("config_proto", _session_settings(custom_optimizers=[{"name": "anything"}])),
    "damaged settings": _configured("config_proto", b"\xff"),
    "another executor": _configured("executor_type", b"SINGLE_THREADED_EXECUTOR"),
}
# Each kind, and what is said of all of it: nodes here lack attributes, which is refused as well.
KINDS = {
    "disguised": (DISGUISED, "named like an operation|reads or writes files|under a path of its own|gradients in the older form"),
    "replacing": (REPLACING, "would be set as an attribute"),
    "sizes": (SIZES, "at most [0-9]+ (is|are) accepted|session configuration|sets (config|executor_type)|stands for one that the caller"),
}


@pytest.fixture(scope="module")
def model_of(tmp_path_factory):
    """A function that writes the shipped example as `change` edits it, and returns its path."""
    path = shutil.copytree(refused_models.EXAMPLE, tmp_path_factory.mktemp("spelling") / "model")
    (path / "saved_model.pb").chmod(0o644)

    def write(change):
        model = _Model()
        change(model)
        (path / "saved_model.pb").write_bytes(model.saved_model.SerializeToString())
        return path

    return write


def test_the_example_itself_is_accepted(model_of):
    assert scan.scan_model(model_of(lambda model: None)).findings == ()


@pytest.mark.parametrize("kind, name", [(kind, name) for kind, (cases, _) in KINDS.items() for name in cases])
def test_every_spelling_is_refused_for_what_it_is(model_of, kind, name):
    cases, reason = KINDS[kind]
    said = [finding.reason for finding in scan.scan_model(model_of(cases[name])).findings]
    assert any(re.search(reason, text) for text in said), said
