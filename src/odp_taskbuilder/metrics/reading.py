"""Finds and reads the metrics of tasks in directories and buckets, in the server's layout (spec: http_api.md, section 6)."""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Callable, Optional

from odp_taskbuilder import errors, stores
from odp_taskbuilder.metrics.run import CHECKPOINT_METRIC, MAX_BYTES, Run, parse_metrics
from odp_taskbuilder.transport import deadline as deadlines

# {population}/{task}/{round}/s/0/metrics. Anything may stand before it: the guide's monitoring script looks for the objects
# below the bucket's own name.
_METRICS_FILE = re.compile(r"(?:^|/)(?P<population>[^/]+)/(?P<task>[0-9]+)/(?P<round>[0-9]+)/s/0/metrics$")
# A bucket holds a few objects per round.
_LIMITS = stores.TreeLimits(max_files=1_000_000, max_bytes=1 << 60)
_PATIENT = deadlines.Network()


@dataclasses.dataclass(frozen=True)
class TaskFilter:
    """Which tasks to read; None takes all."""

    population: Optional[str] = None
    task_id: Optional[int] = None


@dataclasses.dataclass(frozen=True, order=True)
class _Task:
    source: str
    population: str
    task_id: int


def read_runs(sources: Sequence[str], wanted: TaskFilter, network: deadlines.Network = _PATIENT) -> list[Run]:
    """Reads the metrics of every task in several places.

    Args:
      sources: directories, anywhere above or inside the server's layout, or gs://bucket[/prefix]; NAME=SOURCE names one. Compressed files
        are read, too. In a bucket a population to look for saves listing all others.

    Returns:
      One run per task, ordered by source as given, then by population and task id; named by what tells them apart.

    Raises:
      UsageError: a source holds no metrics of the tasks wanted.
      StorageError: a source cannot be read.
      ArtifactError: a metrics file is damaged, or something else.
    """
    rounds: dict[_Task, dict[int, dict[str, float]]] = {}
    given = _given(sources)
    for source in given:
        found: dict = collections.defaultdict(dict)
        for name, read in _files(source, wanted, network):
            match = _METRICS_FILE.search(name)
            if match and wanted.population in (None, match["population"]) and wanted.task_id in (None, int(match["task"])):
                found[_Task(source, match["population"], int(match["task"]))][int(match["round"])] = _parsed(name, read())
        if not found:
            raise errors.UsageError(
                f"{source} holds no metrics" + _filter_text(wanted) + ".",
                next_step="Expected files named {population}/{task id}/{round}/s/0/metrics in it.",
            )
        rounds.update((task, dict(sorted(found[task].items()))) for task in sorted(found))
    labels = _labels(given)
    names = _names(list(rounds), labels)
    return [Run(names[task], values, labels[task.source], _evaluated(values)) for task, values in rounds.items()]


def groups(sources: Sequence[str]) -> dict[str, str]:
    """The group of the runs that `read_runs` finds in each of several places -> that place."""
    return {label: source for source, label in _labels(_given(sources)).items()}


def _given(sources: Sequence[str]) -> dict[str, Optional[str]]:
    """The sources, each with the name that it was given."""
    return dict(map(_named, sources))


def _named(source: str) -> tuple[str, Optional[str]]:
    """A source and the name that it was given with, NAME=SOURCE."""
    name, equals, rest = source.partition("=")
    if equals and rest and name and not set(name) & set("/:") and not os.path.exists(source):
        return rest, name
    return source, None


def _evaluated(rounds: Mapping[int, Mapping[str, float]]) -> dict[int, int]:
    return {number: int(values[CHECKPOINT_METRIC]) for number, values in rounds.items() if CHECKPOINT_METRIC in values}


def _files(source: str, wanted: TaskFilter, network: deadlines.Network) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yields URL and reader of the files that may be metrics."""
    deadline = deadlines.Deadline(network.deadline)
    store = stores.open_store(source, network, deadline)
    for tree in _trees(source, wanted):
        listed = deadlines.call_within(deadline, functools.partial(store.list, tree, _LIMITS))
        for stored in listed.values():
            if stored.url.endswith("/metrics"):
                read = functools.partial(store.read, stored.url, MAX_BYTES)
                yield stored.url, functools.partial(deadlines.call_within, deadline, read)


def _trees(source: str, wanted: TaskFilter) -> list[str]:
    """What to list of a source."""
    if not source.startswith("gs://"):
        # The directories above a relative path may be part of the layout.
        return [os.path.abspath(source)]
    if wanted.population is None:
        return [source]
    root = source.rstrip("/")
    bucket = root[len("gs://") :].partition("/")[0]
    return [f"{root}/{wanted.population}", f"{root}/{bucket}/{wanted.population}"]


def _parsed(name: str, content: bytes) -> dict[str, float]:
    try:
        return parse_metrics(content)
    except ValueError as error:
        raise errors.ArtifactError(
            f"{name} is no metrics file: {error}.", next_step="Remove it, or name the runs that are to be shown."
        ) from error


def _filter_text(wanted: TaskFilter) -> str:
    parts = [f"population {wanted.population!r}"] if wanted.population is not None else []
    parts += [f"task {wanted.task_id}"] if wanted.task_id is not None else []
    return f" of {' and '.join(parts)}" if parts else ""


def _names(tasks: Sequence[_Task], labels: Mapping[str, str]) -> dict[_Task, str]:
    """Population and task id; with several sources, or a named one, the source, and of the others what differs between the tasks."""
    (first, label), *others = labels.items()
    if not others and label == _last_part(first):
        return {task: f"{task.population} task {task.task_id}" for task in tasks}
    several_populations = len({task.population for task in tasks}) > 1
    several_ids = len({task.task_id for task in tasks}) > 1
    names = {}
    for task in tasks:
        parts = [labels[task.source]]
        parts += [task.population] if several_populations else []
        parts += [f"task {task.task_id}"] if several_ids else []
        names[task] = " ".join(parts)
    return names


def _last_part(source: str) -> str:
    return source.rstrip("/").rpartition("/")[2] or source


def _labels(sources: Mapping[str, Optional[str]]) -> dict[str, str]:
    """The name that each source was given; else the last part of its path, or all of it when two would get the same."""
    last = {source: name or _last_part(source) for source, name in sources.items()}
    counts = collections.Counter(last.values())
    return {source: label if counts[label] == 1 else source for source, label in last.items()}
