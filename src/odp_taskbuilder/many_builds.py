"""Many builds of one model: several configs, and sweeps over their fields.

    for outcome in build_many("saved_model", ["configs/*.pbtxt"], sweeps=["noise_multiplier=0.5,1"]):
        print(outcome.name, outcome.error or outcome.result.directory)

In one process the model and the graphs that do not differ are made once. Every output is complete or absent by itself.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Callable, Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.base import child_python
from odp_taskbuilder.base.stages import Stage, unannounced
from odp_taskbuilder.build import BuildMemory, BuildResult, build_requested
from odp_taskbuilder.build_cache import BuildCache
from odp_taskbuilder.build_request import BuildRequest, Path, check_config
from odp_taskbuilder.config.build_options import DEFAULT_OUTPUT, BuildOptions
from odp_taskbuilder.config.load import config_places
from odp_taskbuilder.config.sweep import parse_sweep, swept
from odp_taskbuilder.privacy.meanwhile import BudgetsAhead
from odp_taskbuilder.stores import inputs
from odp_taskbuilder.transport import deadline as deadlines


@dataclasses.dataclass(frozen=True)
class BuildOutcome:
    """What became of one build.

    Attributes:
      source: the config's name as given.
      settings: what a sweep gave it, by name of the field.
      result: None if there is an error.
      error: also that it was not tried, because another failed.
    """

    source: str
    settings: tuple[tuple[str, str], ...]
    result: Optional[BuildResult] = None
    error: Optional[errors.OdpTaskError] = None

    @property
    def name(self) -> str:
        return ", ".join([self.source, *(f"{name}={value}" for name, value in self.settings)])


@dataclasses.dataclass(frozen=True)
class _Planned:
    source: str
    settings: tuple[tuple[str, str], ...]
    request: Union[BuildRequest, errors.OdpTaskError]


class NotTriedError(errors.OdpTaskError):
    """Another build failed before this one, and that was to end them all."""


def build_many(
    saved_model: Path,
    task_configs: Sequence[Path],
    output: Path = DEFAULT_OUTPUT,
    options: BuildOptions = BuildOptions(),
    *,
    sweeps: Sequence[str] = (),
    overwrite: bool = False,
    fail_fast: bool = False,
    jobs: int = 1,
    use_cache: bool = False,
    stage: Stage = unannounced,
    network: deadlines.Network = deadlines.Network(),
    on_notice: Callable[[str], None] = lambda notice: None,
) -> Iterator[BuildOutcome]:
    """Builds every config with every combination of a sweep's values, and yields what became of each, in order.

    Args:
      task_configs: as for `build`, and patterns with *, ? and **.
      output: below it each build goes into `<population>/`, with a sweep into `<field>=<value>,.../<population>/`.
      sweeps: `field=value,value,...`, for the fields of a TaskConfig.
      fail_fast: try no further build once one has failed.
      jobs: processes that build; each loads TensorFlow.
      use_cache: as `build`'s cache.

    Raises:
      errors.ConfigError: before any build: a sweep names no field or no value, or two outputs are at the same place.
    """
    parsed = [parse_sweep(text) for text in sweeps]
    planned: list[_Planned] = []
    for place in config_places(task_configs):
        try:
            loaded = inputs.read_config(place, network)
        except errors.OdpTaskError as error:
            planned.append(_Planned(os.fspath(place), (), error))
            continue
        for config in swept(loaded, parsed):
            below = ",".join(f"{name}={urllib.parse.quote(value, safe='')}" for name, value in config.settings)
            request: Union[BuildRequest, errors.OdpTaskError]
            try:
                request = check_config(
                    config.config, pathlib.Path(output, below), options, overwrite=overwrite, network=network
                )
            except errors.OdpTaskError as error:
                request = error
            planned.append(_Planned(os.fspath(place), config.settings, request))
    _check_distinct(planned)
    return _built(planned, saved_model, fail_fast, jobs, use_cache, stage, network, on_notice)


def _check_distinct(planned: Sequence[_Planned]) -> None:
    """Raises ConfigError if two outputs are at the same place."""
    found: dict[str, _Planned] = {}
    for build in planned:
        if isinstance(build.request, BuildRequest):
            place = os.path.realpath(build.request.destination)
            if place in found:
                names = " and ".join(_name(other) for other in (found[place], build))
                raise errors.ConfigError(
                    [
                        errors.Problem(
                            f"{names} would both be written to {build.request.destination}.",
                            suggestion="Give them different values of population_name, or build one of them.",
                        )
                    ],
                    source="command line",
                )
            found[place] = build


def _name(build: _Planned) -> str:
    return BuildOutcome(build.source, build.settings).name


def _built(
    planned: Sequence[_Planned],
    saved_model: Path,
    fail_fast: bool,
    jobs: int,
    use_cache: bool,
    stage: Stage,
    network: deadlines.Network,
    on_notice: Callable[[str], None],
) -> Iterator[BuildOutcome]:
    failed = False
    with contextlib.ExitStack() as stack:
        if jobs > 1:
            # Its processes start with the first jobs, multiprocessing's own with the pool.
            with child_python.elsewhere():
                pool = concurrent.futures.ProcessPoolExecutor(
                    min(jobs, len(planned)), multiprocessing.get_context("spawn"), initializer=_start_worker
                )
                stack.callback(pool.shutdown, cancel_futures=True)
                futures = [
                    pool.submit(_build_in_worker, saved_model, build.request, network, use_cache)
                    if isinstance(build.request, BuildRequest)
                    else None
                    for build in planned
                ]
        budgets = BudgetsAhead([build.request.spec for build in planned if isinstance(build.request, BuildRequest)])
        stack.callback(budgets.close)
        memory = BuildMemory(budgets)
        for number, build in enumerate(planned):
            result, error = None, None
            notices: list[str] = []
            if isinstance(build.request, errors.OdpTaskError):
                error = build.request
            elif failed and fail_fast:
                error = NotTriedError("Not built: another build failed before it.")
            elif jobs > 1:
                with stage(f"building {_name(build)}"):
                    try:
                        result, error, notices = futures[number].result()
                    except concurrent.futures.process.BrokenProcessPool:
                        error = errors.ModelError("The process that built it, or another one, ended unexpectedly: out of memory?")
            else:
                result, error, notices = _build(saved_model, build.request, network, use_cache, memory, stage)
            for notice in notices:
                on_notice(notice)
            if error is not None and not failed:
                failed = True
                if fail_fast and jobs > 1:
                    pool.shutdown(wait=False, cancel_futures=True)
            yield BuildOutcome(build.source, build.settings, result, error)


def _build(
    saved_model: Path, request: BuildRequest, network: deadlines.Network, use_cache: bool, memory: BuildMemory, stage: Stage
) -> tuple[Optional[BuildResult], Optional[errors.OdpTaskError], list[str]]:
    cache = BuildCache() if use_cache else None
    result = error = None
    try:
        result = build_requested(request, saved_model, stage=stage, network=network, cache=cache, memory=memory)
    except errors.OdpTaskError as caught:
        error = caught
    return result, error, cache.notices if cache is not None else []


# Of a worker process, whose builds share it.
_worker_memory = BuildMemory()


def _start_worker() -> None:
    # What libraries print there is nobody's.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _build_in_worker(
    saved_model: Path, request: BuildRequest, network: deadlines.Network, use_cache: bool
) -> tuple[Optional[BuildResult], Optional[errors.OdpTaskError], list[str]]:
    return _build(saved_model, request, network, use_cache, _worker_memory, unannounced)
