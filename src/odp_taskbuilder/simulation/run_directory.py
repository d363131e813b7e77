"""The directory of a run, laid out as the server lays out its model bucket (spec: http_api.md, section 6).

RUN/simulation.json                              what the run was started with, and how its clients ran
RUN/facts.json                                   what the run is, for whoever compares runs (metrics/run_facts.py)
RUN/<population>/<task id>/<round>/s/0/checkpoint  server checkpoint after the round; of round 0 the initial one
RUN/<population>/<task id>/<round>/s/0/metrics     written last: a round is finished when it is there
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from odp_taskbuilder import errors
from odp_taskbuilder.metrics.run import format_metrics, parse_metrics
from odp_taskbuilder.metrics.run_facts import FACTS, RunFacts

_SETTINGS = "simulation.json"
# In that file, and no setting: a run may go on in another way.
_CLIENTS_RAN = "clients_ran"
# Of settings that are digests: what it means that they differ.
_IN_WORDS = {
    "tasks": "the artifacts are not those that it ran (another build, or built again from other inputs)",
    "clients": "--data holds other clients",
    "data": "--data is other data, or its examples were changed",
    "evaluation_clients": "--evaluation_data holds other clients",
    "evaluation_data": "--evaluation_data is other data, or its examples were changed",
}


class RunDirectory:
    """Reads and writes one run. Files appear complete or not at all.

    Every method raises StorageError when the file system refuses.
    """

    def __init__(self, root: pathlib.Path, population: str, *, is_kept: bool = True):
        """Makes nothing yet.

        Args:
          is_kept: the directory stays when the command ends, for a later one to resume the run.
        """
        self.root = root
        self._population = population
        self._is_kept = is_kept

    @contextlib.contextmanager
    def opened(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Starts a run, or resumes the one that is there; no other command can meanwhile.

        Args:
          settings: everything that the results depend on, as JSON values.

        Raises:
          UsageError: the directory holds something else, or a run with other settings.
          StorageError: another command has it open.
        """
        path = self.root / _SETTINGS
        with _storage_errors("write", self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._lock(lock)
            with _storage_errors("read", path):
                if path.exists():
                    self._check_settings(settings)
                elif any(self.root.iterdir()):
                    raise errors.UsageError(f"{self.root} is not empty and holds no run.", next_step="Name another --run_dir.")
            if not path.exists():
                with _storage_errors("write", path):
                    self._write(path, json.dumps(settings, indent=2).encode())
            yield
        finally:
            os.close(lock)

    def ran_compiled(self) -> dict[int, bool]:
        """Of each task whose clients ran in this run before, by id: whether they ran compiled, in the last command that ran some."""
        ways = self._described().get(_CLIENTS_RAN)
        if not isinstance(ways, dict):
            return {}
        return {int(task_id): way == "compiled" for task_id, way in ways.items() if task_id.isdecimal()}

    def note_way(self, task_id: int, compiled: bool) -> None:
        """Keeps how the clients of a task run."""
        path, described = self.root / _SETTINGS, self._described()
        ways = {**(described.get(_CLIENTS_RAN) or {}), str(task_id): "compiled" if compiled else "interpreter"}
        if described.get(_CLIENTS_RAN) != ways:
            with _storage_errors("write", path):
                self._write(path, json.dumps({**described, _CLIENTS_RAN: ways}, indent=2).encode())

    def keep_facts(self, facts: RunFacts) -> None:
        """Writes what the run is, in place of what was there."""
        with _storage_errors("write", self.root / FACTS):
            self._write(self.root / FACTS, facts.to_json())

    def last_round(self, task_id: int) -> int:
        """Number of the last round that is finished; 0 if none is."""
        files = (self.root / self._population / str(task_id)).glob("*/s/0/metrics")
        names = [path.parents[2].name for path in files]
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def checkpoint(self, task_id: int, number: int) -> pathlib.Path:
        return self._round(task_id, number) / "checkpoint"

    def keep_checkpoint(self, task_id: int, number: int, source: pathlib.Path) -> None:
        """Copies a checkpoint into its place."""
        path = self.checkpoint(task_id, number)
        with _storage_errors("read", source):
            file = open(source, "rb")
        with file, _storage_errors("write", path, self._way_on(number)), _replacing(path) as temporary:
            with open(temporary, "wb") as copy:
                shutil.copyfileobj(file, copy)

    def metrics(self, task_id: int, number: int) -> Optional[dict[str, float]]:
        """The metrics of a finished round; None of one that is not."""
        path = self._round(task_id, number) / "metrics"
        with _storage_errors("read", path):
            try:
                return parse_metrics(path.read_bytes())
            except FileNotFoundError:
                return None
            except ValueError as error:
                raise errors.StorageError(f"{path} is no metrics file: {error}.") from error

    def finish_round(self, task_id: int, number: int, metrics: Mapping[str, float]) -> None:
        """Writes a round's metrics, which makes it a finished one."""
        path = self._round(task_id, number) / "metrics"
        with _storage_errors("write", path, self._way_on(number)):
            self._write(path, format_metrics(metrics))

    def _round(self, task_id: int, number: int) -> pathlib.Path:
        return self.root / self._population / str(task_id) / str(number) / "s" / "0"

    def _way_on(self, number: int) -> Optional[str]:
        """What to do when a round cannot be kept."""
        if not self._is_kept or number < 1:
            return None
        return "The rounds that are finished are kept; resume with the same command."

    def _lock(self, descriptor: int) -> None:
        """Locks the directory until the descriptor is closed, which the end of the process does, too."""
        with _storage_errors("lock", self.root):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise errors.StorageError(
                    f"Another command is running in {self.root}.", next_step="Wait for its end, or name another --run_dir."
                ) from None

    def _described(self) -> dict[str, Any]:
        """What the file of settings holds. Raises UsageError if it is none."""
        path = self.root / _SETTINGS
        with _storage_errors("read", path):
            content = path.read_bytes()
        try:
            described = json.loads(content)
        except ValueError:
            described = None
        if not isinstance(described, dict):
            raise errors.UsageError(f"{path} does not describe a run.", next_step="Name another --run_dir.")
        return described

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        former = self._described()
        former.pop(_CLIENTS_RAN, None)
        changed = [name for name in {**former, **settings} if former.get(name) != settings.get(name)]
        if changed:
            details = "; ".join(_IN_WORDS.get(name) or _change(name, former.get(name), settings.get(name)) for name in changed)
            raise errors.UsageError(
                f"{self.root} holds a run with other settings: {details}.",
                next_step="Resume with the same artifacts, data and options, or name another --run_dir.",
            )

    def _write(self, path: pathlib.Path, content: bytes) -> None:
        with _replacing(path) as temporary:
            temporary.write_bytes(content)


def _change(name: str, former: Any, now: Any) -> str:
    if name == "oracle":
        return "--engine tff ran it" if former else "it did not run with --engine tff"

    def shown(value: Any) -> str:
        return "not given" if value is None or value is False else "given" if value is True else str(value)

    return f"--{name} was {shown(former)} and is {shown(now)}"


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file beside `path` that takes its place when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _storage_errors(verb: str, path: pathlib.Path, next_step: Optional[str] = None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise errors.StorageError(f"Cannot {verb} {path}: {error.strerror}", next_step=next_step) from error
