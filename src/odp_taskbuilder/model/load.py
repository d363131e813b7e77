"""Loading a FunctionalModel without its weights entering a graph.

`tff.learning.models.load_functional_model` turns every weight into a NumPy array, and the learning algorithms embed those arrays in
their `initialize` computation. Here the weights stay in the variables that TensorFlow restored, and the model carries `WeightSpec`
stand-ins: they have a shape and a dtype, and become a tensor of zeros where an algorithm asks for a value. The cost of building
a task then does not grow with the number of parameters; only the initial checkpoint does.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, Union

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder import errors
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


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A FunctionalModel and its weights, apart from each other.

    Attributes:
      functional_model: a `tff.learning.models.FunctionalModel` whose `initial_weights` are `WeightSpec`s and which has no metrics.
      trainable, non_trainable: the restored variables, in the order of `functional_model.initial_weights`.
    """

    functional_model: tff.learning.models.FunctionalModel
    trainable: tuple[tf.Variable, ...]
    non_trainable: tuple[tf.Variable, ...]

    @property
    def input_spec(self) -> Any:
        """The pair (features, label) of TensorSpecs, or of structures of them, with the batch as first axis."""
        return self.functional_model.input_spec


def load_model(path: Union[str, pathlib.Path]) -> LoadedModel:
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
    missing = [name for name in _MEMBERS if not hasattr(module, name)]
    if missing:
        raise errors.ModelError(
            f"The SavedModel in {path} is not a FunctionalModel: it has no {', '.join(missing)}.",
            next_step="Save the model with tff.learning.models.save_functional_model(model, path).",
        )
    try:
        trainable, non_trainable = _weights(module)
        functional_model = tff.learning.models.FunctionalModel(
            initial_weights=(_specs(trainable), _specs(non_trainable)),
            predict_on_batch_fn=_predict_on_batch(module),
            loss_fn=_loss(module),
            input_spec=_tensor_specs(module.serialized_input_spec),
        )
    except errors.ModelError:
        raise
    except Exception as error:  # noqa: BLE001 - members of the right names may still hold anything.
        raise errors.ModelError(f"The FunctionalModel in {path} cannot be read: {_first_line(error)}") from error
    return LoadedModel(functional_model, trainable, non_trainable)


def _weights(module: Any) -> tuple[tuple[tf.Variable, ...], tuple[tf.Variable, ...]]:
    # A SavedModel drops empty lists, `_weights` among them, so the grouping is taken from the signature of the forward pass.
    (model_weights, *_), _ = module.predict_on_batch_training.structured_input_signature
    num_trainable, num_non_trainable = (len(tf.nest.flatten(group)) for group in model_weights)
    if num_trainable == 0:
        raise errors.ModelError(
            "The model has no trainable weights, so there is nothing to train.",
            next_step="Give the weights as the first element of initial_weights; in Keras, leave a layer trainable.",
        )
    variables = tuple(tf.nest.flatten(module._weights))
    if len(variables) != num_trainable + num_non_trainable:
        raise ValueError(f"{len(variables)} weights are saved, the forward pass takes {num_trainable + num_non_trainable}")
    return variables[:num_trainable], variables[num_trainable:]


def _specs(variables: tuple[tf.Variable, ...]) -> tuple[WeightSpec, ...]:
    return tuple(WeightSpec(tuple(v.shape), v.dtype.as_numpy_dtype) for v in variables)


def _predict_on_batch(module: Any) -> Any:
    output_specs = _tensor_specs(module.predict_on_batch_training_type_spec)

    @tf.function
    def predict_on_batch(model_weights, x, training):
        function = module.predict_on_batch_training if training else module.predict_on_batch_inference
        return _unflatten(function(model_weights=model_weights, x=x, training=training), output_specs)

    return predict_on_batch


def _loss(module: Any) -> Any:
    # Models saved by early releases have no type for the loss; it is one scalar.
    def loss(output, label, sample_weight=None):
        flat = module.loss(output, label, sample_weight)
        return tf.nest.flatten(flat)[0]

    return loss


def _unflatten(flat: Any, specs: Any) -> Any:
    return flat if tf.is_tensor(flat) else tf.nest.pack_sequence_as(specs, tf.nest.flatten(flat))


def _tensor_specs(serialized_type: tf.Variable) -> Any:
    """Reads a TFF type that the model holds as a string variable; unnamed structs become tuples."""
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
