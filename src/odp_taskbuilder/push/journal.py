"""What a push has done so far, on disk before the next step is taken.

The journal of `DIR` is the file `DIR.push.json` beside it, so that it survives when the artifacts are built anew. It holds no
secrets.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from odp_taskbuilder import errors

_VERSION = 1


@dataclasses.dataclass
class TaskEntry:
    """What is known about one task.

    Attributes:
      largest_id: the largest task id of the population before this task was first asked for.
      task_id: None until the server has said it.
      urls: destination URLs by artifact name, one for each storage partition.
      uploaded: URLs whose content was verified.
    """

    largest_id: int
    task_id: Optional[int] = None
    urls: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    uploaded: list[str] = dataclasses.field(default_factory=list)

    def all_urls(self) -> list[str]:
        return [url for urls in self.urls.values() for url in urls]

    @property
    def is_complete(self) -> bool:
        return self.task_id is not None and set(self.all_urls()) <= set(self.uploaded)


class Journal:
    """The record of one push. Every change is on disk before the method returns.

    What the server has said is kept in memory also when it cannot be written: it is so, and the user is told of it.
    """

    def __init__(self, path: pathlib.Path, server: str, population: str, artifacts: Mapping[str, str]):
        """Starts a journal; nothing is written yet.

        Args:
          artifacts: sha256 of each artifact by file name.
        """
        self.path = path
        self.server = server
        self.population = population
        self.artifacts = dict(artifacts)
        self.tasks: dict[str, TaskEntry] = {}

    @classmethod
    def load(cls, path: pathlib.Path) -> Optional[Journal]:
        """Reads a journal; None if there is none.

        Raises:
          errors.StorageError: it cannot be read.
        """
        try:
            document = json.loads(path.read_bytes())
            if document["version"] != _VERSION:
                raise ValueError(f"version {document['version']}")
            journal = cls(path, document["server"], document["population"], document["artifacts"])
            journal.tasks = {role: TaskEntry(**entry) for role, entry in document["tasks"].items()}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise errors.StorageError(
                f"The journal of an earlier push, {path}, cannot be read: {error}.",
                next_step="It says which tasks were created. Keep it, and remove it from its place to push anew.",
            ) from error
        return journal

    def note_request(self, role: str, largest_id: int) -> None:
        """A task is about to be asked for. When that cannot be noted it must not be, and nothing has changed."""
        entry = TaskEntry(largest_id)
        self._save({**self.tasks, role: entry})
        self.tasks[role] = entry

    def forget(self, role: str) -> None:
        """The server has certainly not created the task that was asked for."""
        del self.tasks[role]
        self._save(self.tasks)

    def note_task(self, role: str, task_id: int, urls: Mapping[str, list[str]]) -> None:
        """The server has said which task it is, and where its artifacts belong."""
        entry = self.tasks[role]
        entry.task_id, entry.urls = task_id, dict(urls)
        self._save(self.tasks)

    def note_uploaded(self, role: str, url: str) -> None:
        entry = self.tasks[role]
        if url not in entry.uploaded:
            entry.uploaded.append(url)
            self._save(self.tasks)

    def _save(self, tasks: Mapping[str, TaskEntry]) -> None:
        document = {
            "version": _VERSION,
            "server": self.server,
            "population": self.population,
            "artifacts": self.artifacts,
            "tasks": {role: dataclasses.asdict(entry) for role, entry in tasks.items()},
        }
        _write_durably(self.path, document)


def path_for(directory: pathlib.Path) -> pathlib.Path:
    """Where the journal of an artifact directory is."""
    directory = directory.resolve()
    return directory.with_name(f"{directory.name}.push.json")


@contextlib.contextmanager
def exclusive(directory: pathlib.Path) -> Iterator[None]:
    """Keeps other pushes away from an artifact directory.

    Raises:
      errors.StorageError: another push is at work.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.StorageError(f"Another push of {directory} is running.") from None
        yield
    finally:
        os.close(descriptor)


def _write_durably(path: pathlib.Path, document: Any) -> None:
    temporary = path.with_name(f".{path.name}.new")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise errors.StorageError(
            f"Cannot write the journal {path}: {error.strerror or error}.",
            next_step="A push keeps its journal beside the artifact directory; make that place writable.",
        ) from error
