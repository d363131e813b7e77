"""How many builds there may be: so many at work, so many waiting, and a clear answer for the rest."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Busy(Exception):
    """No place is free."""


class Closing(Exception):
    """The server takes no more builds."""


class Admission:
    """A bounded queue in front of a bounded number of workers.

    Attributes:
      num_running, num_waiting: builds at this moment.
    """

    def __init__(self, workers: int, queue: int):
        self._workers = workers
        self._queue = queue
        self._changed = threading.Condition()
        self._closing = False
        self.num_running = self.num_waiting = 0

    @contextlib.contextmanager
    def place(self, wait_seconds: float) -> Iterator[None]:
        """Waits for a worker and holds it.

        Raises:
          Busy: the queue is full, or no worker became free in time.
          Closing: the server stops.
        """
        self._enter(wait_seconds)
        try:
            yield
        finally:
            with self._changed:
                self.num_running -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Turns away those who wait and all who come."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def wait_until_idle(self, seconds: float) -> bool:
        """Whether all builds end within `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: self.num_running == 0, seconds)

    def _enter(self, wait_seconds: float) -> None:
        with self._changed:
            if not self._closing and self.num_running + self.num_waiting >= self._workers + self._queue:
                raise Busy
            self.num_waiting += 1
            try:
                free = self._changed.wait_for(lambda: self._closing or self.num_running < self._workers, wait_seconds)
                if self._closing:
                    raise Closing
                if not free:
                    raise Busy
                self.num_running += 1
            finally:
                self.num_waiting -= 1
