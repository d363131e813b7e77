"""The examples that come with odp-task: a task config, a model or the program that makes it."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
from typing import Union

from odp_taskbuilder import errors
from odp_taskbuilder.base.stages import Stage, unannounced
from odp_taskbuilder.installation.packages import require_tff

EXAMPLES = ("digits", "emnist_cnn")
_PROGRAM, _MODEL = "make_model.py", "saved_model"
# In the wheel, and in a checkout.
_PLACES = (pathlib.Path(__file__).parents[1] / "examples", pathlib.Path(__file__).parents[3] / "configs")
_SHOWN_LINES = 5


def write_example(name: str, directory: Union[str, os.PathLike], *, stage: Stage = unannounced) -> list[pathlib.Path]:
    """Writes an example into a directory, which is new or empty: configs, model, and the program that made the model.

    A model that is too large to come along is made here, by its program, which needs TensorFlow Federated.

    Args:
      name: one of EXAMPLES.
      stage: told when the model is made.

    Returns:
      What was written, below the directory.

    Raises:
      errors.UsageError: there is something in the directory already, or TensorFlow Federated is needed and not there.
      errors.ModelError: the program failed.
    """
    source = next(place / name for place in _PLACES if (place / name).is_dir())
    target = pathlib.Path(directory)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise errors.UsageError(f"{target} exists and is not an empty directory.", next_step="Name a new one.")
    has_model = (source / _MODEL / "saved_model.pb").is_file()
    if not has_model:
        require_tff()
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.suffix in (".pbtxt", ".py"):
            # Their comments name the commands of a checkout.
            text = path.read_text(encoding="utf-8").replace(f"configs/{name}/", "").replace(".venv/bin/python ", f"{sys.executable} ")
            (target / path.name).write_text(text, encoding="utf-8")
    if has_model:
        shutil.copytree(source / _MODEL, target / _MODEL)
    else:
        with stage("making the model"):
            _make_model(target)
    return sorted(path.relative_to(target) for path in target.iterdir())


def _make_model(target: pathlib.Path) -> None:
    process = subprocess.run(
        [sys.executable, str(target / _PROGRAM), str(target / _MODEL)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if process.returncode != 0:
        said = "\n".join(f"    {line}" for line in process.stdout.decode(errors="replace").strip().splitlines()[-_SHOWN_LINES:])
        raise errors.ModelError(f"{target / _PROGRAM} ended with {process.returncode}:\n{said}")
