"""What a client's TFLite graph does, told from its flatbuffer: the examples it asks for, the tensors it reads and writes.

Tensor names and feature names are constants beside the ops that use them (spec: plan.md, sections 4.7 and 6).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any, Optional

from google.protobuf import message as protobuf_message

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import dtypes
from odp_taskbuilder.artifacts.tensors import TensorSpec, shape_of
from odp_taskbuilder.ops.tflite import Operator, Subgraph, Tensor, TfliteGraph, read_node_def
from odp_taskbuilder.proto import plan_pb2

# Positions among the inputs of TensorFlow's ops.
_SELECTOR, _BATCH_SIZE, _TAKE_COUNT, _DENSE_KEYS, _TENSOR_NAMES, _SAVED_DATA = 1, 1, 1, 3, 1, 3


@dataclasses.dataclass(frozen=True)
class SubgraphSize:
    name: str
    operators: int
    tensors: int


@dataclasses.dataclass(frozen=True)
class ClientGraph:
    """A client's TFLite graph.

    Attributes:
      num_bytes, sha256: of the flatbuffer.
      inputs, outputs: tensors of the main subgraph.
      input_indices: the inputs' indices among its tensors, which devices take for their positions among the inputs.
      features: what is parsed from each example, with the shape of one example.
      example_selector_uri: the collection that the graph asks the example store for; None where it asks for none.
      batch_size: examples per batch; None where the graph does not say.
      max_batches: batches per run, -1 for all; None where the graph does not say.
      loop: the op that iterates over the batches.
      reads: tensors restored from the server's checkpoint; many shapes show only in the plan.
      writes: tensors of the update.
    """

    num_bytes: int
    sha256: str
    version: int
    description: str
    subgraphs: tuple[SubgraphSize, ...]
    inputs: tuple[TensorSpec, ...]
    input_indices: tuple[int, ...]
    outputs: tuple[TensorSpec, ...]
    features: tuple[TensorSpec, ...]
    example_selector_uri: Optional[str]
    batch_size: Optional[int]
    max_batches: Optional[int]
    loop: Optional[str]
    reads: tuple[TensorSpec, ...]
    writes: tuple[TensorSpec, ...]


def describe_client_graph(graph: TfliteGraph, tflite_graph: bytes, what: str) -> ClientGraph:
    """Describes a client's graph.

    Args:
      graph: the content of the flatbuffer `tflite_graph`.
      what: its name in messages.

    Raises:
      ArtifactError: the attributes of an op are corrupt.
    """
    main = graph.subgraphs[0]
    uses = list(_uses(graph.subgraphs))
    return ClientGraph(
        num_bytes=len(tflite_graph),
        sha256=hashlib.sha256(tflite_graph).hexdigest(),
        version=graph.version,
        description=graph.description,
        subgraphs=tuple(SubgraphSize(s.name, len(s.operators), len(s.tensors)) for s in graph.subgraphs),
        inputs=tuple(_spec(main.tensors[index]) for index in main.inputs),
        input_indices=main.inputs,
        outputs=tuple(_spec(main.tensors[index]) for index in main.outputs),
        features=tuple(feature for use in uses if use.op == "ParseExampleV2" for feature in _features(use)),
        example_selector_uri=_example_selector_uri(uses, what),
        batch_size=_first_integer(uses, "BatchDatasetV2", _BATCH_SIZE),
        max_batches=_first_integer(uses, "TakeDataset", _TAKE_COUNT),
        loop=next((use.op for use in uses if use.op in ("ReduceDataset", "IteratorGetNextAsOptional")), None),
        reads=tuple(tensor for use in uses if use.op == "RestoreV2" for tensor in _restored(use)),
        writes=tuple(tensor for use in uses if use.op == "SaveSlices" for tensor in _saved(use)),
    )


@dataclasses.dataclass(frozen=True)
class _Use:
    """An operator with the tensors that it works on."""

    operator: Operator
    subgraph: Subgraph
    loop_shapes: dict[int, Optional[tuple[int, ...]]]

    @property
    def op(self) -> str:
        return self.operator.op

    def constant(self, position: int) -> tuple:
        """The elements of a constant input; empty where it is not constant."""
        if position >= len(self.operator.inputs) or self.operator.inputs[position] < 0:
            return ()
        return self.subgraph.tensors[self.operator.inputs[position]].constant or ()

    def names(self, position: int) -> list[str]:
        return [name.decode("utf-8", "replace") for name in self.constant(position) if isinstance(name, bytes)]


def _uses(subgraphs: tuple[Subgraph, ...]) -> Iterator[_Use]:
    for subgraph in subgraphs:
        loop_shapes = _loop_shapes(subgraph)
        for operator in subgraph.operators:
            yield _Use(operator, subgraph, loop_shapes)


def _features(use: _Use) -> Iterator[TensorSpec]:
    node = read_node_def(use.operator)
    types, shapes = node.attr["Tdense"].list.type, node.attr["dense_shapes"].list.shape
    for name, dtype, shape in zip(use.names(_DENSE_KEYS), types, shapes):
        yield TensorSpec(name, dtypes.dtype_name(dtype), shape_of(shape))


def _example_selector_uri(uses: list[_Use], what: str) -> Optional[str]:
    selectors = [selector for use in uses if use.op == "ExternalDataset" for selector in use.constant(_SELECTOR)]
    if not selectors or not isinstance(selectors[0], bytes):
        return None
    try:
        return plan_pb2.ExampleSelector.FromString(selectors[0]).collection_uri or None
    except protobuf_message.DecodeError:
        raise errors.ArtifactError(
            f"{what}: the selector of ExternalDataset is no ExampleSelector; a device would refuse it"
        ) from None


def _first_integer(uses: list[_Use], op: str, position: int) -> Optional[int]:
    values: list[Any] = [use.constant(position) for use in uses if use.op == op]
    return values[0][0] if values and len(values[0]) == 1 else None


def _restored(use: _Use) -> Iterator[TensorSpec]:
    for name, index in zip(use.names(_TENSOR_NAMES), use.operator.outputs):
        tensor = use.subgraph.tensors[index]
        yield TensorSpec(name, tensor.dtype.lower(), use.loop_shapes.get(index, tensor.shape))


def _loop_shapes(subgraph: Subgraph) -> dict[int, Optional[tuple[int, ...]]]:
    """Shapes of the tensors that enter a ReduceDataset as its state: the state keeps its shape, and leaves with it."""
    return {
        entering: subgraph.tensors[leaving].shape
        for operator in subgraph.operators
        if operator.op == "ReduceDataset"
        for entering, leaving in zip(operator.inputs[1:], operator.outputs)
    }


def _saved(use: _Use) -> Iterator[TensorSpec]:
    for name, index in zip(use.names(_TENSOR_NAMES), use.operator.inputs[_SAVED_DATA:]):
        if index >= 0:
            yield _spec(use.subgraph.tensors[index], name)


def _spec(tensor: Tensor, name: Optional[str] = None) -> TensorSpec:
    return TensorSpec(tensor.name if name is None else name, tensor.dtype.lower(), tensor.shape)
