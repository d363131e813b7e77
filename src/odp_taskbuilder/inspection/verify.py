"""Whether the artifacts in a directory are intact, belong together, and will run."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import artifact_set, checkpoint_reader, manifest
from odp_taskbuilder.inspection import checks
from odp_taskbuilder.inspection.checkpoint_facts import CheckpointFacts
from odp_taskbuilder.inspection.inspect import inspect_file
from odp_taskbuilder.inspection.plan_facts import PlanFacts
from odp_taskbuilder.ops.allowlist import Allowlist


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that does not hold, and the file that it was found in."""

    file: str
    problem: str


@dataclasses.dataclass(frozen=True)
class Verification:
    """The result of `verify`.

    Attributes:
      checked: names of the files that were looked at.
      findings: empty if all is well.
      notes: what could not be checked.
    """

    checked: tuple[str, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _TaskFiles:
    """The artifacts of one task, as far as they are there and readable."""

    prefix: str
    plan: Optional[PlanFacts]
    client_plan: Optional[PlanFacts]
    checkpoint: Optional[CheckpointFacts]


def verify(
    directory: Union[str, os.PathLike], *, allowlist: Optional[Allowlist] = None, check_ops: bool = True
) -> Verification:
    """Checks a directory of artifacts: digests, checksums, contents, and what holds between the files.

    Reads every byte twice: about 3 s per GB.

    Args:
      allowlist: what phones can run; the built-in list unless given.
      check_ops: whether an op that phones lack is a finding.

    Raises:
      StorageError: the directory or a file in it cannot be read.
      ArtifactError: it holds no artifacts.
    """
    directory = pathlib.Path(directory)
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise errors.StorageError(f"Cannot read {directory}: {error.strerror}") from error
    notes: list[str] = []
    findings = list(_check_manifest(directory, names, notes))
    present = [prefix for prefix in ("", artifact_set.EVALUATION_PREFIX) if any(prefix + name in names for name in _ARTIFACTS)]
    if not present:
        raise errors.ArtifactError(
            f"{directory} holds no artifacts: there is neither {artifact_set.PLAN} nor an eval_{artifact_set.PLAN}"
        )
    tasks = []
    for prefix in present:
        facts = {name: _read(directory / (prefix + name), allowlist, findings) for name in _ARTIFACTS if prefix + name in names}
        for name in (artifact_set.PLAN, artifact_set.CLIENT_ONLY_PLAN):
            if prefix + name not in names:
                findings.append(Finding(prefix + name, "is missing"))
        if prefix + artifact_set.CHECKPOINT not in names:
            notes.append(f"There is no {prefix}{artifact_set.CHECKPOINT}: the plan's server state was not compared with one.")
        tasks.append(_TaskFiles(prefix, *(facts.get(name) for name in _ARTIFACTS)))
    for task in tasks:
        findings += _check_task(task, check_ops)
    if len(tasks) == 2 and tasks[0].plan is not None and tasks[1].plan is not None:
        findings += (
            Finding(tasks[1].prefix + artifact_set.PLAN, problem) for problem in checks.check_pair(tasks[0].plan, tasks[1].plan)
        )
    return Verification(tuple(names), tuple(findings), tuple(notes))


_ARTIFACTS = (artifact_set.PLAN, artifact_set.CLIENT_ONLY_PLAN, artifact_set.CHECKPOINT)


def _check_manifest(directory: pathlib.Path, names: list[str], notes: list[str]) -> Iterator[Finding]:
    if artifact_set.MANIFEST not in names:
        notes.append(f"There is no {artifact_set.MANIFEST}: the files were not compared with their digests.")
        return
    try:
        listed = manifest.read_manifest(directory).files
    except errors.ArtifactError as error:
        yield Finding(artifact_set.MANIFEST, error.message)
        return
    for name in sorted(listed.keys() - set(names)):
        yield Finding(name, "is missing")
    for name in sorted(set(names) - listed.keys() - {artifact_set.MANIFEST}):
        yield Finding(name, f"is not listed in {artifact_set.MANIFEST}")
    for name in sorted(listed.keys() & set(names)):
        try:
            digest = manifest.digest_file(directory / name)
        except OSError as error:
            raise errors.StorageError(f"Cannot read {directory / name}: {error.strerror}") from error
        if digest != listed[name]:
            yield Finding(name, f"is not the file that {artifact_set.MANIFEST} lists: its digest differs")


def _read(
    path: pathlib.Path, allowlist: Optional[Allowlist], findings: list[Finding]
) -> Union[PlanFacts, CheckpointFacts, None]:
    """The facts of a readable file of the kind that its name says; otherwise a finding."""
    try:
        facts = inspect_file(path, allowlist=allowlist).facts
        if path.name.endswith(artifact_set.CHECKPOINT):
            with checkpoint_reader.open_checkpoint(path) as checkpoint:
                checkpoint.check()
            expected = isinstance(facts, CheckpointFacts)
        else:
            is_plan = not path.name.endswith(artifact_set.CLIENT_ONLY_PLAN)
            expected = isinstance(facts, PlanFacts) and (facts.server is not None) == is_plan
    except errors.ArtifactError as error:
        findings.append(Finding(path.name, error.message))
        return None
    if not expected:
        findings.append(Finding(path.name, "is an artifact of another kind"))
        return None
    return facts


def _check_task(task: _TaskFiles, check_ops: bool) -> Iterable[Finding]:
    if task.plan is not None:
        yield from _findings(task, artifact_set.PLAN, checks.check_server(task.plan))
    if task.plan is not None and task.client_plan is not None:
        yield from _findings(task, artifact_set.CLIENT_ONLY_PLAN, checks.check_client_plan(task.plan, task.client_plan))
    if task.client_plan is not None:
        yield from _findings(task, artifact_set.CLIENT_ONLY_PLAN, checks.check_client(task.client_plan.client))
        if check_ops:
            yield from _findings(task, artifact_set.CLIENT_ONLY_PLAN, checks.check_ops(task.client_plan.client))
    if task.plan is not None and task.checkpoint is not None:
        yield from _findings(task, artifact_set.CHECKPOINT, checks.check_checkpoint(task.plan, task.checkpoint))


def _findings(task: _TaskFiles, name: str, problems: Iterable[str]) -> Iterator[Finding]:
    return (Finding(task.prefix + name, problem) for problem in problems)
