"""Where candidates come from: a function, a directory, or a model with ranges of settings.

A source travels to the child process that asks it for its candidates: the user's code runs there, and nowhere else.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import itertools
import os
import pathlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Optional, Union

import numpy as np

from odp_taskbuilder import errors
from odp_taskbuilder.config import load_config, resolve
from odp_taskbuilder.config.spec import DpAggregator
from odp_taskbuilder.proxy.space import Candidate

MODEL, CONFIG = "saved_model", "task_config.pbtxt"
# Factors on what the config says, where no values are given.
_WIDTHS = (0.5, 1.0, 2.0)
_CLIENT_RATES = (0.3, 1.0, 3.0)
_SERVER_RATES = (0.5, 1.0)
_CLIPS = (0.3, 1.0, 3.0)
_BATCH_SIZES = (0.5, 1.0)


@dataclasses.dataclass(frozen=True)
class FunctionSpace:
    """A user's function of a NumPy generator, which yields Candidates; as many are taken as are asked for.

    Attributes:
      function: MODULE:FUNCTION, where MODULE is a module's name or the path of a file.
    """

    function: str

    def candidates(self, rng: np.random.Generator) -> Iterator[Candidate]:
        return iter(load_function(self.function)(rng))


@dataclasses.dataclass(frozen=True)
class DirectorySpace:
    """A directory that holds one directory for each candidate, of its name: with `saved_model`, `task_config.pbtxt` and, for
    each scale that proxies ask for, `scale_<scale>/saved_model`."""

    path: str

    def candidates(self, rng: np.random.Generator) -> Iterator[Candidate]:
        root = pathlib.Path(self.path)
        for directory in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
            yield Candidate(directory.name, functools.partial(self._model, directory), directory / CONFIG)

    @staticmethod
    def _model(directory: pathlib.Path, scale: float) -> pathlib.Path:
        return directory / MODEL if scale == 1 else directory / f"scale_{scale:g}" / MODEL


@dataclasses.dataclass(frozen=True)
class ReadyMadeSpace:
    """The settings of one task, varied: each candidate is a random combination, the first one the task as it stands.

    Attributes:
      task_config: path of the config that is varied.
      model_function: MODULE:FUNCTION that makes the model; called with a width, of which 1 is the model as it is meant, or, if it takes
        no argument, without one. What it returns is what `model_of` takes.
      saved_model: the model's directory, in place of a function; has one width only.
      widths, client_learning_rates, server_learning_rates, clips, report_goals, batch_sizes: values to choose from; None takes factors
        around the config's value, and of the report goal the config's only.
    """

    task_config: str
    model_function: Optional[str] = None
    saved_model: Optional[str] = None
    widths: Optional[tuple[float, ...]] = None
    client_learning_rates: Optional[tuple[float, ...]] = None
    server_learning_rates: Optional[tuple[float, ...]] = None
    clips: Optional[tuple[float, ...]] = None
    report_goals: Optional[tuple[int, ...]] = None
    batch_sizes: Optional[tuple[int, ...]] = None

    def candidates(self, rng: np.random.Generator) -> Iterator[Candidate]:
        make_model = load_function(self.model_function) if self.model_function else None
        has_width = make_model is not None and bool(inspect.signature(make_model).parameters)
        config = load_config(self.task_config).config
        process, dataset = config.federated_learning.learning_process, config.policies.dataset_policy
        adapts = resolve(load_config(self.task_config)).privacy.aggregator in (DpAggregator.ADAPTIVE_GAUSSIAN, DpAggregator.ADAPTIVE_TREE)
        clip = "init_clip_norm" if adapts else "clip_norm"
        spec = resolve(load_config(self.task_config))
        base = {
            "w": 1.0,
            "lr": process.client_learning_rate,
            "slr": process.server_learning_rate,
            "clip": spec.privacy.clip_norm,
            "goal": spec.privacy.report_goal,
            "batch": max(1, dataset.batch_size),
        }
        values = [
            self._values(self.widths, _WIDTHS, 1.0) if has_width else (1.0,),
            self._values(self.client_learning_rates, _CLIENT_RATES, base["lr"]),
            self._values(self.server_learning_rates, _SERVER_RATES, base["slr"]),
            self._values(self.clips, _CLIPS, base["clip"]) if not spec.privacy.skip_aggregator else (base["clip"],),
            self.report_goals or (base["goal"],),
            self.batch_sizes or tuple(sorted({max(1, round(factor * base["batch"])) for factor in _BATCH_SIZES})),
        ]
        combinations = list(itertools.product(*values))
        as_it_stands = tuple(base.values())
        order = [as_it_stands, *(combinations[position] for position in rng.permutation(len(combinations)))]
        for combination in dict.fromkeys(order):
            chosen = dict(zip(base, combination))
            process.client_learning_rate, process.server_learning_rate = chosen["lr"], chosen["slr"]
            process.runtime_config.report_goal, dataset.batch_size = chosen["goal"], chosen["batch"]
            if chosen["clip"]:
                setattr(config.differential_privacy, clip, chosen["clip"])
            name = "_".join(f"{key}{value:g}" for key, value in chosen.items())
            yield Candidate(name, self._model(make_model, has_width, chosen["w"]), str(config))

    def _model(self, make_model: Optional[Callable], has_width: bool, width: float) -> Union[Callable[[float], Any], pathlib.Path]:
        if make_model is None:
            return pathlib.Path(self.saved_model)
        return (lambda scale: make_model(width * scale)) if has_width else (lambda scale: self._unscaled(make_model, scale))

    @staticmethod
    def _unscaled(make_model: Callable, scale: float) -> Any:
        if scale != 1:
            raise errors.UsageError("The model's function takes no width, so that it has one scale only.")
        return make_model()

    @staticmethod
    def _values(given: Optional[Sequence[Any]], factors: Sequence[float], value: float) -> Sequence[Any]:
        return given or tuple(float(f"{factor * value:.6g}") for factor in factors)


Source = Union[FunctionSpace, DirectorySpace, ReadyMadeSpace]


def source_of(text: str) -> Source:
    """The source that a command line names: a directory, or MODULE:FUNCTION.

    Raises:
      UsageError: it is neither.
    """
    if pathlib.Path(text).is_dir():
        return DirectorySpace(os.path.abspath(text))
    check_reference(text)
    return FunctionSpace(text)


def check_reference(text: str) -> None:
    """Raises UsageError if a text is no MODULE:FUNCTION, or names a file that is not there."""
    module, colon, function = text.rpartition(":")
    if not colon or not module or not function.isidentifier():
        raise errors.UsageError(
            f"{text!r} is neither a directory nor MODULE:FUNCTION.",
            next_step="Write for example my_space.py:candidates, or the name of a directory with one directory per candidate.",
        )
    if module.endswith(".py") and not pathlib.Path(module).is_file():
        raise errors.UsageError(f"There is no file {module}.")


def load_function(reference: str) -> Callable:
    """Imports MODULE:FUNCTION; runs the module.

    Raises:
      UsageError: there is no such module, or no such function in it.
      ModelError: the module raises.
    """
    check_reference(reference)
    name, _, function = reference.rpartition(":")
    try:
        module = _load_file(pathlib.Path(name)) if name.endswith(".py") else _import(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise errors.UsageError(f"There is no module {name!r}, from {os.getcwd()} or among the installed ones.") from error
        raise raised_by_user(error, reference) from error
    except Exception as error:
        raise raised_by_user(error, reference) from error
    found = getattr(module, function, None)
    if not callable(found):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise errors.UsageError(
            f"{name} has no function {function!r}.", next_step=f"Its functions: {', '.join(functions) or 'none'}."
        )
    return found


def _load_file(path: pathlib.Path) -> Any:
    # Its neighbours can be imported from it, as if it were run.
    directory = str(path.parent.resolve())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    spec = importlib.util.spec_from_file_location(f"odp_task_space_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _import(name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return importlib.import_module(name)


def raised_by_user(error: BaseException, what: str) -> errors.ModelError:
    """An error that the user's code raised, with its file and line."""
    return errors.ModelError(f"{what} raised {described(error)}", next_step="Mend the search space; what was finished is kept.")


def described(error: BaseException) -> str:
    """What was raised, and by which line of the user's: the innermost one outside of libraries."""
    if isinstance(error, errors.OdpTaskError):
        return " ".join(error.message.split())
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and "odp_taskbuilder" not in frame.filename and not frame.filename.startswith("<")]
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}{place}" if text else f"{type(error).__name__}{place}"
