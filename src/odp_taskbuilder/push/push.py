"""Brings built artifacts to where devices get them from: creates tasks, uploads files, and leaves no mess when that fails.

A task that was created and not completed blocks its population, and nothing can cancel it. So everything that can fail by
itself is checked before the first task is created; what the server said is on disk before the first upload; the server plan of
a task, without which the server starts nothing, goes last; and running the same push again finishes it (spec: http_api.md,
section 5).
"""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Callable, Optional

import requests

from odp_taskbuilder import errors
from odp_taskbuilder.base.keyword_only import keyword_only
from odp_taskbuilder.proto import task_pb2
from odp_taskbuilder.push import artifact_files, auth, locating, task_management
from odp_taskbuilder.push import journal as journals
from odp_taskbuilder.stores import Outcome, Store, open_store
from odp_taskbuilder.transport import deadline as deadlines
from odp_taskbuilder.transport import session

# Any bucket's store serves all buckets; this one is only opened to find out whether there are credentials.
_ANY_BUCKET = "gs://any-bucket"
# Large checkpoints say how far they are after every so many bytes.
_PROGRESS_BYTES = 64 << 20
_DEAD = (task_pb2.TaskStatus.CANCELED, task_pb2.TaskStatus.FAILED)


@keyword_only
@dataclasses.dataclass(frozen=True)
class PushOptions:
    """How to push.

    Attributes:
      server: base URL of the task management server; None looks it up (locating.py).
      overwrite: replace objects that hold something else.
      resume: finish an earlier push; it is an error if there is none.
      training_only: leave the evaluation task for a later push.
      source_training_task_id: the training task whose checkpoints the evaluation task reads. None takes that of the same push, where its
        config names this population; else what the config says.
    """

    server: Optional[str] = None
    login: auth.Login = auth.Login()
    overwrite: bool = False
    resume: bool = False
    training_only: bool = False
    source_training_task_id: Optional[int] = None


@dataclasses.dataclass(frozen=True)
class Pushed:
    """One artifact in its place."""

    role: str
    task_id: int
    url: str
    outcome: Outcome


# Told about every step: a sentence for people.
Notify = Callable[[str], None]


def push(
    directory: pathlib.Path,
    options: PushOptions = PushOptions(),
    network: deadlines.Network = deadlines.Network(),
    notify: Notify = lambda sentence: None,
    deadline: Optional[deadlines.Deadline] = None,
) -> list[Pushed]:
    """Pushes the artifacts of a directory, or finishes a push that was interrupted.

    Artifacts whose config named destinations are only uploaded; for all others tasks are created first.

    Args:
      deadline: one that somebody else may end; None begins one of `network.deadline` seconds.

    Returns:
      What is where, in the order of the uploads; all of it verified.

    Raises:
      errors.ArtifactError: the directory holds no task, or damaged files.
      errors.StorageError, errors.TaskServerError: nothing was created.
      errors.TaskServerError: a task was created and is incomplete; says which and what to run.
      errors.UsageError: the options do not fit what is in the directory.
    """
    tasks = artifact_files.read(directory)
    if all(task.leads_nowhere for task in tasks):
        raise errors.UsageError(
            f"{directory} was built with --build_artifact_only from a config that names no destinations: there is no task to create, and "
            "no place to upload to.",
            next_step="Build it without --build_artifact_only, or name destinations in the config (artifact_building); "
            "`odp-task init` writes a config that does.",
        )
    digests = artifact_files.digests(directory, tasks)
    deadline = deadline or deadlines.Deadline(network.deadline)
    with journals.exclusive(directory):
        if any(task.names_destinations for task in tasks):
            return deadlines.call_within(deadline, lambda: _push_artifacts(tasks, options, network, deadline, notify))
        group = TaskGroupPush(directory, tasks, digests, options, network, deadline)
        try:
            return deadlines.call_within(deadline, lambda: _push_group(group, notify))
        except errors.OdpTaskError as error:
            if not group.is_started:
                raise
            raise group.failure(error) from error
        except BaseException:  # The user or the system ends us: no result, but the same advice.
            if group.is_started:
                notify(str(group.failure(errors.TaskServerError("The push was interrupted."))))
            raise


