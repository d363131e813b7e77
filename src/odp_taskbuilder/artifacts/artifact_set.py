"""What a build produces, and the names of its files.

A training and an evaluation task have one set of files each; those of the evaluation task begin with `eval_`
(spec: plan.md, section 1.1).
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Callable, Optional

PLAN = "plan.pb"
CLIENT_ONLY_PLAN = "client_only_plan.pb"
CHECKPOINT = "initial_state.server.ckp"
TASK = "task.pbtxt"
REPORT = "report.pbtxt"
MANIFEST = "manifest.json"
EVALUATION_PREFIX = "eval_"


@dataclasses.dataclass(frozen=True)
class TaskArtifacts:
    """The artifacts of one task.

    Attributes:
      plan: a serialized Plan.
      client_only_plan: a serialized ClientOnlyPlan.
      write_checkpoint: writes the initial server checkpoint to the path that it is given. A checkpoint may be gigabytes long and
        is never held in memory.
      task: the Task, in text format.
    """

    plan: bytes
    client_only_plan: bytes
    write_checkpoint: Callable[[pathlib.Path], None]
    task: str


@dataclasses.dataclass(frozen=True)
class ArtifactSet:
    """Everything that one build produces.

    Attributes:
      training, evaluation: the artifacts of each task; at least one is there.
      report: the TaskReport, in text format.
    """

    training: Optional[TaskArtifacts]
    evaluation: Optional[TaskArtifacts]
    report: str

    def tasks(self) -> Iterator[tuple[str, TaskArtifacts]]:
        """The tasks that are there, each with the prefix of its file names."""
        if self.training is not None:
            yield "", self.training
        if self.evaluation is not None:
            yield EVALUATION_PREFIX, self.evaluation

    def write_files(self, directory: pathlib.Path) -> None:
        """Writes every file but the manifest. Raises OSError."""
        for prefix, task in self.tasks():
            (directory / (prefix + PLAN)).write_bytes(task.plan)
            (directory / (prefix + CLIENT_ONLY_PLAN)).write_bytes(task.client_only_plan)
            task.write_checkpoint(directory / (prefix + CHECKPOINT))
            (directory / (prefix + TASK)).write_text(task.task, encoding="utf-8")
        (directory / REPORT).write_text(self.report, encoding="utf-8")
