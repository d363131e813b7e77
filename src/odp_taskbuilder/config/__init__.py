"""Task configs: text in, TaskSpec out.

load_config(path) or parse_config(text)  ->  LoadedConfig  ->  resolve()  ->  TaskSpec

resolve() raises all problems of a config at once, those of its text and those of its values.
"""

from odp_taskbuilder.config.load import LoadedConfig, load_config, parse_config
from odp_taskbuilder.config.resolve import resolve
from odp_taskbuilder.config.spec import ASSUMED_POPULATION, ResolveOptions, TaskSpec

__all__ = ["ASSUMED_POPULATION", "LoadedConfig", "ResolveOptions", "TaskSpec", "load_config", "parse_config", "resolve"]
