"""Loading a FunctionalModel without its weights entering a graph.

`tff.learning.models.load_functional_model` turns every weight into a NumPy array, and the learning algorithms embed those arrays in
their `initialize` computation. Here the weights stay in the variables that TensorFlow restored, and the model carries `WeightSpec`
stand-ins: they have a shape and a dtype, and become a tensor of zeros where an algorithm asks for a value. The cost of building
a task then does not grow with the number of parameters; only the initial checkpoint does.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, Callable, Union

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder import errors
from odp_taskbuilder.model import tff_exit  # noqa: F401 - imported for what it does at the end of the process.
from odp_taskbuilder.scan import files

# What save_functional_model attaches to the root of a SavedModel.
_MEMBERS = (
    "predict_on_batch_training",
    "predict_on_batch_training_type_spec",
    "predict_on_batch_inference",
    "predict_on_batch_inference_type_spec",
    "loss",
    "serialized_input_spec",
)


@dataclasses.dataclass(frozen=True)
class WeightSpec:
    """Stands for one weight: `shape` and `dtype` (NumPy) of the value, which itself stays in its variable."""

    shape: tuple[int, ...]
    dtype: np.dtype


tf.register_tensor_conversion_function(
    WeightSpec,
    lambda value, dtype=None, name=None, as_ref=False: tf.zeros(value.shape, dtype or tf.as_dtype(value.dtype), name),
)


# Takes and returns what the function of that name in the SavedModel does: its outputs flat, or as one tensor.
ForwardFunction = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class ForwardFunctions:
    """What a saved FunctionalModel computes: as loaded, concrete functions of TensorFlow.

    Attributes:
      training, inference: of `model_weights`, `x`, `training`.
      loss: of output, label, sample_weight.
      output_specs: the structure of what `training` and `inference` compute.
    """

    training: ForwardFunction
    inference: ForwardFunction
    loss: ForwardFunction
    output_specs: Any


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A FunctionalModel and its weights, apart from each other.

    Attributes:
      functional_model: a `tff.learning.models.FunctionalModel` whose `initial_weights` are `WeightSpec`s and which has no metrics.
      forward: what `functional_model` is made of.
      trainable, non_trainable: the restored variables, in the order of `functional_model.initial_weights`.
    """

    functional_model: tff.learning.models.FunctionalModel
    forward: ForwardFunctions
    trainable: tuple[tf.Variable, ...]
    non_trainable: tuple[tf.Variable, ...]

    @property
    def input_spec(self) -> Any:
        """The pair (features, label) of TensorSpecs, or of structures of them, with the batch as first axis."""
        return self.functional_model.input_spec

    def with_forward(self, forward: ForwardFunctions) -> LoadedModel:
        """The model with other functions, on the same weights."""
        model = _functional_model(self.functional_model.initial_weights, forward, self.input_spec)
        return dataclasses.replace(self, functional_model=model, forward=forward)


def load_model(path: Union[str, os.PathLike]) -> LoadedModel:
    """Loads what `tff.learning.models.save_functional_model` wrote.

    This runs TensorFlow's loader, which may execute parts of the model: scan models of unknown origin first (scan/).
    Needs memory for the weights once.

    Args:
      path: a directory with `saved_model.pb` and `variables/`.

    Raises:
      errors.ModelError: the directory is missing, unreadable or holds something else, or nothing in the model is trainable.
    """
    path = files.require_saved_model(path)
    try:
        module = tf.saved_model.load(str(path))
    except Exception as error:  # noqa: BLE001 - TensorFlow raises whatever a broken file makes it stumble over.
        raise errors.ModelError(f"TensorFlow cannot load the model in {path}: {_first_line(error)}") from error
    # Taken as the file set them, and then only through methods of TensorFlow's classes: an attribute of a loaded object may be a function
    # of the file by the name of a method.
    members = vars(module)
    missing = [name for name in _MEMBERS if name not in members]
    if missing:
        raise errors.ModelError(
            f"The SavedModel in {path} is not a FunctionalModel: it has no {', '.join(missing)}.",
            next_step=files.how_to_save(path),
        )
    try:
        trainable, non_trainable = _weights(members)
        forward = ForwardFunctions(
            _function(members, "predict_on_batch_training"),
            _function(members, "predict_on_batch_inference"),
            _function(members, "loss"),
            _tensor_specs(members["predict_on_batch_training_type_spec"]),
        )
        weights = _specs(trainable), _specs(non_trainable)
        functional_model = _functional_model(weights, forward, _tensor_specs(members["serialized_input_spec"]))
    except errors.ModelError:
        raise
    except Exception as error:  # noqa: BLE001 - members of the right names may still hold anything.
        raise errors.ModelError(f"The FunctionalModel in {path} cannot be read: {_first_line(error)}") from error
    return LoadedModel(functional_model, forward, trainable, non_trainable)


