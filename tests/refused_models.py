"""Models that the scan refuses and TensorFlow would load: the shipped example with something added, without TensorFlow."""

from __future__ import annotations

import pathlib
import shutil

import odp_taskbuilder.proto  # noqa: F401 - makes TensorFlow's messages importable without TensorFlow.

from tensorflow.core.framework import types_pb2  # isort: skip
from tensorflow.core.protobuf import saved_model_pb2  # isort: skip

EXAMPLE = pathlib.Path(__file__).resolve().parent.parent / "configs" / "digits" / "saved_model"


def _function_that_writes(meta_graph: object, target: pathlib.Path) -> None:
    function = meta_graph.graph_def.library.function.add()
    function.signature.name = "writes"
    text = function.node_def.add(name="text", op="Const")
    text.attr["dtype"].type = types_pb2.DT_STRING
    text.attr["value"].tensor.dtype = types_pb2.DT_STRING
    text.attr["value"].tensor.tensor_shape.SetInParent()
    text.attr["value"].tensor.string_val.append(str(target).encode())
    function.node_def.add(name="write", op="WriteFile", input=["text:output:0", "text:output:0"])


def _node_that_reads(meta_graph: object, target: pathlib.Path) -> None:
    node = meta_graph.graph_def.node.add(name="name", op="Const")
    node.attr["dtype"].type = types_pb2.DT_STRING
    node.attr["value"].tensor.dtype = types_pb2.DT_STRING
    node.attr["value"].tensor.tensor_shape.SetInParent()
    node.attr["value"].tensor.string_val.append(str(target).encode())
    meta_graph.graph_def.node.add(name="read", op="ReadFile", input=["name"])


def _python_function(meta_graph: object, target: pathlib.Path) -> None:
    function = meta_graph.graph_def.library.function.add()
    function.signature.name = "calls_python"
    node = function.node_def.add(name="call", op="EagerPyFunc")
    node.attr["token"].s = str(target).encode()


# What is added -> the op that every refusal of it names.
ADDITIONS = {"WriteFile": _function_that_writes, "ReadFile": _node_that_reads, "EagerPyFunc": _python_function}


def save(directory: pathlib.Path, op: str, target: pathlib.Path) -> pathlib.Path:
    """Writes the example with ADDITIONS[op] in it, which is after `target`; returns `directory`."""
    shutil.copytree(EXAMPLE, directory)
    file = directory / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    ADDITIONS[op](saved_model.meta_graphs[0], target)
    file.chmod(0o644)
    file.write_bytes(saved_model.SerializeToString())
    return directory
