"""odp-task: builds federated learning tasks for Android's On-Device Personalization.

    import odp_taskbuilder

    result = odp_taskbuilder.build("saved_model", "task_config.pbtxt")

The names of `__all__` are the public API (docs/python.md); whatever else is in this package may change. They are imported on first
use: importing the package itself takes milliseconds, and neither TensorFlow nor TensorFlow Federated.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from odp_taskbuilder import errors as errors
    from odp_taskbuilder.build import BuildResult as BuildResult
    from odp_taskbuilder.build import build as build
    from odp_taskbuilder.config import LoadedConfig as LoadedConfig
    from odp_taskbuilder.config import ResolveOptions as ResolveOptions
    from odp_taskbuilder.config import TaskSpec as TaskSpec
    from odp_taskbuilder.config import load_config as load_config
    from odp_taskbuilder.config import parse_config as parse_config
    from odp_taskbuilder.config import resolve as resolve  # type: ignore[no-redef]
    from odp_taskbuilder.config.build_options import BuildOptions as BuildOptions
    from odp_taskbuilder.config.compression import Compression as Compression
    from odp_taskbuilder.inspection.diff import diff as diff
    from odp_taskbuilder.inspection.inspect import inspect as inspect
    from odp_taskbuilder.inspection.verify import verify as verify
    from odp_taskbuilder.model.save_keras import save_keras_model as save_keras_model
    from odp_taskbuilder.privacy import PrivacyBudget as PrivacyBudget
    from odp_taskbuilder.privacy import privacy_budget as privacy_budget
    from odp_taskbuilder.scan import scan_model as scan_model
    from odp_taskbuilder.simulation.round_options import RoundOptions as RoundOptions
    from odp_taskbuilder.simulation.simulate import SimulationOptions as SimulationOptions
    from odp_taskbuilder.simulation.simulate import simulate as simulate

# Public name -> the module that defines it.
_HOMES = {
    "BuildOptions": "odp_taskbuilder.config.build_options",
    "BuildResult": "odp_taskbuilder.build",
    "Compression": "odp_taskbuilder.config.compression",
    "LoadedConfig": "odp_taskbuilder.config",
    "PrivacyBudget": "odp_taskbuilder.privacy",
    "ResolveOptions": "odp_taskbuilder.config",
    "RoundOptions": "odp_taskbuilder.simulation.round_options",
    "SimulationOptions": "odp_taskbuilder.simulation.simulate",
    "TaskSpec": "odp_taskbuilder.config",
    "diff": "odp_taskbuilder.inspection.diff",
    "inspect": "odp_taskbuilder.inspection.inspect",
    "load_config": "odp_taskbuilder.config",
    "parse_config": "odp_taskbuilder.config",
    "privacy_budget": "odp_taskbuilder.privacy",
    "resolve": "odp_taskbuilder.config",
    "save_keras_model": "odp_taskbuilder.model.save_keras",
    "scan_model": "odp_taskbuilder.scan",
    "simulate": "odp_taskbuilder.simulation.simulate",
    "verify": "odp_taskbuilder.inspection.verify",
}
# Modules that are public themselves. `build` can be called: a function of its name would vanish behind the module as soon as that is imported.
_MODULES = ("build", "errors")

__all__ = [*_HOMES, *_MODULES]  # noqa: PLE0604 - names, all of them


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