def _genuine(value: Any, kind: type, name: str) -> Any:
    """Returns `value`, an object of that class of TensorFlow's none of whose methods the file has replaced. Raises ValueError."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} is a {type(value).__name__} where a {kind.__name__} was expected")
    replaced = sorted(key for key in vars(value) if callable(getattr(type(value), key, None)))
    if replaced:
        raise ValueError(f"{name} has {', '.join(replaced)} of its own in place of TensorFlow's")
    return value


def _function(members: Mapping[str, Any], name: str) -> tf.types.experimental.ConcreteFunction:
    return _genuine(members[name], tf.types.experimental.ConcreteFunction, name)


def _weights(members: Mapping[str, Any]) -> tuple[tuple[tf.Variable, ...], tuple[tf.Variable, ...]]:
    # A SavedModel drops empty lists, `_weights` among them, so the grouping is taken from the signature of the forward pass.
    (model_weights, *_), _ = _function(members, "predict_on_batch_training").structured_input_signature
    num_trainable, num_non_trainable = (len(tf.nest.flatten(group)) for group in model_weights)
    if num_trainable == 0:
        raise errors.ModelError(
            "The model has no trainable weights, so there is nothing to train.",
            next_step="Give the weights as the first element of initial_weights; in Keras, leave a layer trainable.",
        )
    found = enumerate(tf.nest.flatten(members["_weights"]))
    variables = tuple(_genuine(variable, tf.Variable, f"weight {i}") for i, variable in found)
    if len(variables) != num_trainable + num_non_trainable:
        raise ValueError(f"{len(variables)} weights are saved, the forward pass takes {num_trainable + num_non_trainable}")
    return variables[:num_trainable], variables[num_trainable:]


def _specs(variables: tuple[tf.Variable, ...]) -> tuple[WeightSpec, ...]:
    return tuple(WeightSpec(tuple(v.shape), v.dtype.as_numpy_dtype) for v in variables)


def _functional_model(initial_weights: Any, forward: ForwardFunctions, input_spec: Any) -> tff.learning.models.FunctionalModel:
    @tf.function
    @tf.autograph.experimental.do_not_convert
    def predict_on_batch(model_weights, x, training):
        function = forward.training if training else forward.inference
        return _unflatten(function(model_weights=model_weights, x=x, training=training), forward.output_specs)

    # Models saved by early releases have no type for the loss; it is one scalar.
    def loss(output, label, sample_weight=None):
        flat = forward.loss(output, label, sample_weight)
        return tf.nest.flatten(flat)[0]

    return tff.learning.models.FunctionalModel(
        initial_weights=initial_weights, predict_on_batch_fn=predict_on_batch, loss_fn=loss, input_spec=input_spec
    )


def _unflatten(flat: Any, specs: Any) -> Any:
    return flat if tf.is_tensor(flat) else tf.nest.pack_sequence_as(specs, tf.nest.flatten(flat))


def _tensor_specs(serialized_type: Any) -> Any:
    """Reads a TFF type that the model holds as a string variable; unnamed structs become tuples."""
    serialized_type = _genuine(serialized_type, tf.Variable, "the serialized type of a member")
    proto_class = type(tff.types.serialize_type(tff.TensorType(np.int32)))
    tff_type = tff.types.deserialize_type(proto_class.FromString(serialized_type.numpy()))
    return tff.types.type_to_tf_tensor_specs(_with_containers(tff_type))


def _with_containers(tff_type: tff.Type) -> tff.Type:
    if not isinstance(tff_type, tff.StructType):
        return tff_type
    elements = [(name, _with_containers(element)) for name, element in tff.structure.iter_elements(tff_type)]
    if any(name is not None for name, _ in elements):
        return tff.StructWithPythonType(elements, dict)
    return tff.StructWithPythonType([element for _, element in elements], tuple)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # TensorFlow's headline, which says nothing of the cause.
    return next((line for line in lines if line != "Graph execution error:"), type(error).__name__)
