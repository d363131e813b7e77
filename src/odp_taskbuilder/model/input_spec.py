"""What a saved FunctionalModel takes and gives, read from its file without TensorFlow."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Optional, Union

import odp_taskbuilder.proto  # noqa: F401 - makes TensorFlow's messages importable without TensorFlow.
from odp_taskbuilder import errors
from odp_taskbuilder.scan import files

from tensorflow.core.framework import types_pb2  # isort: skip
from tensorflow.core.protobuf import saved_object_graph_pb2, struct_pb2  # isort: skip

# What a tf.train.Example stores of each dtype that a model may take. It has no int32 and no bool: those travel as int64, 0 for false.
STORED_AS = {"float32": "float32", "int64": "int64", "string": "string", "int32": "int64", "bool": "int64"}
_DTYPE_NAMES = {types_pb2.DT_FLOAT: "float32", types_pb2.DT_DOUBLE: "float64", types_pb2.DT_HALF: "float16"}


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """A tensor of a batch.

    Attributes:
      dtype: as TensorFlow and NumPy spell it, for example `float32`.
      shape: the batch is the first axis; None for an unknown dimension. None as a whole for an unknown rank.
    """

    dtype: str
    shape: Optional[tuple[Optional[int], ...]]

    @property
    def example_shape(self) -> Optional[tuple[Optional[int], ...]]:
        """The shape without the batch; None if the rank is unknown."""
        return None if self.shape is None else self.shape[1:]

    @property
    def num_values(self) -> int:
        """Elements of a weight, whose shape has no batch; 0 where the shape is not known."""
        return math.prod(size or 0 for size in self.shape or (0,))

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype} of unknown rank"
        return f"{self.dtype} [{', '.join('?' if size is None else str(size) for size in self.shape[1:])}]"


# A tensor, or a mapping or tuple of such.
Structure = Union[TensorInfo, Mapping[str, "Structure"], tuple["Structure", ...]]


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The structures of a model's features, of its label, and of what its forward pass gives to the loss.

    Attributes:
      weights: trainable and non-trainable weights, whose shapes have no batch.
      trainable: those of them that are trained, and sent back.
    """

    features: Structure
    label: Structure
    output: Structure
    weights: tuple[TensorInfo, ...] = ()
    trainable: tuple[TensorInfo, ...] = ()


def read_model_spec(path: Union[str, os.PathLike]) -> ModelSpec:
    """Reads what `tff.learning.models.save_functional_model` wrote; takes milliseconds and runs nothing of the model.

    Raises:
      errors.ModelError: the directory is missing, unreadable or holds something else.
    """
    saved_model = files.read_saved_model(files.require_saved_model(path))
    graph = (
        saved_model.meta_graphs[0].object_graph_def if saved_model.meta_graphs else saved_object_graph_pb2.SavedObjectGraph()
    )
    try:
        forward_pass = _arguments(graph, "predict_on_batch_training")
        loss = _arguments(graph, "loss")
        weights: Any = _structure(forward_pass["model_weights"])  # (trainable, non-trainable)
        return ModelSpec(
            features=_structure(forward_pass["x"]),
            label=_structure(loss["label"]),
            output=_structure(loss["output"]),
            weights=tuple(_tensors(weights)),
            trainable=tuple(_tensors(weights[0])),
        )
    except (KeyError, IndexError, ValueError) as error:
        raise errors.ModelError(
            f"The SavedModel in {path} is not a FunctionalModel: {_reason(error)}.",
            next_step=files.how_to_save(path),
        ) from error


def check_parsable(what: str, tensor: TensorInfo) -> None:
    """Whether a `tf.train.Example` can hold an example of this tensor, and a phone make batches of any size of them (spec: plan.md,
    section 6.3).

    Args:
      what: names the tensor at the start of a sentence: "Feature 'x'".

    Raises:
      errors.ModelError: it cannot; says what would do.
    """
    shape = "<unknown>" if tensor.shape is None else str(tensor.shape)
    if tensor.dtype not in STORED_AS:
        raise errors.ModelError(
            f"{what} of the model has dtype {tensor.dtype}; examples hold float32, int64, string, or int32 and bool as int64.",
            next_step="Take one of these in the model's input_spec and cast inside the model.",
        )
    if not tensor.shape or None in tensor.shape[1:]:
        raise errors.ModelError(
            f"{what} of the model has shape {shape}; the batch comes first and every other dimension must be known.",
            next_step="Give the model's input_spec a fixed size for each example, and pad examples to it.",
        )
    if tensor.shape[0] is not None:
        # The last batch of a device holds what is left.
        raise errors.ModelError(
            f"{what} of the model has shape {shape}: it takes batches of {tensor.shape[0]} only, and batches differ in size.",
            next_step="Save the model with an input_spec whose batch dimension is None.",
        )