def _push_artifacts(
    tasks: Sequence[artifact_files.TaskArtifacts],
    options: PushOptions,
    network: deadlines.Network,
    deadline: deadlines.Deadline,
    notify: Notify,
) -> list[Pushed]:
    if options.server or options.resume or options.training_only or options.source_training_task_id is not None:
        raise errors.UsageError(
            "These artifacts were built with destinations in the config; no task is created for them.",
            next_step="Leave out the options about tasks; running the command again is enough.",
        )
    planned = artifact_files.uploads(tasks, {task.role: task.task for task in tasks}, in_buckets=False)
    stores: dict[bool, Store] = {}
    pushed = []
    for upload in planned:
        in_bucket = upload.url.startswith("gs://")
        if in_bucket not in stores:
            stores[in_bucket] = open_store(upload.url, network, deadline)
        pushed.append(_upload(upload, stores[in_bucket], options.overwrite, notify))
    return pushed


def _push_group(group: TaskGroupPush, notify: Notify) -> list[Pushed]:
    group.prepare()
    for role, task in group.obtain_tasks():
        notify(f"Task {task.task_id} ({role}) of population {task.population_name} is there.")
    return [group.upload(upload, notify) for upload in group.uploads()]


def _upload(upload: artifact_files.Upload, store: Store, overwrite: bool, notify: Notify) -> Pushed:
    shown = 0

    def on_progress(num_bytes: int) -> None:
        nonlocal shown
        if num_bytes - shown >= _PROGRESS_BYTES:
            shown = num_bytes
            notify(f"{upload.url}: {num_bytes >> 20} of {upload.source.stat().st_size >> 20} MiB")

    outcome = store.write(upload.url, upload.source, overwrite=overwrite, on_progress=on_progress)
    notify(f"{upload.url}: {outcome.value}")
    return Pushed(upload.role, upload.task_id, upload.url, outcome)


