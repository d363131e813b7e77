"""SavedModels whose loading runs functions, reached in every way that TensorFlow has, at several depths; and what it ran.

`python reachable_models.py OUT` writes each model, loads it with TensorFlow, and writes OUT/ran.json: for each model the functions that ran,
by the names that they have in its file. Each function leaves a file of its name behind when it runs. What a build does with a loaded
model besides counts as loading: it takes gradients, and lets go of the model.
"""

from __future__ import annotations

import gc
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import Callable

# A function that saves or restores variables is named like this by TensorFlow; the saver calls it, and loading does not.
CHECKPOINT_FUNCTION = "__inference__traced_save_77"
DEPTHS = (1, 3)
# Ways that every entry is tried with; the others are tried with one.
MAIN_WAYS = ("stateful_call", "named_like_an_operation", "then", "loop_condition")


def write_all(out: pathlib.Path) -> dict[str, list[str]]:
    import tensorflow as tf
    from tensorflow.core.framework import attr_value_pb2, function_pb2, node_def_pb2
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.trackable import resource as trackable_resource

    def node(name: str, op: str, inputs: Iterable[str] = (), **attrs) -> node_def_pb2.NodeDef:
        made = node_def_pb2.NodeDef(name=name, op=op, input=inputs)
        for key, value in attrs.items():
            attr = made.attr[key]
            if isinstance(value, attr_value_pb2.AttrValue):
                attr.CopyFrom(value)
            elif isinstance(value, tf.DType):
                attr.type = value.as_datatype_enum
            elif isinstance(value, list):
                attr.list.SetInParent()
                attr.list.type.extend(dtype.as_datatype_enum for dtype in value)
            elif isinstance(value, int):
                attr.i = value
            else:
                attr.func.name = value
        return made

    def constant(name: str, value) -> node_def_pb2.NodeDef:
        proto = tf.make_tensor_proto(value)
        return node(name, "Const", value=attr_value_pb2.AttrValue(tensor=proto), dtype=tf.as_dtype(proto.dtype))

    def branches(*names: str) -> attr_value_pb2.AttrValue:
        attr = attr_value_pb2.AttrValue()
        for name in names:
            attr.list.func.add(name=name)
        return attr

    numbers = {"Tin": [tf.int32], "Tout": [tf.int32]}
    # Each: the nodes by which a function reaches another, which takes and returns a number. The number that it has is "i".
    ways: dict[str, Callable[[str], list]] = {
        "partitioned_call": lambda f: [node("call", "PartitionedCall", ["i"], f=f, **numbers)],
        "stateful_call": lambda f: [node("call", "StatefulPartitionedCall", ["i"], f=f, **numbers)],
        "then": lambda f: [constant("yes", True), _branch("If", f, "passes")],
        "else": lambda f: [constant("yes", False), _branch("If", "passes", f)],
        "stateless_then": lambda f: [constant("yes", True), _branch("StatelessIf", f, "passes")],
        "case": lambda f: [
            constant("which", 1),
            node("call", "Case", ["which:output:0", "i"], branches=branches("passes", f), **numbers),
        ],
        "loop_body": lambda f: [node("call", "While", ["i"], cond="is_zero", body=f, T=[tf.int32])],
        "stateless_loop_body": lambda f: [node("call", "StatelessWhile", ["i"], cond="is_zero", body=f, T=[tf.int32])],
        "loop_condition": lambda f: [node("call", "While", ["i"], cond=f"condition_{f}", body="passes", T=[tf.int32])],
        "dataset": lambda f: [
            constant("begin", tf.constant(0, tf.int64)),
            constant("end", tf.constant(1, tf.int64)),
            node("range", "RangeDataset", ["begin:output:0", "end:output:0", "end:output:0"], output_types=[tf.int64], output_shapes=_shapes(1)),
            node("call", "ReduceDataset", ["range:handle:0", "i"], f=f"step_{f}", Tstate=[tf.int32], Targuments=[], output_types=[tf.int32], output_shapes=_shapes(1)),
        ],
        # The loader calls a function whose name is a node's operation.
        "named_like_an_operation": lambda f: [
            node("direct", f, ["i"]),
            node("call", "StatefulPartitionedCall", ["direct:out:0"], f="writes_down", **numbers),
        ],
        # By the older form of gradients, in a list of the library's own.
        "gradient_of_the_library": lambda f: [node("call", "SymbolicGradient", ["i", "i"], f="passes", Tin=[tf.int32] * 2, Tout=[tf.int32])],
        "map_defun": lambda f: [
            constant("rows", [0]),
            node("call", "MapDefun", ["rows:output:0"], f=f, Targuments=[tf.int32], Tcaptured=[], output_types=[tf.int32], output_shapes=_shapes(1)),
        ],
    }

    def _branch(op: str, then: str, other: str) -> node_def_pb2.NodeDef:
        return node("call", op, ["yes:output:0", "i"], then_branch=then, else_branch=other, Tcond=tf.bool, **numbers)

    def _shapes(count: int) -> attr_value_pb2.AttrValue:
        attr = attr_value_pb2.AttrValue()
        for _ in range(count):
            attr.list.shape.add()
        return attr

    def function(name: str, inputs: list, nodes: list, output: str, output_type=tf.int32) -> function_pb2.FunctionDef:
        """Writes its name into a file beside the others', and does what the nodes do."""
        made = function_pb2.FunctionDef()
        made.signature.name = name
        made.signature.is_stateful = True
        for key, dtype in inputs:
            made.signature.input_arg.add(name=key, type=dtype.as_datatype_enum)
        made.signature.output_arg.add(name="out", type=output_type.as_datatype_enum)
        made.node_def.extend([constant("mark", str(marks / name)), node("write", "WriteFile", ["mark:output:0", "mark:output:0"]), *nodes])
        made.ret["out"] = output
        for key in ["write", *(["call"] if any(item.name == "call" for item in nodes) else [])]:
            made.control_ret[key] = key
            made.signature.control_output.append(key)
        return made

    def number_function(name: str, nodes: list) -> function_pb2.FunctionDef:
        # A function that is called by its name as an operation does no more than its result needs.
        plus = [constant("one", 1), node("sum", "AddV2", ["i", "one:output:0", "^write"], T=tf.int32)]
        return function(name, [("i", tf.int32)], [*nodes, *plus], "sum:z:0")

    def helpers(names: Iterable[str], way: str) -> Iterator[function_pb2.FunctionDef]:
        zero = [constant("zero", 0), node("equal", "Equal", ["i", "zero:output:0"], T=tf.int32)]
        yield number_function("passes", [])
        text = [node("text", "AsString", ["i"], T=tf.int32), node("call", "WriteFile", ["mark:output:0", "text:output:0"])]
        yield number_function("writes_down", text)
        yield function("is_zero", [("i", tf.int32)], zero, "equal:z:0", tf.bool)
        for name in names:
            call = [node("call", "StatefulPartitionedCall", ["i"], f=name, **numbers)]
            if way == "loop_condition":
                yield function(f"condition_{name}", [("i", tf.int32)], [*call, *zero], "equal:z:0", tf.bool)
            if way == "gradient_of_the_library":
                yield function(f"gradient_{name}", [("i", tf.int32), ("j", tf.int32)], call, "call:output:0")
            if way == "dataset":
                yield function(f"step_{name}", [("i", tf.int32), ("element", tf.int64)], call, "call:output:0")

    class Resource(trackable_resource.CapturableResource):
        def _create_resource(self):
            return tf.raw_ops.MutableHashTableV2(key_dtype=tf.int64, value_dtype=tf.int64)

        @tf.function(input_signature=[])
        def _initialize(self):
            return tf.constant(1)

        @tf.function(input_signature=[])
        def _destroy_resource(self):
            tf.raw_ops.DestroyResourceOp(resource=self.resource_handle, ignore_lookup_error=True)
            return tf.constant(1)

    class Captured(tf.Module):
        """A function captures the resource: the loader makes it for that."""

        def __init__(self):
            self.resource = Resource()
            self.size = tf.function(lambda: tf.raw_ops.LookupTableSizeV2(table_handle=self.resource.resource_handle), input_signature=[])

    class Saveable(tf.__internal__.tracking.Trackable):
        def _serialize_to_tensors(self):
            return {"a": tf.constant(1)}

        def _restore_from_tensors(self, restored_tensors):
            return tf.no_op()

    class Differentiated(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
        def of(self, x):
            @tf.custom_gradient
            def square(x):
                def grad(dy):
                    return 2.0 * x * dy

                return x * x, grad

            return square(x)

    # Where loading begins to run what a file holds: what makes, initialises and ends a resource, what saves and restores an object of a
    # class of its own, a function's gradient. By a part of the function's name; the gradient's is whatever it is.
    entries = [
        ("__inference__creator", Captured),
        ("__inference__initialize", Resource),
        ("__inference__destroy_resource", Resource),
        ("save_fn", Saveable),
        ("restore_fn", Saveable),
        ("gradient", Differentiated),
    ]
    ran: dict[str, list[str]] = {}
    marks = out / "marks"
    for entry, attached in entries:
        module = tf.Module()
        module.attached = attached()
        module.variable = tf.Variable(1.0)
        template = out / "template" / attached.__name__
        tf.saved_model.save(module, str(template), options=tf.saved_model.SaveOptions(experimental_custom_gradients=True))
        for way, reach in ways.items():
            if entry != "restore_fn" and way not in MAIN_WAYS:
                continue
            for depth in DEPTHS:
                for last in ("leaf", CHECKPOINT_FUNCTION):
                    model = out / f"{entry.strip('_').removeprefix('inference__')}-{way}-{depth}-{'disguised' if last != 'leaf' else 'plain'}"
                    shutil.copytree(template, model)
                    saved_model = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
                    meta_graph = saved_model.meta_graphs[0]
                    library = meta_graph.graph_def.library.function
                    gradients = [gradient.gradient_func for gradient in meta_graph.graph_def.library.registered_gradients]
                    # A chain of functions that are all called like operations is too long for the loader if it has two links.
                    further = ways["stateful_call"] if way == "named_like_an_operation" else reach
                    names = [*(f"step{i}" for i in range(depth - 1)), last]
                    for begin in [item for item in library if entry in item.signature.name or (entry == "gradient" and item.signature.name in gradients)]:
                        begin.node_def.extend([constant("i", 0), *_renamed((reach if depth == 1 else further)(names[0]), "i", "i:output:0")])
                        begin.control_ret["call"] = "call"
                        begin.signature.control_output.append("call")
                        begin.signature.is_stateful = True
                    for name, following in zip(names, [*names[1:], None]):
                        reaches = reach if following == last else further
                        library.append(number_function(name, reaches(following) if following else []))
                    library.extend(helpers(names, way))
                    if way == "gradient_of_the_library":
                        meta_graph.graph_def.library.gradient.add(function_name="passes", gradient_func=f"gradient_{names[0]}")
                    if last != "leaf":
                        saver = meta_graph.saver_def.save_tensor_name.partition(":")[0]
                        (saves,) = (n for n in meta_graph.graph_def.node if n.name == saver)
                        saves.attr["f"].func.name = last
                    (model / "saved_model.pb").write_bytes(saved_model.SerializeToString())
                    shutil.rmtree(marks, ignore_errors=True)
                    marks.mkdir()
                    try:
                        loaded = tf.saved_model.load(str(model))
                        if entry == "gradient":
                            x = tf.constant(3.0)
                            with tf.GradientTape() as tape:
                                tape.watch(x)
                                y = loaded.attached.of(x)
                            tape.gradient(y, x)
                    except Exception as error:  # noqa: BLE001 - what ran before counts.
                        (out / f"{model.name}.txt").write_text(str(error))
                    loaded = None
                    gc.collect()
                    ran[model.name] = sorted(os.listdir(marks))
    shutil.rmtree(out / "template")
    return ran


def _renamed(nodes: list, old: str, new: str) -> list:
    for item in nodes:
        item.input[:] = [new if operand == old else operand for operand in item.input]
    return nodes


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1])
    (out / "ran.json").write_text(json.dumps(write_all(out)))
    os._exit(0)
