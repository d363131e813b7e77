"""The artifacts of a directory as a push sees them: which file is which, and in what order they go."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from google.protobuf import text_format

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import artifact_set, manifest
from odp_taskbuilder.base.server_limits import MAX_ARTIFACT_BYTES
from odp_taskbuilder.proto import task_pb2
from odp_taskbuilder.stores import urls

TRAINING = "training"
EVALUATION = "evaluation"

PREFIXES = {TRAINING: "", EVALUATION: artifact_set.EVALUATION_PREFIX}
# Artifact name -> file name and field of the Task with its destinations.
_FILES = {
    "checkpoint": (artifact_set.CHECKPOINT, "init_checkpoint_url"),
    "client_plan": (artifact_set.CLIENT_ONLY_PLAN, "client_only_plan_url"),
    "plan": (artifact_set.PLAN, "server_phase_url"),
}
# The server starts nothing without the server plan, so it commits a task and is the last of each. The evaluation task,
# which waits for checkpoints of the training task, is whole before that one can start.
_ORDER = (
    (TRAINING, "checkpoint"),
    (TRAINING, "client_plan"),
    (EVALUATION, "checkpoint"),
    (EVALUATION, "client_plan"),
    (EVALUATION, "plan"),
    (TRAINING, "plan"),
)
MAX_TASK_BYTES = 1 << 20
_BUILD = "Build it again: odp-task build."


@dataclasses.dataclass(frozen=True)
class TaskArtifacts:
    """One task that was built, with its files.

    Attributes:
      role: TRAINING or EVALUATION.
      files: paths by artifact name.
    """

    role: str
    task: task_pb2.Task
    files: Mapping[str, pathlib.Path]

    @property
    def names_destinations(self) -> bool:
        """Whether the config said where the artifacts go, so that no task is created."""
        return any(url for urls in destinations(self.task).values() for url in urls)

    @property
    def leads_nowhere(self) -> bool:
        """Whether it was built for artifacts alone, and the config named no place for them."""
        return not self.task.population_name and not self.names_destinations


@dataclasses.dataclass(frozen=True)
class Upload:
    """One file on its way."""

    role: str
    task_id: int
    source: pathlib.Path
    url: str


def read(directory: pathlib.Path) -> list[TaskArtifacts]:
    """Reads the tasks of an artifact directory, training before evaluation.

    Raises:
      errors.ArtifactError: there are none, or files are missing, too large or other than the manifest says.
    """
    tasks = [_read_task(directory, role) for role in PREFIXES if (directory / f"{PREFIXES[role]}{artifact_set.TASK}").exists()]
    if not tasks:
        raise errors.ArtifactError(
            f"There is no {artifact_set.TASK} in {directory}.", next_step=f"It holds no built task. {_BUILD}"
        )
    return tasks


def digests(directory: pathlib.Path, tasks: Sequence[TaskArtifacts]) -> dict[str, str]:
    """The SHA-256 of each file of the tasks, by file name, after the directory was compared with its manifest.

    Raises:
      errors.ArtifactError: a file is not the one that was built.
    """
    found = manifest.require_as_built(directory).found
    names = [path.name for task in tasks for path in task.files.values()]
    strange = sorted(set(names) - found.keys())
    if strange:
        raise errors.ArtifactError(
            f"{directory}: {', '.join(strange)}: not listed in {artifact_set.MANIFEST}.", next_step=_BUILD
        )
    return {name: found[name].sha256 for name in names}


def destinations(task: task_pb2.Task) -> dict[str, list[str]]:
    """Destination URLs of a task by artifact name, one for each storage partition."""
    return {artifact: list(getattr(task, field)) for artifact, (_, field) in _FILES.items()}


def uploads(tasks: Sequence[TaskArtifacts], stored: Mapping[str, task_pb2.Task], *, in_buckets: bool) -> list[Upload]:
    """All uploads in their order.

    Args:
      stored: by role, the tasks that name the destinations.
      in_buckets: only gs:// destinations are accepted, as from a server, which must not choose files of this machine.

    Raises:
      errors.StorageError: a destination is missing, unusable or named twice.
    """
    by_role = {task.role: task for task in tasks}
    result: list[Upload] = []
    for role, artifact in _ORDER:
        if role not in by_role:
            continue
        task = stored[role]
        for url in destinations(task)[artifact] or [""]:
            _check_destination(url, in_buckets, {upload.url for upload in result})
            result.append(Upload(role, task.task_id, by_role[role].files[artifact], url))
    return result


def _check_destination(url: str, in_buckets: bool, taken: set[str]) -> None:
    problem = "Cannot build artifacts because createTask returns invalid URLs:"
    if not url:
        raise errors.StorageError(f"{problem} empty URI.")
    try:
        place = urls.parse_object(url)
    except errors.StorageError as error:
        raise errors.StorageError(f"{problem} {url}", next_step=error.message) from error
    if in_buckets and not isinstance(place, urls.BucketPlace):
        raise errors.StorageError(f"{problem} {url}", next_step="A server's destinations are gs:// URLs.")
    if url in taken:
        raise errors.StorageError(f"{problem} {url} is the destination of two artifacts.")


def _read_task(directory: pathlib.Path, role: str) -> TaskArtifacts:
    prefix = PREFIXES[role]
    path = directory / f"{prefix}{artifact_set.TASK}"
    try:
        with open(path, "rb") as file:
            task = text_format.Parse(file.read(MAX_TASK_BYTES).decode("utf-8"), task_pb2.Task())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise errors.ArtifactError(f"{path} cannot be read: {error}.", next_step=_BUILD) from error
    files = {artifact: directory / f"{prefix}{name}" for artifact, (name, _) in _FILES.items()}
    for built in files.values():
        if not built.is_file():
            raise errors.ArtifactError(f"{built} is missing.", next_step=_BUILD)
        if not 0 < (size := built.stat().st_size) <= MAX_ARTIFACT_BYTES:
            raise errors.ArtifactError(
                f"{built} has {size} bytes; the task server reads from 1 byte to 2 GiB.", next_step=_BUILD
            )
    return TaskArtifacts(role, task, files)
