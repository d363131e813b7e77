"""Task configs: text in, TaskSpec out.

load_config(path) or parse_config(text)  ->  LoadedConfig  ->  resolve()  ->  TaskSpec

resolve() raises all problems of a config at once, those of its text and those of its values.

Uses base/ and proto/. What a value costs in privacy is privacy/'s; whether a model fits it is learning/'s.
"""

from odp_taskbuilder.config.load import LoadedConfig, load_config, parse_config
from odp_taskbuilder.config.resolve import resolve
from odp_taskbuilder.config.show import ResolvedValue, resolved_values
from odp_taskbuilder.config.spec import ASSUMED_POPULATION, ResolveOptions, TaskSpec
from odp_taskbuilder.config.warnings import ConfigWarning, warnings_for

__all__ = [
    "ASSUMED_POPULATION",
    "ConfigWarning",
    "LoadedConfig",
    "ResolveOptions",
    "ResolvedValue",
    "TaskSpec",
    "load_config",
    "parse_config",
    "resolve",
    "resolved_values",
    "warnings_for",
]
