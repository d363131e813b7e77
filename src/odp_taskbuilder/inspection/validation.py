"""Checks many configs: `odp-task validate` as a function. Loads no TensorFlow."""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Sequence
from typing import Optional

from odp_taskbuilder import errors
from odp_taskbuilder.config import ConfigWarning, ResolveOptions, TaskSpec, load_config, resolve, warnings_for
from odp_taskbuilder.config.load import STDIN


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


def check_configs(paths: Sequence[str], options: ResolveOptions) -> list[ConfigCheck]:
    """Checks the configs at the given paths, which may be patterns with *, ? and ** or, for standard input, `-`.

    The privacy budget is not accounted for where that takes seconds, and no model is looked at.
    """
    return [_check_config(path, options) for pattern in paths for path in _matches(pattern)]


def _matches(pattern: str) -> list[str]:
    """The files that a pattern names; the pattern itself if there are none, so that the reader reports it."""
    if pattern == "-" or os.path.exists(pattern):
        return [pattern]
    return sorted(glob.glob(pattern, recursive=True)) or [pattern]


def _check_config(path: str, options: ResolveOptions) -> ConfigCheck:
    source = STDIN if path == "-" else path
    try:
        task = resolve(load_config(path), options)
    except errors.ConfigError as error:
        return ConfigCheck(source, notices=error.notices, error=error)
    found = (*warnings_for(task), *_impossible_clip(task))
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