def check_label_name(features: Iterable[str], label_name: Optional[str]) -> None:
    """Whether a config's label_name fits a model with named features.

    Raises:
      errors.ConfigError: it is missing, or is also the name of a feature.
    """
    features = list(features)
    if not label_name:
        suggestion = f"The model's features are named ({', '.join(features)}): set label_name to the label's name."
        raise errors.ConfigError([errors.Problem("Label name cannot be empty.", path="label_name", suggestion=suggestion)])
    if label_name in features:
        message = f"label_name: {label_name!r} is also the name of a feature of the model."
        raise errors.ConfigError([errors.Problem(message, path="label_name")])


def check_examples(model: ModelSpec, label_name: Optional[str]) -> None:
    """Whether examples on devices can be parsed into a model's features and label: what a build finds out from the loaded model, told
    from its file.

    Raises:
      errors.ModelError, errors.ConfigError: as check_parsable and check_label_name.
    """
    if isinstance(model.features, Mapping):
        check_label_name(model.features, label_name)
        tensors = {f"Feature {name!r}": tensor for name, tensor in model.features.items()}
    else:
        label_name = "y"
        tensors = {"Feature 'x'": model.features}
    for what, tensor in {**tensors, f"The label {label_name!r}": model.label}.items():
        # Of other structures the loaded model tells more than its file.
        if isinstance(tensor, TensorInfo):
            check_parsable(what, tensor)


def misfit(path: Union[str, os.PathLike]) -> Optional[str]:
    """Why there is no FunctionalModel in a directory, and what to do; None where there is one."""
    try:
        read_model_spec(path)
    except errors.ModelError as error:
        return str(error)
    return None


def _reason(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def _arguments(graph: saved_object_graph_pb2.SavedObjectGraph, name: str) -> dict[str, struct_pb2.StructuredValue]:
    """The arguments of a function of the root object, by name. Raises KeyError, IndexError or ValueError where the form is another."""
    members = {child.local_name: child.node_id for child in graph.nodes[0].children}
    function = graph.nodes[members[name]].bare_concrete_function
    if function.concrete_function_name not in graph.concrete_functions:  # Reading an entry that is not there would make one.
        raise KeyError(name)
    signature = graph.concrete_functions[function.concrete_function_name].canonicalized_input_signature
    positional, by_name = signature.tuple_value.values
    names = function.function_spec.fullargspec.named_tuple_value.values[0].value.list_value.values
    arguments = dict(zip((value.string_value for value in names), positional.tuple_value.values))
    return {**arguments, **by_name.dict_value.fields}


def _tensors(structure: Structure) -> Iterator[TensorInfo]:
    if isinstance(structure, TensorInfo):
        yield structure
    else:
        for element in structure.values() if isinstance(structure, Mapping) else structure:
            yield from _tensors(element)


def _structure(value: struct_pb2.StructuredValue) -> Structure:
    kind = value.WhichOneof("kind")
    if kind == "tensor_spec_value":
        spec = value.tensor_spec_value
        dims = None if spec.shape.unknown_rank else tuple(None if dim.size < 0 else dim.size for dim in spec.shape.dim)
        return TensorInfo(_DTYPE_NAMES.get(spec.dtype) or types_pb2.DataType.Name(spec.dtype)[len("DT_") :].lower(), dims)
    if kind == "dict_value":
        return {name: _structure(field) for name, field in sorted(value.dict_value.fields.items())}
    if kind == "named_tuple_value":
        return {pair.key: _structure(pair.value) for pair in value.named_tuple_value.values}
    if kind in ("tuple_value", "list_value"):
        return tuple(_structure(element) for element in getattr(value, kind).values)
    raise ValueError(f"found {kind} where a tensor was expected")
