"""Checks many configs: `odp-task validate` as a function. Loads no TensorFlow."""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Sequence
from typing import Optional

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import phone_fit
from odp_taskbuilder.base.phone_limits import MAX_CLIENT_CHECKPOINT_BYTES
from odp_taskbuilder.config import ConfigWarning, ResolveOptions, TaskSpec, load_config, resolve, warnings_for
from odp_taskbuilder.config.load import STDIN
from odp_taskbuilder.model.input_spec import ModelSpec, read_model_spec


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
    model = None
    if saved_model is not None:
        model = read_model_spec(saved_model)
        phone_fit.check_client_checkpoint(phone_fit.client_checkpoint_bytes(model), max_client_checkpoint_bytes)
    return [_check_config(path, options, model) for pattern in paths for path in _matches(pattern)]


def _matches(pattern: str) -> list[str]:
    """The files that a pattern names; the pattern itself if there are none, so that the reader reports it."""
    if pattern == "-" or os.path.exists(pattern):
        return [pattern]
    return sorted(glob.glob(pattern, recursive=True)) or [pattern]


def _check_config(path: str, options: ResolveOptions, model: Optional[ModelSpec]) -> ConfigCheck:
    source = STDIN if path == "-" else path
    try:
        task = resolve(load_config(path), options)
    except errors.ConfigError as error:
        return ConfigCheck(source, notices=error.notices, error=error)
    found = (*warnings_for(task), *_impossible_clip(task))
    if model is not None:
        found += tuple(ConfigWarning("label_name", notice) for notice in phone_fit.phone_notices(model, task.label_name))
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
