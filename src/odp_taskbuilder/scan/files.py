"""What a SavedModel is on disk. Needs no TensorFlow."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Union

from odp_taskbuilder import errors


def require_saved_model(path: Union[str, pathlib.Path]) -> pathlib.Path:
    """Returns `path` if it is a directory with a binary SavedModel and its variables.

    Raises:
      errors.ModelError: it is not; says what is missing.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise errors.ModelError(
            f"There is no model at {path}.", next_step="Pass the directory that save_functional_model wrote."
        )
    if not path.is_dir():
        raise errors.ModelError(f"{path} is a file; a model is a directory with saved_model.pb in it.")
    for part in ("saved_model.pb", "variables/variables.index"):
        if not (path / part).is_file():
            raise errors.ModelError(
                f"{path} is not a SavedModel of a FunctionalModel: {part} is missing.",
                next_step="Save the model with tff.learning.models.save_functional_model(model, path).",
            )
    return path


def model_files(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The files of a model directory, in sorted order."""
    return (file for file in sorted(path.rglob("*")) if file.is_file())
