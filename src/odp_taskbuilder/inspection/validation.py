"""Checks many configs: `odp-task validate` as a function. Loads no TensorFlow."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Callable, Optional

from odp_taskbuilder import errors
from odp_taskbuilder.base.phone_limits import MAX_CLIENT_CHECKPOINT_BYTES
from odp_taskbuilder.config import ConfigWarning, ResolveOptions, TaskSpec, load_config, resolve, warnings_for
from odp_taskbuilder.config.load import STDIN, config_places

# Adds what phones may refuse of a model to the notices of a task.
_Fit = Callable[[TaskSpec], TaskSpec]


@dataclasses.dataclass(frozen=True)
class ConfigCheck:
    """What is known about one config.

    Attributes:
      task: the resolved config; None if there is an error.
      notices: one sentence each about what was repaired, left out or ignored.
      error: holds every problem; None if there are none.
    """

    source: str
    task: Optional[TaskSpec] = None
    notices: tuple[str, ...] = ()
    warnings: tuple[ConfigWarning, ...] = ()
    error: Optional[errors.ConfigError] = None


def check_configs(
    paths: Sequence[str],
    options: ResolveOptions,
    saved_model: Optional[str] = None,
    max_client_checkpoint_bytes: Optional[int] = MAX_CLIENT_CHECKPOINT_BYTES,
) -> list[ConfigCheck]:
    """Checks the configs at the given paths, which may be patterns with *, ? and ** or, for standard input, `-`.

    The privacy budget is not accounted for where that takes seconds.

    Args:
      saved_model: a model that the configs are for, if any: its file is read, nothing of it is run.
      max_client_checkpoint_bytes: what phones take; None for no limit.

    Raises:
      errors.ModelError: there is no model, or phones do not take it.
    """

    def fit(task: TaskSpec) -> TaskSpec:
        return task

    if saved_model is not None:
        # Imported here, as below: without a model nothing needs NumPy.
        from odp_taskbuilder.artifacts.phone_fit import fitting_phones
        from odp_taskbuilder.model.input_spec import read_model_spec

        read_model_spec(saved_model)
        fit = functools.partial(
            fitting_phones, saved_model=saved_model, max_client_checkpoint_bytes=max_client_checkpoint_bytes
        )
    return [_check_config(path, options, fit) for path in config_places(paths)]


def _check_config(path: str, options: ResolveOptions, fit: _Fit) -> ConfigCheck:
    source = STDIN if path == "-" else path
    try:
        task = resolve(load_config(path), options)
    except errors.ConfigError as error:
        return ConfigCheck(source, notices=error.notices, error=error)
    found = (*warnings_for(task), *_impossible_clip(task))
    found += tuple(ConfigWarning("saved_model", notice) for notice in fit(task).notices[len(task.notices) :])
    # A rejected metric is a notice of the task as well as a warning.
    said = {warning.message for warning in found}
    return ConfigCheck(source, task, tuple(notice for notice in task.notices if notice not in said), found)


def _impossible_clip(task: TaskSpec) -> tuple[ConfigWarning, ...]:
    """Trees are accounted for in milliseconds: whether the clip can adapt to so few clients is known now."""
    spec = task.privacy
    if not (task.mode.trains and spec.aggregator.is_tree and spec.aggregator.is_adaptive) or spec.skip_aggregator:
        return ()
    # Imported here: dp_accounting takes half of the second that a check may.
    from odp_taskbuilder.privacy import privacy_budget

    try:
        privacy_budget(dataclasses.replace(spec, skip_check=True))
    except errors.ConfigError as error:
        return tuple(
            ConfigWarning(problem.path, " ".join(filter(None, [problem.message, problem.suggestion])))
            for problem in error.problems
        )
    return ()
