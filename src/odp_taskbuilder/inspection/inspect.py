"""Finds out what files are and describes them, together where they belong together."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import artifact_set, checkpoint_reader, plan_reader, wire
from odp_taskbuilder.artifacts.tensors import TensorSpec
from odp_taskbuilder.inspection.checkpoint_facts import CheckpointFacts, read_checkpoint_facts
from odp_taskbuilder.inspection.client_ops import replaced_ops_beside
from odp_taskbuilder.inspection.plan_facts import PlanFacts, read_plan_facts
from odp_taskbuilder.inspection.task_facts import resolved_config
from odp_taskbuilder.inspection.traffic import Traffic, traffic_of
from odp_taskbuilder.ops.allowlist import Allowlist
from odp_taskbuilder.plan.sstable import MAGIC

_SUFFIXES = (".pb", ".ckp")
_MAX_FILES = 100
_SAVED_MODEL = "saved_model.pb"


@dataclasses.dataclass(frozen=True)
class InspectedFile:
    """One file.

    Attributes:
      task: "training" or "evaluation", told from the file's name; the file's own name where that says nothing.
    """

    path: pathlib.Path
    task: str
    facts: Union[PlanFacts, CheckpointFacts]

    @property
    def kind(self) -> str:
        if isinstance(self.facts, CheckpointFacts):
            return "checkpoint"
        return "Plan" if self.facts.server is not None else "ClientOnlyPlan"


@dataclasses.dataclass(frozen=True)
class TaskTraffic:
    """What devices transfer for the task of a plan that lies in `directory`."""

    directory: pathlib.Path
    task: str
    traffic: Traffic


@dataclasses.dataclass(frozen=True)
class Inspection:
    """Files, and what devices transfer per round for each task that has a plan among them.

    Attributes:
      configs: directory that was given -> the values that its artifacts were built with (task_facts.resolved_config).
    """

    files: tuple[InspectedFile, ...]
    traffic: tuple[TaskTraffic, ...]
    configs: Mapping[pathlib.Path, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def traffic_of(self, file: InspectedFile) -> Traffic:
        """The traffic of the task that a plan among the files belongs to."""
        matching = (entry.traffic for entry in self.traffic if (entry.directory, entry.task) == (file.path.parent, file.task))
        return next(matching)


def inspect(
    paths: Sequence[Union[str, os.PathLike]], *, statistics: bool = True, allowlist: Optional[Allowlist] = None
) -> Inspection:
    """Describes plans and checkpoints.

    Args:
      paths: files, or directories whose *.pb and *.ckp files are taken.
      statistics: read every value of the checkpoints (about 1 s per GB) for their statistics.
      allowlist: what phones can run; the built-in list unless given.

    Raises:
      StorageError: a file cannot be read.
      ArtifactError: a file is corrupt, or none of these.
    """
    files = tuple(
        inspect_file(path, statistics=statistics, allowlist=allowlist)
        for given in paths
        for path in _files(pathlib.Path(given))
    )
    # Training and evaluation tasks of a group have states of the same shapes.
    state = {tensor.name: tensor for file in files for tensor in _state(file)}
    plans = {}
    for file in files:
        key = (file.path.parent, file.task)
        # A Plan knows more shapes than the ClientOnlyPlan beside it.
        if isinstance(file.facts, PlanFacts) and (key not in plans or file.facts.server is not None):
            plans[key] = file.facts
    traffic = (TaskTraffic(directory, task, traffic_of(plan, state.values())) for (directory, task), plan in plans.items())
    configs = {path: resolved_config(path) for path in map(pathlib.Path, paths) if path.is_dir()}
    return Inspection(files, tuple(traffic), {path: config for path, config in configs.items() if config})


def _files(path: pathlib.Path) -> Iterator[pathlib.Path]:
    if path.name == _SAVED_MODEL or (path / _SAVED_MODEL).exists():
        raise errors.ArtifactError(
            f"{path} is a SavedModel: what a build starts from, not what it makes.",
            next_step="`odp-task scan` looks into models; `odp-task build` makes plans and checkpoints of them.",
        )
    if not path.is_dir():
        yield path
        return
    found = sorted((entry for entry in path.iterdir() if entry.suffix in _SUFFIXES), key=_reading_order)
    if not found:
        raise errors.ArtifactError(f"{path} holds no artifacts: no file there ends in {' or '.join(_SUFFIXES)}")
    if len(found) > _MAX_FILES:
        raise errors.ArtifactError(f"{path} is no directory of artifacts: it has {len(found)} *.pb and *.ckp files")
    yield from found


def _reading_order(path: pathlib.Path) -> tuple:
    """Training before evaluation; the plan, then its client's part, then the checkpoint."""
    evaluation = path.name.startswith(artifact_set.EVALUATION_PREFIX)
    return evaluation, path.suffix == ".ckp", artifact_set.CLIENT_ONLY_PLAN in path.name, path.name


def inspect_file(path: pathlib.Path, *, statistics: bool = True, allowlist: Optional[Allowlist] = None) -> InspectedFile:
    """Describes one file. Arguments and errors are those of `inspect`."""
    with wire.open_file(path) as source:
        if source[max(0, len(source) - len(MAGIC)) :] == MAGIC:
            facts: Union[PlanFacts, CheckpointFacts] = read_checkpoint_facts(checkpoint_reader.Checkpoint(source, str(path)), statistics=statistics)
        else:
            facts = _with_replaced_ops(read_plan_facts(plan_reader.parse_plan(source, str(path)), allowlist), path)
    return InspectedFile(path, _task(path), facts)


def _with_replaced_ops(facts: PlanFacts, path: pathlib.Path) -> PlanFacts:
    """The facts with what the manifest beside the plan says was replaced."""
    ops = dataclasses.replace(facts.client.ops, replaced=tuple(replaced_ops_beside(path)))
    return dataclasses.replace(facts, client=dataclasses.replace(facts.client, ops=ops))


def _task(path: pathlib.Path) -> str:
    if path.name in (artifact_set.PLAN, artifact_set.CLIENT_ONLY_PLAN, artifact_set.CHECKPOINT):
        return "training"
    if path.name.startswith(artifact_set.EVALUATION_PREFIX):
        return "evaluation"
    return path.name


def _state(file: InspectedFile) -> Iterator[TensorSpec]:
    if isinstance(file.facts, CheckpointFacts):
        for tensor in file.facts.tensors:
            yield TensorSpec(tensor.name, tensor.dtype, tensor.shape)
