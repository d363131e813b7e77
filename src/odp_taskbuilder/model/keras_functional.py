"""From a Keras model to a FunctionalModel.

`tff.learning.models.functional_model_from_keras` covers most models. It cannot save one whose layers ask for the learning phase (Dropout
and its relatives), and it tells trainable from frozen weights by an argument that Keras does not set for layers with
`trainable=False`. Here the learning phase is set while each forward pass is traced, and weights are told apart by the order in which
Keras makes them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import pathlib
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, Optional, Union

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder import errors
from odp_taskbuilder.model import input_spec

_PASS_A_FUNCTION = "Pass a function that makes the model, the same one every time, instead of the model."

KerasModel = Union[tf.keras.Model, Callable[[], tf.keras.Model]]
KerasLoss = Union[str, tf.keras.losses.Loss, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]


def functional_model(
    model: KerasModel,
    loss: KerasLoss,
    feature_spec: Union[tf.TensorSpec, Mapping[str, tf.TensorSpec], None],
    label_spec: Optional[tf.TensorSpec],
) -> tff.learning.models.FunctionalModel:
    """The FunctionalModel of a Keras model; arguments and errors as those of save_keras_model."""
    loss = _as_loss(loss)
    original, make = _original_and_maker(model)
    features = feature_spec or _feature_spec(original)
    label = label_spec or _label_spec(original, loss)
    for name, spec in (features if isinstance(features, Mapping) else {"x": features}).items():
        _check_parsable(f"Feature {name!r}", spec)
    _check_parsable("The label", label)
    if original.losses:
        warnings.warn(
            f"The model adds {len(original.losses)} penalties of regularizers or add_loss to its loss; TFF leaves them out.",
            stacklevel=3,
        )
    weights = _Weights.of(original, make)

    def forward_pass(training: bool, model_weights: Any, x: Any) -> Any:
        with weights.in_place_of_variables(model_weights), _learning_phase(training):
            return _without_gpu_kernels(make())(x, training=training)

    # Traced here and not where TFF does it: a model that is made inside of a v1 graph turns Keras' classes into those of Keras 1, and
    # models that were made before, that of the caller included, cannot be called any more.
    weight_specs = tf.nest.map_structure(
        tf.TensorSpec.from_tensor, tf.nest.map_structure(tf.convert_to_tensor, weights.initial)
    )
    with _as_model_error("be traced", _PASS_A_FUNCTION):
        traced = {
            training: tf.function(functools.partial(forward_pass, training), autograph=False).get_concrete_function(
                weight_specs, features
            )
            for training in (True, False)
        }

    @tf.function
    def predict_on_batch(model_weights: Any, x: Any, training: bool = True) -> Any:
        return traced[training](model_weights, x)

    def loss_of_batch(output: Any, label: Any, sample_weight: Any = None) -> tf.Tensor:
        return loss(y_true=label, y_pred=output, sample_weight=sample_weight)

    return tff.learning.models.FunctionalModel(
        initial_weights=weights.initial,
        predict_on_batch_fn=predict_on_batch,
        loss_fn=loss_of_batch,
        input_spec=(features, label),
    )


def save(model: tff.learning.models.FunctionalModel, path: pathlib.Path) -> None:
    """Writes a SavedModel. Raises ModelError."""
    with _as_model_error("be saved"):
        tff.learning.models.save_functional_model(model, str(path))


def _original_and_maker(model: KerasModel) -> tuple[tf.keras.Model, Callable[[], tf.keras.Model]]:
    """The model that holds the initial weights, and what makes others like it."""
    if isinstance(model, tf.keras.Model):
        original, make = model, lambda: tf.keras.models.clone_model(model)
    elif callable(model):
        original, make = model(), model
    else:
        raise errors.ModelError(f"Expected a tf.keras.Model or a function that makes one, found a {type(model).__name__}.")
    if not isinstance(original, tf.keras.Model):
        raise errors.ModelError(f"The function makes a {type(original).__name__}, not a tf.keras.Model.")
    if not original.built:
        raise errors.ModelError(
            "The Keras model has no weights yet.",
            next_step="Give the first layer an input_shape, or call the model on a tf.keras.Input before it is saved or returned.",
        )
    if not original.trainable_weights:
        raise errors.ModelError("The Keras model has no trainable weights, so there is nothing to train.")
    for layer in _layers_of(original):
        if isinstance(layer, tf.keras.layers.BatchNormalization) and layer.trainable:
            raise errors.ModelError(
                f"Layer {layer.name!r} is a BatchNormalization: its moving averages change while it trains, and a FunctionalModel cannot "
                "change weights by itself.",
                next_step="Use GroupNormalization or LayerNormalization, or freeze the layer (trainable=False).",
            )
    return original, make


def _without_gpu_kernels(model: tf.keras.Model) -> tf.keras.Model:
    """Has GRU and LSTM compute with ordinary ops only. Beside them Keras would put functions for graphics processors, for a runtime to choose
    from, which no phone has and the scan of models refuses."""
    for layer in _layers_of(model):
        if hasattr(layer, "_could_use_gpu_kernel"):
            layer._could_use_gpu_kernel = False
    return model


def _layers_of(model: tf.keras.Model) -> Iterator[tf.keras.layers.Layer]:
    """All layers, those inside of others included."""
    return (module for module in model.submodules if isinstance(module, tf.keras.layers.Layer))


@dataclasses.dataclass(frozen=True)
class _Weights:
    """The weights of a model.

    Attributes:
      initial: values, (trainable, non-trainable), each in the order in which Keras makes them.
      are_trainable: for each weight, in that order, whether it is trained.
    """

    initial: tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]
    are_trainable: tuple[bool, ...]

    @classmethod
    def of(cls, original: tf.keras.Model, make: Callable[[], tf.keras.Model]) -> _Weights:
        """Reads them from `original`; what `make` makes tells the order."""
        made: list[tf.Variable] = []

        def record(create: Callable[..., tf.Variable], **arguments: Any) -> tf.Variable:
            made.append(create(**arguments))
            return made[-1]

        with _as_model_error("be copied", _PASS_A_FUNCTION), tf.variable_creator_scope(record):
            copy = make()
        positions = {id(variable): position for position, variable in enumerate(copy.variables)}
        order = [positions[id(variable)] for variable in made if id(variable) in positions]
        if _signature(copy) != _signature(original):
            raise errors.ModelError("A copy of the Keras model has other weights than the model.", next_step=_PASS_A_FUNCTION)
        is_trained = [trained for _, _, trained in _signature(copy)]
        are_trainable = tuple(is_trained[position] for position in order)
        values = [original.variables[position].numpy() for position in order]
        trainable, frozen = (
            tuple(value for value, is_trainable in zip(values, are_trainable) if is_trainable is wanted)
            for wanted in (True, False)
        )
        return cls((trainable, frozen), are_trainable)

    @contextlib.contextmanager
    def in_place_of_variables(self, model_weights: tuple[Sequence[tf.Tensor], Sequence[tf.Tensor]]) -> Iterator[None]:
        """Whatever Keras makes a variable of in the block is a tensor of `model_weights` instead."""
        groups = {True: iter(model_weights[0]), False: iter(model_weights[1])}
        remaining = iter(self.are_trainable)

        def take(create: Callable[..., tf.Variable], **arguments: Any) -> tf.Tensor:
            return next(groups[next(remaining)])

        with tf.variable_creator_scope(take):
            yield


def _signature(model: tf.keras.Model) -> list[tuple[tuple, str, bool]]:
    """Shape, dtype and whether it is trained, of each of `model.variables`."""
    trained = {id(variable) for variable in model.trainable_variables}
    return [(tuple(variable.shape), variable.dtype.name, id(variable) in trained) for variable in model.variables]


@contextlib.contextmanager
def _learning_phase(training: bool) -> Iterator[None]:
    """What layers are told that ask Keras whether they train."""
    with warnings.catch_warnings():
        # Keras would rather have layers take an argument; its own Dropout asks as long as it is traced in a graph.
        warnings.simplefilter("ignore")
        scope = tf.keras.backend.learning_phase_scope(int(training))
        with scope:
            yield


@contextlib.contextmanager
def _as_model_error(what: str, next_step: Optional[str] = None) -> Iterator[None]:
    """Turns what Keras and TensorFlow raise about a model into a ModelError: it cannot `what`."""
    try:
        yield
    except (errors.OdpTaskError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - Keras runs a user's layers, which raise what they like.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        # Errors from inside of a traced function come behind the lines of a traceback.
        message = next((line for line in reversed(lines) if re.match(r"[A-Z]\w*Error: ", line)), lines[0])
        if "'untracked' resource" in str(error):
            message = "it holds a table or another resource, as StringLookup, IntegerLookup and TextVectorization do"
            next_step = "Turn strings into numbers before they are stored, or hash them (tf.keras.layers.Hashing)."
        raise errors.ModelError(f"The Keras model cannot {what}: {message}", next_step=next_step) from error


def _feature_spec(model: tf.keras.Model) -> Union[tf.TensorSpec, OrderedDict[str, tf.TensorSpec]]:
    if not model.inputs:
        raise errors.ModelError("The Keras model does not know its inputs.", next_step="Pass feature_spec.")
    if isinstance(model.input, Mapping):
        return OrderedDict((name, _batch_of(tensor)) for name, tensor in model.input.items())
    if len(model.inputs) > 1:
        return OrderedDict((name, _batch_of(tensor)) for name, tensor in zip(model.input_names, model.inputs))
    spec = _batch_of(model.inputs[0])
    # Keras makes a float32 input for it.
    takes_ids = isinstance(model, tf.keras.Sequential) and isinstance(model.layers[0], tf.keras.layers.Embedding)
    return tf.TensorSpec(spec.shape, tf.int64) if takes_ids and spec.dtype.is_floating else spec


def _batch_of(tensor: Any) -> tf.TensorSpec:
    return tf.TensorSpec(tensor.shape if tensor.shape.rank is None else [None, *tensor.shape[1:]], tensor.dtype)


def _label_spec(model: tf.keras.Model, loss: tf.keras.losses.Loss) -> tf.TensorSpec:
    outputs = model.outputs or []
    if len(outputs) != 1 or outputs[0].shape.rank is None:
        raise errors.ModelError(
            "The Keras model has no single output of a known shape to tell the label's shape by.", next_step="Pass label_spec."
        )
    (output,) = outputs
    dims = output.shape.as_list()[1:]
    if "sparse" in loss.name:
        return tf.TensorSpec([None, *(dims[:-1] or [1])], tf.int64)
    return tf.TensorSpec([None, *dims], tf.float32)


def _check_parsable(what: str, spec: tf.TensorSpec) -> None:
    shape = None if spec.shape.rank is None else tuple(spec.shape.as_list())
    input_spec.check_parsable(what, input_spec.TensorInfo(spec.dtype.name, shape))


class _FunctionLoss(tf.keras.losses.Loss):
    """The mean of a function's values."""

    def __init__(self, function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]):
        super().__init__(name=getattr(function, "__name__", "loss"))
        self._function = function

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return self._function(y_true, y_pred)


def _as_loss(loss: KerasLoss) -> tf.keras.losses.Loss:
    if isinstance(loss, str):
        try:
            loss = tf.keras.losses.get(loss)
        except ValueError as error:
            raise errors.ModelError(f"Keras has no loss {loss!r}.") from error
    if isinstance(loss, tf.keras.losses.Loss):
        return loss
    if not callable(loss) or inspect.isclass(loss):
        raise errors.ModelError(
            f"Expected a Keras loss, its name or a function, found {loss!r}.",
            next_step="Pass an instance, such as tf.keras.losses.Hinge().",
        )
    return _FunctionLoss(loss)
