"""The task management server's HTTP interface (spec: http_api.md, section 3).

create-task is not idempotent and takes no request id: a lost answer leaves a task whose id nobody was told. Ids count up from 1
in each population, so the largest one is looked up before a task is created; after an unclear answer whatever has appeared
beyond it tells whether the task exists. Only then is the request sent again.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence
from typing import Optional

import requests
from google.protobuf import message

from odp_taskbuilder import errors
from odp_taskbuilder.proto import task_pb2
from odp_taskbuilder.push import auth, locating
from odp_taskbuilder.transport import deadline as deadlines
from odp_taskbuilder.transport import session

_ACTIVE = (task_pb2.TaskStatus.CREATED, task_pb2.TaskStatus.OPEN)

# With the pauses between them about four seconds.
_MAX_CONNECTION_ATTEMPTS = 5
_LARGEST_ID = 2**63 - 1
_FAILED = "Failed to create tasks by task management service"
# How many tasks of a population are looked at for one that is in the way: each costs a request.
_LOOK_BACK = 100

# What a server has no reason to change in a task; it tells whether a task is the one that was sent.
_IDENTIFYING = ("total_iteration", "min_aggregation_size", "max_aggregation_size", "min_client_version", "max_client_version")


class TaskManagementClient:
    """Creates tasks of one population, and looks at them."""

    def __init__(
        self,
        server: str,
        population: str,
        login: auth.Login,
        http: requests.Session,
        network: deadlines.Network,
        deadline: deadlines.Deadline,
    ):
        self.base_url = locating.without_slash(server)
        self._audience = server
        self.population = population
        self._login = login
        self._http = http
        self._network = network
        self._deadline = deadline

    def largest_task_id(self) -> int:
        """The largest task id of the population, 0 if it has no task. Asks about twice as often as that has binary digits.

        Raises:
          errors.StorageError, errors.TaskServerError: see `get_task`.
        """
        absent = 1
        while self.get_task(absent) is not None:
            absent *= 2
            if absent > _LARGEST_ID:
                raise errors.TaskServerError(f"{self.base_url} says that every task exists.", next_step="Check the URL.")
        present = absent // 2
        while absent - present > 1:
            middle = (absent + present) // 2
            if self.get_task(middle) is not None:
                present = middle
            else:
                absent = middle
        return present

    def get_task(self, task_id: int) -> Optional[task_pb2.Task]:
        """Returns a task with its upload URLs; None if there is no such task.

        Raises:
          errors.StorageError: the server cannot be reached, or gives no usable answer.
          errors.TaskServerError: the server refuses.
        """
        url = self._url(f"/tasks/{task_id}:get")
        purpose = f"look at task {task_id} of population {self.population}"

        def attempt() -> Optional[task_pb2.Task]:
            answer = self._exchange("GET", url, None)
            return None if answer.status == 404 else _parse(task_pb2.GetTaskByIdResponse, answer, url)

        try:
            return deadlines.repeat(attempt, _Patience(), self._network, self._deadline)
        except _Failure as failure:
            raise failure.as_error(f"Cannot {purpose}") from None

    def create_task(self, task: task_pb2.Task, largest_id: int) -> task_pb2.Task:
        """Creates a task and returns it as the server stored it, with its id and its upload URLs.

        Args:
          largest_id: what `largest_task_id` said before this task was first asked for, in this process or an earlier one.

        Raises:
          errors.TaskServerError: the server refused the request itself; there is no such task, or it is not as it was sent.
          errors.StorageError: it is not known whether the server created the task, for whatever reason it cannot be asked.
        """
        url = self._url(":create-task")
        request = task_pb2.CreateTaskRequest(task=task).SerializeToString()
        unclear = False

        def attempt() -> task_pb2.Task:
            nonlocal unclear
            try:
                created = _parse(task_pb2.CreateTaskResponse, self._exchange("POST", url, request), url)
                if not _is_same(created, task):
                    unclear = False
                    raise errors.TaskServerError(
                        f"{url} created task {created.task_id}, but not as it was sent; its artifacts are not uploaded.",
                        next_step="It blocks its population. Have the server's operator look at it, or use another population.",
                    )
                return created
            except _Failure as failure:
                unclear = unclear or failure.may_have_worked
                found = self.find_task_after(largest_id, task) if unclear else None
                if found is not None:
                    return found
                other = next(iter(self.active_tasks([task], largest_id)), None)
                if other is not None:
                    # That is the likely reason of the refusal, which the server gives as an internal error.
                    unclear = False
                    raise self._second_active_task(other) from None
                raise

        try:
            return deadlines.repeat(attempt, _Patience(), self._network, self._deadline)
        except _Failure as failure:
            failure.may_have_worked = unclear
            raise failure.as_error(_FAILED) from None
        except errors.TaskServerError as error:
            if not unclear:
                raise
            # The look for the task was refused, or credentials for it could not be had: that says nothing of the request.
            raise errors.StorageError(f"{_FAILED}: its answer was lost. {error.message}", next_step=error.next_step) from error

    def find_task_after(self, largest_id: int, task: task_pb2.Task) -> Optional[task_pb2.Task]:
        """Returns the active task that equals `task` among those with ids beyond `largest_id`; None if there is none.

        Raises:
          errors.StorageError, errors.TaskServerError: see `get_task`.
        """
        task_id = largest_id + 1
        while (stored := self.get_task(task_id)) is not None:
            if stored.status in _ACTIVE and _is_same(stored, task):
                return stored
            task_id += 1
        return None

    def active_tasks(self, tasks: Sequence[task_pb2.Task], largest_id: int) -> list[task_pb2.Task]:
        """Earlier tasks because of which the server creates none of the kinds of `tasks`, in the order of these: it has at most one active
        task of a kind in a population (spec: phone.md, S1). Looks at the last hundred tasks.

        Raises:
          errors.StorageError, errors.TaskServerError: see `get_task`.
        """
        found: dict[str, task_pb2.Task] = {}
        kinds = [task.info.WhichOneof("info") for task in tasks]
        for task_id in range(largest_id, max(0, largest_id - _LOOK_BACK), -1):
            if len(found) == len(set(kinds)):
                break
            other = self.get_task(task_id)
            if other is not None and other.status in _ACTIVE and other.info.WhichOneof("info") in kinds:
                found.setdefault(other.info.WhichOneof("info"), other)
        return [found[kind] for kind in kinds if kind in found]

    def _second_active_task(self, other: task_pb2.Task) -> errors.TaskServerError:
        status = task_pb2.TaskStatus.Enum.Name(other.status)
        return errors.TaskServerError(
            f"{_FAILED}: population {self.population} has task {other.task_id} of the same kind, which is {status}; "
            "at most one may be active.",
            next_step="Wait until it has ended, finish it if its upload was interrupted, or use another population.",
        )

    def _url(self, rest: str) -> str:
        return f"{self.base_url}/taskmanagement/v1/population/{urllib.parse.quote(self.population, safe='')}{rest}"

    def _exchange(self, method: str, url: str, body: Optional[bytes]) -> session.Answer:
        headers = {"Content-Type": session.PROTOBUF}
        headers.update(auth.headers(self._login, self.base_url, self._audience, self._http))
        try:
            return session.exchange(self._http, method, url, headers=headers, body=body)
        except session.NoAnswer as error:
            raise _Failure(f"Fail to connect: {url} ({error})", may_have_worked=error.sent, is_transient=True) from None


class _Failure(Exception):
    """A request without a usable answer.

    Attributes:
      may_have_worked: the server may have done what was asked.
      is_transient: it is worth asking again.
    """

    def __init__(self, text: str, *, may_have_worked: bool, is_transient: bool):
        super().__init__(text)
        self.may_have_worked = may_have_worked
        self.is_transient = is_transient

    def as_error(self, what_failed: str) -> errors.OdpTaskError:
        if self.may_have_worked or self.is_transient:
            return errors.StorageError(
                f"{what_failed}: {self}", next_step="Check the server and the connection, then run the command again."
            )
        return errors.TaskServerError(f"{what_failed}: {self}")


class _Patience:
    """Says of each failure whether to ask again: a server that cannot be reached at all is given up after a few attempts."""

    def __init__(self) -> None:
        self._not_reached = 0

    def __call__(self, error: Exception) -> bool:
        if not isinstance(error, _Failure):
            return False
        self._not_reached += error.is_transient and not error.may_have_worked
        return error.is_transient and self._not_reached < _MAX_CONNECTION_ATTEMPTS


def _parse(response_type: type[message.Message], answer: session.Answer, url: str) -> task_pb2.Task:
    if not answer.ok:
        # A gateway may give up on a request that goes on behind it; one that finds a request wrong has not passed it on.
        passing = answer.status in session.TRANSIENT_STATUSES
        raise _Failure(f"{answer} ({url})", may_have_worked=passing, is_transient=passing)
    try:
        task = response_type.FromString(answer.body).task
    except message.DecodeError:
        task = None
    if task is None or task.task_id <= 0:
        raise _Failure(f"Server returned unreadable response. ({url})", may_have_worked=True, is_transient=True)
    return task


def _is_same(stored: task_pb2.Task, sent: task_pb2.Task) -> bool:
    same_kind = stored.info.WhichOneof("info") == sent.info.WhichOneof("info")
    return same_kind and all(getattr(stored, field) == getattr(sent, field) for field in _IDENTIFYING)