class TaskGroupPush:
    """A push that creates tasks, step by step: `prepare`, `obtain_tasks`, `uploads`, then `upload` for each of these."""

    def __init__(
        self,
        directory: pathlib.Path,
        tasks: Sequence[artifact_files.TaskArtifacts],
        digests: Mapping[str, str],
        options: PushOptions,
        network: deadlines.Network,
        deadline: deadlines.Deadline,
    ):
        self._directory = directory
        self._tasks = _wanted(directory, tasks, options)
        self._digests = dict(digests)
        self._options = options
        self._network = network
        self._deadline = deadline
        self._journal: Optional[journals.Journal] = None
        self._stored: dict[str, task_pb2.Task] = {}
        self._largest_id: Optional[int] = None

    @property
    def is_started(self) -> bool:
        """Whether a task was asked for and the push is not complete."""
        return self._journal is not None and bool(self._journal.tasks) and not self._is_complete(self._journal)

    def prepare(self) -> None:
        """Everything that can fail without a task being asked for.

        Raises:
          errors.UsageError, errors.StorageError, errors.TaskServerError: something is missing; nothing was created.
        """
        population = self._tasks[0].task.population_name
        earlier = journals.Journal.load(journals.path_for(self._directory))
        if earlier is None and self._options.resume:
            raise errors.UsageError(f"There is no push of {self._directory} to resume.", next_step="Leave out --resume.")
        http = session.configure(requests.Session(), self._network, self._deadline)
        server = self._options.server or (earlier.server if earlier is not None and self._options.resume else None)
        server = locating.find_task_management_server(server, http)
        self._client = task_management.TaskManagementClient(
            server, population, self._options.login, http, self._network, self._deadline
        )
        self._store = open_store(_ANY_BUCKET, self._network, self._deadline)
        self._journal = self._continued(earlier, server, population)
        self._require_no_other_active_task()

    def _require_no_other_active_task(self) -> None:
        """Looks at all kinds before the first task is created: one that is refused would leave the other as an orphan."""
        missing = [artifacts for artifacts in self._tasks if artifacts.role not in self._journal.tasks]
        if not missing:
            return
        self._largest_id = self._client.largest_task_id()
        others = self._client.active_tasks([artifacts.task for artifacts in missing], self._largest_id)
        if not others:
            return
        roles = {artifacts.task.info.WhichOneof("info"): artifacts.role for artifacts in missing}
        in_the_way = {roles[other.info.WhichOneof("info")]: other for other in others}
        population = self._client.population
        sentences = [
            f"Population {population} has {role} task {other.task_id}, which is {task_pb2.TaskStatus.Enum.Name(other.status)}."
            for role, other in in_the_way.items()
        ]
        advice = "Wait until it has ended, finish it if its upload was interrupted, or use another population (odp-task build --population_name)."
        if artifact_files.TRAINING not in in_the_way and len(self._tasks) > 1:
            alone = push_command(self._directory, self._options.login, "--training_only")
            advice = (
                f"`{alone}` pushes the training task alone; the evaluation task can follow with the same command without --training_only. An "
                f"evaluation may stay open for ever, as no task can be cancelled: another population (odp-task build --population_name) has none."
            )
        raise errors.TaskServerError(
            f"{' '.join(sentences)} The server keeps to one active task of a kind in a population: nothing was created.",
            next_step=advice,
        )

    def _continued(self, earlier: Optional[journals.Journal], server: str, population: str) -> journals.Journal:
        """The journal to go on with: the earlier one when it is about the same push, a new one when that is complete."""
        path = journals.path_for(self._directory)
        fresh = journals.Journal(path, server, population, self._digests)
        if earlier is None:
            return fresh
        same_server = locating.without_slash(earlier.server) == locating.without_slash(server)
        if same_server and (earlier.population, earlier.artifacts) == (population, self._digests):
            return earlier
        if self._is_complete(earlier) or not earlier.tasks:
            return fresh
        different = "artifacts" if earlier.artifacts != self._digests else "server or population"
        raise errors.TaskServerError(
            f"An earlier push of {self._directory} is unfinished: {_describe(earlier)} Its {different} was another one.",
            next_step=f"Finish it as it was, with --resume; or, if that task does not matter any more, remove {path}.",
        )

    def obtain_tasks(self) -> Iterator[tuple[str, task_pb2.Task]]:
        """Creates the tasks that are not there yet; yields each by role as the server stored it.

        Raises:
          errors.TaskServerError: the server refuses.
          errors.StorageError: the server cannot be reached, or it is not known what it did.
        """
        for artifacts in self._tasks:
            task = self._obtain(artifacts)
            self._journal.note_task(artifacts.role, task.task_id, artifact_files.destinations(task))
            self._stored[artifacts.role] = task
            yield artifacts.role, task

    def _obtain(self, artifacts: artifact_files.TaskArtifacts) -> task_pb2.Task:
        artifacts = dataclasses.replace(artifacts, task=self._with_source(artifacts))
        entry = self._journal.tasks.get(artifacts.role)
        if entry is None:
            # What was just looked up is good for the first task that is created.
            largest_id, self._largest_id = self._largest_id, None
            if largest_id is None:
                largest_id = self._client.largest_task_id()
            self._journal.note_request(artifacts.role, largest_id)
            return self._create(artifacts, largest_id)
        if entry.task_id is None:
            found = self._client.find_task_after(entry.largest_id, artifacts.task)
            return found if found is not None else self._create(artifacts, entry.largest_id)
        task = self._client.get_task(entry.task_id)
        if task is None or task.status in _DEAD:
            state = "not known any more" if task is None else task_pb2.TaskStatus.Enum.Name(task.status)
            raise errors.TaskServerError(
                f"Task {entry.task_id} of population {self._client.population} is {state} at {self._client.base_url}.",
                next_step=f"To push these artifacts as new tasks, remove {self._journal.path}.",
            )
        return task

    def _with_source(self, artifacts: artifact_files.TaskArtifacts) -> task_pb2.Task:
        """The task; an evaluation task with the training task whose checkpoints it is to read (spec: phone.md, S2)."""
        if artifacts.role != artifact_files.EVALUATION:
            return artifacts.task
        task = task_pb2.Task()
        task.CopyFrom(artifacts.task)
        training = self._stored.get(artifact_files.TRAINING)
        info = task.info.evaluation_info
        if self._options.source_training_task_id is not None:
            info.training_task_id = self._options.source_training_task_id
        elif training is not None and info.training_population_name == self._client.population:
            info.training_task_id = training.task_id
        return task

    def _create(self, artifacts: artifact_files.TaskArtifacts, largest_id: int) -> task_pb2.Task:
        try:
            return self._client.create_task(artifacts.task, largest_id)
        except errors.TaskServerError:  # A refusal, and a clear one.
            self._journal.forget(artifacts.role)
            raise

    def uploads(self) -> list[artifact_files.Upload]:
        """All uploads in their order.

        Raises:
          errors.StorageError: the server named unusable destinations.
        """
        return artifact_files.uploads(self._tasks, self._stored, in_buckets=True)

    def upload(self, upload: artifact_files.Upload, notify: Notify = lambda sentence: None) -> Pushed:
        """Uploads one file.

        Raises:
          errors.StorageError: it is not in its place.
        """
        pushed = _upload(upload, self._store, self._options.overwrite, notify)
        self._journal.note_uploaded(upload.role, upload.url)
        return pushed

    def describe(self) -> str:
        """Which tasks there are, and what is not known to be in its place."""
        return _describe(self._journal)

    def failure(self, cause: errors.OdpTaskError) -> errors.TaskServerError:
        """What to tell the user of a push that stopped: why, which tasks are incomplete, and how to finish them."""
        command = resume_command(self._directory, self._options)
        return errors.TaskServerError(
            f"{cause}\n{self.describe()}",
            next_step=f"The server starts no incomplete task. Finish the push with: {command}",
        )

    def _is_complete(self, journal: journals.Journal) -> bool:
        roles = {task.role for task in self._tasks}
        return roles <= set(journal.tasks) and all(entry.is_complete for entry in journal.tasks.values())


