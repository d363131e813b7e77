"""Checks many configs: `odp-task validate` as a function."""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Sequence
from typing import Optional

from odp_taskbuilder import errors
from odp_taskbuilder.config import load, resolve, spec, warnings


@dataclasses.dataclass(frozen=True)
class ConfigCheck:
    """What is known about one config.

    Attributes:
      task: the resolved config; None if there is an error.
      error: holds every problem; None if there are none.
    """

    source: str
    task: Optional[spec.TaskSpec] = None
    warnings: tuple[warnings.ConfigWarning, ...] = ()
    error: Optional[errors.ConfigError] = None


def check_configs(paths: Sequence[str], options: spec.ResolveOptions) -> list[ConfigCheck]:
    """Checks the configs at the given paths, which may be patterns with *, ? and ** or, for standard input, `-`.

    The privacy budget is not accounted for, and no model is looked at.
    """
    return [_check_config(path, options) for pattern in paths for path in _matches(pattern)]


def _matches(pattern: str) -> list[str]:
    """The files that a pattern names; the pattern itself if there are none, so that the reader reports it."""
    if pattern == "-" or os.path.exists(pattern):
        return [pattern]
    return sorted(glob.glob(pattern, recursive=True)) or [pattern]


def _check_config(path: str, options: spec.ResolveOptions) -> ConfigCheck:
    source = load.STDIN if path == "-" else path
    try:
        task = resolve.resolve(load.load_config(path), options)
    except errors.ConfigError as error:
        return ConfigCheck(source, error=error)
    return ConfigCheck(source, task, warnings.warnings_for(task))
