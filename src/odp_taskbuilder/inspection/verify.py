"""Whether the artifacts in a directory are intact, belong together, and will run."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import artifact_set, checkpoint_reader, manifest
from odp_taskbuilder.inspection import checks
from odp_taskbuilder.inspection.checkpoint_facts import CheckpointFacts
from odp_taskbuilder.inspection.inspect import inspect_file
from odp_taskbuilder.inspection.plan_facts import PlanFacts
from odp_taskbuilder.inspection.traffic import traffic_of
from odp_taskbuilder.inspection.trial_round import TrialRound, TrialRounds
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
      rounds: prefix of a task's files -> what its trial round did.
    """

    checked: tuple[str, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    rounds: Mapping[str, TrialRound] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _TaskFiles:
    """The artifacts of one task, as far as they are there and readable."""

    prefix: str
    plan: Optional[PlanFacts]
    client_plan: Optional[PlanFacts]
    checkpoint: Optional[CheckpointFacts]


def verify(
    directory: Union[str, os.PathLike], *, allowlist: Optional[Allowlist] = None, check_ops: bool = True, run: bool = False
) -> Verification:
    """Checks a directory of artifacts: digests, checksums, contents, and what holds between the files.

    Reads every byte three times: about 4 s per GB.

    Args:
      allowlist: what phones can run; the built-in list unless given.
      check_ops: whether an op that phones lack is a finding.
      run: also run one round of each task on made-up examples; takes about 10 s.

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
            f"{directory} holds no artifacts: neither {artifact_set.PLAN} nor eval_{artifact_set.PLAN} is there"
        )
    tasks = [_read_task(directory, prefix, names, allowlist, findings, notes) for prefix in present]
    for task in tasks:
        findings += _check_task(task, check_ops)
    plans = [task.plan for task in tasks if task.plan is not None]
    if len(plans) == 2:
        findings += _findings(tasks[1], artifact_set.PLAN, checks.check_pair(*plans))
    rounds: dict[str, TrialRound] = {}
    if run and not findings:
        findings += _run_rounds(directory, tasks, rounds, notes)
    elif run:
        notes.append("No round was run, because of what was found before.")
    return Verification(tuple(names), tuple(findings), tuple(notes), rounds)


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


def _read_task(
    directory: pathlib.Path,
    prefix: str,
    names: list[str],
    allowlist: Optional[Allowlist],
    findings: list[Finding],
    notes: list[str],
) -> _TaskFiles:
    facts = {name: _read(directory / (prefix + name), allowlist, findings) for name in _ARTIFACTS if prefix + name in names}
    for name in (artifact_set.PLAN, artifact_set.CLIENT_ONLY_PLAN):
        if name not in facts:
            findings.append(Finding(prefix + name, "is missing"))
    if artifact_set.CHECKPOINT not in facts:
        notes.append(f"There is no {prefix}{artifact_set.CHECKPOINT}: the plan's server state was not compared with one.")
    return _TaskFiles(prefix, *(facts.get(name) for name in _ARTIFACTS))


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


def _run_rounds(
    directory: pathlib.Path, tasks: list[_TaskFiles], rounds: dict[str, TrialRound], notes: list[str]
) -> Iterator[Finding]:
    """Runs a round of each task, and compares the bytes that travel with what the artifacts promise."""
    with TrialRounds() as trial:
        for task in tasks:
            # Evaluation rounds start from the checkpoints of the training task.
            starts = [directory / (prefix + artifact_set.CHECKPOINT) for prefix in ("", task.prefix)]
            checkpoint = next((path for path in starts if path.exists()), None)
            if checkpoint is None:
                notes.append(
                    f"There is no {artifact_set.CHECKPOINT} to start from: no round of {task.prefix}{artifact_set.PLAN} was run."
                )
                continue
            try:
                rounds[task.prefix] = trial.run(directory, task.prefix, checkpoint)
            except (errors.ArtifactError, errors.ModelError) as error:
                yield Finding(task.prefix + artifact_set.PLAN, f"a round failed: {error.message}")
                continue
            yield from _findings(task, artifact_set.PLAN, _compare_traffic(task.plan, rounds[task.prefix]))


def _compare_traffic(plan: PlanFacts, done: TrialRound) -> Iterator[str]:
    told = traffic_of(plan)
    if told.download_bytes not in (None, done.download_bytes):
        yield f"devices download {done.download_bytes} bytes, where its tensors make {told.download_bytes}"
    for size in done.upload_bytes:
        if told.upload_bytes not in (None, size):
            yield f"a device uploads {size} bytes, where its tensors make {told.upload_bytes}"
