"""Whether a model may be loaded: the scan's verdict, told in words that help.

A model that was saved in another way than as a FunctionalModel holds much that no FunctionalModel needs. A list of all that would not say
what to do: such a model is told to be no FunctionalModel, wherever models are admitted.
"""

from __future__ import annotations

import os
from typing import Optional, Union

from odp_taskbuilder import errors, scan
from odp_taskbuilder.config import LoadedConfig
from odp_taskbuilder.model import input_spec


def examine(path: Union[str, os.PathLike]) -> tuple[scan.ScanReport, Optional[str]]:
    """Scans a model. Returns the report and, where it has findings, why the model is no FunctionalModel, if that is so.

    Raises:
      errors.ModelError: as `scan.scan_model`.
    """
    report = scan.scan_model(path)
    return report, None if report.is_safe else input_spec.misfit(path)


def require_fit(path: Union[str, os.PathLike], task_config: LoadedConfig, label_name: Optional[str]) -> None:
    """Scans a model and checks, from its file alone, that examples can be parsed into what it takes.

    Raises:
      errors.UntrustedModelError, errors.ModelError: as `require_admissible` and `input_spec.check_examples`.
      errors.ConfigError: the config's label_name does not fit; shown where it stands.
    """
    require_admissible(path)
    with task_config.located():
        input_spec.check_examples(input_spec.read_model_spec(path), label_name)


def require_admissible(path: Union[str, os.PathLike]) -> None:
    """Scans a model before it is loaded.

    Raises:
      errors.UntrustedModelError: it holds what no model needs.
      errors.ModelError: it is no FunctionalModel, or cannot be read.
    """
    try:
        scan.require_safe(path)
    except errors.UntrustedModelError:
        input_spec.read_model_spec(path)
        raise
