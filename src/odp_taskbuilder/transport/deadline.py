"""Time limits of network work: how long to wait, when to try again, and when to give up."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable, Optional, TypeVar

from odp_taskbuilder import errors
from odp_taskbuilder.base import redaction

_Result = TypeVar("_Result")

_TURN_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Network:
    """How patient a command is. All values are seconds.

    Attributes:
      deadline: for all the network work of the command, every attempt and pause included.
      connect_timeout: for resolving a name and opening a connection.
      silence: how long a server may send nothing while an answer is awaited.
      retry_for: how long one request is repeated after transient failures.
      first_pause, longest_pause: bounds of the pauses between attempts; a pause doubles each time and is drawn at random below
        its bound, so that clients which failed together do not come back together.
    """

    deadline: float = 3600.0
    connect_timeout: float = 10.0
    silence: float = 20.0
    retry_for: float = 45.0
    first_pause: float = 0.5
    longest_pause: float = 10.0

    def pauses(self) -> Iterator[float]:
        bound = self.first_pause
        while True:
            yield random.uniform(0, bound)
            bound = min(2 * bound, self.longest_pause)


class Deadline:
    """A moment at which work must have ended.

    Attributes:
      latest: method and URL of the latest request; empty before the first.
    """

    def __init__(self, seconds: float):
        self.latest = ""
        self._seconds = seconds
        self._reason = ""
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left; 0 once the moment has passed."""
        return max(0.0, self._end - time.monotonic())

    def end_now(self, reason: str = "") -> None:
        """Lets the moment pass: no request begins any more. `reason` is a sentence that says why, for `error`."""
        self._reason = self._reason or reason
        self._end = time.monotonic()

    def error(self) -> errors.StorageError:
        latest = f" The latest request was {redaction.redact(self.latest)}." if self.latest else ""
        if self._reason:
            return errors.StorageError(f"{self._reason}{latest}")
        return errors.StorageError(
            f"The network work was not done within {self._seconds:g} seconds.{latest}",
            next_step="Check the servers and the connection, or allow more time with --deadline.",
        )


def repeat(
    attempt: Callable[[], _Result], is_transient: Callable[[Exception], bool], network: Network, deadline: Deadline
) -> _Result:
    """Calls `attempt` until it succeeds, fails for good, or `network.retry_for` or the deadline would be exceeded.

    Raises:
      the last exception of `attempt`.
    """
    give_up_at = time.monotonic() + min(network.retry_for, deadline.remaining())
    for pause in network.pauses():
        try:
            return attempt()
        except Exception as error:
            if not is_transient(error) or time.monotonic() + pause > give_up_at:
                raise
        time.sleep(pause)
    raise AssertionError("pauses() never ends")


def call_within(deadline: Deadline, function: Callable[[], _Result]) -> _Result:
    """Calls `function` and returns its result, or gives up at the deadline, whatever the function is waiting for.

    Socket timeouts alone do not bound a command: resolving a name cannot be interrupted, and a server that sends a byte now and
    then never runs into one. So the function runs in a thread of its own. When it is given up, at the deadline or because the
    caller is interrupted, it begins no further request (session.py), and the thread does not keep the process alive.

    Raises:
      errors.StorageError: the deadline passed first.
      whatever `function` raises.
    """
    outcome: list[tuple[Optional[Any], Optional[BaseException]]] = []

    def run() -> None:
        try:
            outcome.append((function(), None))
        except BaseException as error:  # Raised again in the calling thread.
            outcome.append((None, error))

    thread = threading.Thread(target=run, name="network", daemon=True)
    thread.start()
    try:
        # In short turns: a signal that arrives just before a wait begins is noticed only when the wait is over.
        while thread.is_alive() and deadline.remaining() > 0:
            thread.join(min(deadline.remaining(), _TURN_SECONDS))
    finally:
        if not outcome:
            deadline.end_now()
    if not outcome:
        raise deadline.error()
    result, error = outcome[0]
    if error is not None:
        raise error
    return result