def resume_command(directory: pathlib.Path, options: PushOptions) -> str:
    """What finishes the push of a directory that was begun with such options."""
    words = ["--resume", *(["--training_only"] if options.training_only else [])]
    if options.source_training_task_id is not None:
        words += ["--source_training_task_id", str(options.source_training_task_id)]
    return push_command(directory, options.login, *words)


def push_command(directory: pathlib.Path, login: auth.Login, *words: str) -> str:
    """A push of a directory for those who are recognised by `login`."""
    account = login.impersonate_service_account
    return shlex.join(
        ["odp-task", "push", *words, str(directory), *(["--impersonate_service_account", account] if account else [])]
    )


def _wanted(
    directory: pathlib.Path, tasks: Sequence[artifact_files.TaskArtifacts], options: PushOptions
) -> Sequence[artifact_files.TaskArtifacts]:
    """The tasks that a push is about. Raises UsageError if the options speak of others."""
    roles = [task.role for task in tasks]
    if options.training_only and artifact_files.TRAINING not in roles:
        raise errors.UsageError(f"{directory} holds no training task.", next_step="Leave out --training_only.")
    wanted = [task for task in tasks if task.role == artifact_files.TRAINING] if options.training_only else tasks
    if options.source_training_task_id is not None and artifact_files.EVALUATION not in {task.role for task in wanted}:
        raise errors.UsageError(
            "--source_training_task_id is for an evaluation task, and none is pushed.", next_step="Leave it out."
        )
    return wanted


def _describe(journal: journals.Journal) -> str:
    sentences = []
    for role, entry in journal.tasks.items():
        if entry.task_id is None:
            sentences.append(
                f"Whether the {role} task of population {journal.population} was created at {journal.server} is not known."
            )
            continue
        missing = [url for url in entry.all_urls() if url not in entry.uploaded]
        state = f"incomplete; not there, or not confirmed: {', '.join(missing)}" if missing else "complete"
        sentences.append(f"Task {entry.task_id} ({role}) of population {journal.population} at {journal.server} is {state}.")
    return "\n".join(sentences)
