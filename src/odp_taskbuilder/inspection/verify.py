"""Whether the artifacts in a directory are intact, belong together, and will run."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import artifact_set, checkpoint_reader, manifest
from odp_taskbuilder.base.phone_limits import MAX_CLIENT_CHECKPOINT_BYTES, MAX_RUNTIME, MAX_TRAINING_SECONDS, SLOWDOWN
from odp_taskbuilder.config.compression import CODES
from odp_taskbuilder.inspection import checks
from odp_taskbuilder.inspection.checkpoint_facts import CheckpointFacts
from odp_taskbuilder.inspection.inspect import inspect_file
from odp_taskbuilder.inspection.plan_facts import PlanFacts
from odp_taskbuilder.inspection.traffic import traffic_of
from odp_taskbuilder.inspection.trial_round import TrialRound, TrialRounds
from odp_taskbuilder.inspection.wild_clients import WildUpdates
from odp_taskbuilder.ops.allowlist import Allowlist

_ARTIFACTS = (artifact_set.PLAN, artifact_set.CLIENT_ONLY_PLAN, artifact_set.CHECKPOINT)
_MORE_BYTES = 16
# How a file's name ends -> what it is. The names of client plans end as those of plans do.
_KINDS = {artifact_set.CLIENT_ONLY_PLAN: "ClientOnlyPlan", artifact_set.PLAN: "Plan", artifact_set.CHECKPOINT: "checkpoint"}


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
      wild_updates: likewise -> what clients with examples that nobody would send reported.
    """

    checked: tuple[str, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    rounds: Mapping[str, TrialRound] = dataclasses.field(default_factory=dict)
    wild_updates: Mapping[str, WildUpdates] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _TaskFiles:
    """The artifacts of one task, as far as they are there and readable."""

    prefix: str
    plan: Optional[PlanFacts]
    client_plan: Optional[PlanFacts]
    checkpoint: Optional[CheckpointFacts]


def verify(
    directory: Union[str, os.PathLike],
    *,
    allowlist: Optional[Allowlist] = None,
    check_ops: bool = True,
    max_client_checkpoint_bytes: Optional[int] = MAX_CLIENT_CHECKPOINT_BYTES,
    allow_runtime: Optional[str] = MAX_RUNTIME,
    run: bool = False,
) -> Verification:
    """Checks a directory of artifacts: digests, checksums, contents, and what holds between the files.

    Reads every byte three times: about 5 s per GB.

    Args:
      allowlist: what phones can run; the built-in list unless given.
      check_ops: whether an op that phones lack is a finding.
      max_client_checkpoint_bytes, allow_runtime: what phones are taken to have (config.build_options); None asks nothing.
      run: also run one round of each task on made-up examples, and its client plan on examples that nobody would send; takes about 15 s.
        A task whose round cannot be run is a finding, and so is an update that is not finite or longer than the clip.

    Raises:
      StorageError: the directory or a file in it cannot be read.
      ArtifactError: it holds no artifacts.
    """
    verifier = _Verifier(pathlib.Path(directory), allowlist)
    limits = _Limits(check_ops, max_client_checkpoint_bytes, allow_runtime)
    verifier.check_manifest()
    tasks = verifier.read_tasks()
    for task in tasks:
        verifier.check_task(task, limits)
    plans = [task.plan for task in tasks if task.plan is not None]
    if len(plans) == 2:
        verifier.add(tasks[1].prefix + artifact_set.PLAN, checks.check_pair(*plans))
    if run:
        verifier.run_rounds(tasks)
    return Verification(
        tuple(verifier.names), tuple(verifier.findings), tuple(verifier.notes), verifier.rounds, verifier.wild_updates
    )


@dataclasses.dataclass(frozen=True)
class _Limits:
    """What phones have, as in `verify`."""

    check_ops: bool
    max_client_checkpoint_bytes: Optional[int]
    allow_runtime: Optional[str]


class _Verifier:
    """Gathers what is found in one directory."""

    def __init__(self, directory: pathlib.Path, allowlist: Optional[Allowlist]):
        self._directory = directory
        self._allowlist = allowlist
        try:
            self.names = sorted(os.listdir(directory))
        except OSError as error:
            raise errors.StorageError(f"Cannot read {directory}: {error.strerror}") from error
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.rounds: dict[str, TrialRound] = {}
        self.wild_updates: dict[str, WildUpdates] = {}

    def add(self, name: str, problems: Iterable[str]) -> None:
        self.findings += (Finding(name, problem) for problem in problems)

    def check_manifest(self) -> None:
        try:
            comparison = manifest.compare(self._directory)
        except errors.ArtifactError as error:
            self.add(artifact_set.MANIFEST, [error.message])
            return
        if comparison.manifest is None:
            self.notes.append(f"There is no {artifact_set.MANIFEST}: the files were not compared with their digests.")
        for name, fault in comparison.faults.items():
            self.add(name, [fault])
        for name in comparison.unlisted:
            self.add(name, [f"is not listed in {artifact_set.MANIFEST}"])

    def read_tasks(self) -> list[_TaskFiles]:
        prefixes = ("", artifact_set.EVALUATION_PREFIX)
        present = [prefix for prefix in prefixes if any(prefix + name in self.names for name in _ARTIFACTS)]
        if not present:
            raise errors.ArtifactError(
                f"{self._directory} holds no artifacts: neither {artifact_set.PLAN} nor eval_{artifact_set.PLAN} is there"
            )
        return [_TaskFiles(prefix, *(self._read(prefix + name) for name in _ARTIFACTS)) for prefix in present]

    def check_task(self, task: _TaskFiles, limits: _Limits) -> None:
        plan, client_plan, checkpoint = (task.prefix + name for name in _ARTIFACTS)
        for name in (plan, client_plan):
            if name not in self.names:
                self.add(name, ["is missing"])
        if checkpoint not in self.names:
            self.notes.append(f"There is no {checkpoint}: the plan's server state was not compared with one.")
        if task.plan is not None:
            self.add(plan, checks.check_server(task.plan))
        if task.plan is not None and task.client_plan is not None:
            self.add(client_plan, checks.check_client_plan(task.plan, task.client_plan))
        if task.client_plan is not None:
            self.add(client_plan, checks.check_client(task.client_plan.client))
            if limits.check_ops:
                self.add(client_plan, checks.check_ops(task.client_plan.client))
            self.add(client_plan, checks.check_runtime(task.client_plan.client, limits.allow_runtime))
            self.notes += (f"{client_plan}: {doubt}" for doubt in checks.doubts(task.client_plan.client))
        if task.plan is not None and task.checkpoint is not None:
            self.add(checkpoint, checks.check_checkpoint(task.plan, task.checkpoint))
        if task.plan is not None:
            state = () if task.checkpoint is None else task.checkpoint.tensors
            download = traffic_of(task.plan, state).download_bytes
            self.add(plan, checks.check_client_checkpoint(download, limits.max_client_checkpoint_bytes))

    def run_rounds(self, tasks: list[_TaskFiles]) -> None:
        """Runs a round of each task, and compares the bytes that travel with what the artifacts promise."""
        if self.findings:
            self.notes.append("No round was run, because of what was found before.")
            return
        with TrialRounds() as trial:
            for task in tasks:
                plan = task.prefix + artifact_set.PLAN
                # Evaluation rounds start from the checkpoints of the training task.
                starts = [self._directory / (prefix + artifact_set.CHECKPOINT) for prefix in ("", task.prefix)]
                checkpoint = next((path for path in starts if path.exists()), None)
                if checkpoint is None:
                    self.add(plan, [f"no round was run: there is no {artifact_set.CHECKPOINT} to start from"])
                    continue
                try:
                    self.rounds[task.prefix] = trial.run(self._directory, task.prefix, checkpoint)
                    self.wild_updates[task.prefix] = trial.run_wild_clients(self._directory, task.prefix, checkpoint)
                except (errors.ArtifactError, errors.ModelError) as error:
                    self.add(plan, [f"a round failed: {error.message}"])
                    continue
                self.add(plan, _compare_traffic(task.plan, self.rounds[task.prefix]))
                self.add(plan, self.wild_updates[task.prefix].problems())
                self.notes += (f"{plan}: {doubt}" for doubt in self.wild_updates[task.prefix].doubts())
                self.notes += _slowness(plan, self.rounds[task.prefix])

    def _read(self, name: str) -> Any:
        """The facts (PlanFacts or CheckpointFacts) of a file that is there and of the kind that its name says; None without."""
        if name not in self.names:
            return None
        path = self._directory / name
        try:
            file = inspect_file(path, allowlist=self._allowlist)
            if file.kind == "checkpoint":
                with checkpoint_reader.open_checkpoint(path) as checkpoint:
                    checkpoint.check()
        except errors.ArtifactError as error:
            self.add(name, [error.message])
            return None
        expected = next(kind for ending, kind in _KINDS.items() if name.endswith(ending))
        if file.kind != expected:
            self.add(name, [f"is a {file.kind}, not a {expected}"])
            return None
        return file.facts


def _slowness(plan: str, done: TrialRound) -> Iterator[str]:
    slowest = max(done.client_seconds)
    if SLOWDOWN * slowest > MAX_TRAINING_SECONDS:
        yield (
            f"{plan}: a device took {slowest:.0f} s here; a phone {SLOWDOWN} times slower would pass the {MAX_TRAINING_SECONDS} s after which "
            "phones stop"
        )


def _compare_traffic(plan: PlanFacts, done: TrialRound) -> Iterator[str]:
    told = traffic_of(plan)
    for size, expected, tensors, what in (
        (done.download_bytes, told.download_bytes, told.download, "devices download"),
        *((size, told.upload_bytes, told.upload, "a device uploads") for size in done.upload_bytes),
    ):
        # A code of 8 bits takes a second byte from 128 on; the lengths of messages that stand around codes may grow by some bytes.
        more = sum(math.prod(tensor.shape or ()) + _MORE_BYTES for tensor in tensors if tensor.name.endswith(f"/{CODES}"))
        if expected is not None and not expected <= size <= expected + more:
            yield f"{what} {size} bytes, where its tensors make {f'{expected} to {expected + more}' if more else expected}"
