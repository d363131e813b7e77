"""Saving a Keras model as the FunctionalModel that a build takes."""

from __future__ import annotations

import pathlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Optional, Union

from odp_taskbuilder import errors

if TYPE_CHECKING:
    import tensorflow as tf

    from odp_taskbuilder.model.keras_functional import KerasLoss, KerasModel


def save_keras_model(
    model: KerasModel,
    path: Union[str, pathlib.Path],
    *,
    loss: KerasLoss,
    feature_spec: Union[tf.TensorSpec, Mapping[str, tf.TensorSpec], None] = None,
    label_spec: Optional[tf.TensorSpec] = None,
    overwrite: bool = False,
) -> None:
    """Saves a Keras model for `build`, with an input spec that is read from the model.

    Layers that behave differently while training, Dropout for example, do so in training rounds and not in evaluations. Weights
    of layers with `trainable=False` stay as they are, and travel to phones with the others. Penalties of regularizers and `add_loss` are no
    part of what TFF minimizes; a warning says so.

    Args:
      model: a built model, whose weights are the initial ones; or a function that makes one, for models that Keras cannot copy
        (`tf.keras.models.clone_model`), subclassed ones for example. The function is called several times and makes the same model every
        time; the weights are those of the first call.
      path: directory to make.
      loss: a Keras loss, its name, or a function of label and prediction to a loss for each example.
      feature_spec: what the model takes, with the batch (None) in front: a tensor, which examples hold as `x`, or tensors by name. Read from
        the model's inputs unless given: several, or one in a mapping, are named as the inputs are. Ids for an Embedding in front of a
        Sequential model are int64. A subclassed model knows no inputs and needs it.
      label_spec: the label's dtype and its shape with the batch (None) in front. Unless given, it is the prediction's shape in
        float32; for sparse cross-entropy the classes' axis is left out, or has length 1 where it is the only one, in int64.
      overwrite: replace what is at `path`.

    Raises:
      errors.ModelError: the model cannot be saved, or no phone could parse examples for it.
      errors.StorageError: there is something at `path`, or it cannot be written.
    """
    path = pathlib.Path(path)
    if path.exists() and not overwrite:
        raise errors.StorageError(f"{path} exists.", next_step="Choose another directory, or replace it with overwrite=True.")
    # Only now: this module is imported for its name.
    from odp_taskbuilder.model import keras_functional

    functional_model = keras_functional.functional_model(model, loss, feature_spec, label_spec)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as staging:
            saved = pathlib.Path(staging) / "saved_model"
            keras_functional.save(functional_model, saved)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.is_symlink() or path.exists():
                path.unlink()
            saved.rename(path)
    except OSError as error:
        raise errors.StorageError(f"{path} cannot be written: {error.strerror or error}.") from error
