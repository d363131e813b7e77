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
      num_running: builds that hold a worker at this moment.
    """

    def __init__(self, workers: int, queue: int):
        self._workers = workers
        self._queue = queue
        self._changed = threading.Condition()
        self._closing = False
        self.num_running = 0
        self._num_admitted = 0

    @property
    def num_waiting(self) -> int:
        """Builds that wait for a worker at this moment, those that are being checked included."""
        return self._num_admitted - self.num_running

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Holds one of the places, of which there are as many as workers and places in the queue.

        Raises:
          Busy: none is free.
          Closing: the server stops.
        """
        with self._changed:
            if self._closing:
                raise Closing
            if self._num_admitted >= self._workers + self._queue:
                raise Busy
            self._num_admitted += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_admitted -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def worker(self, wait_seconds: float) -> Iterator[None]:
        """Waits for a worker and holds it; for those who hold a place.

        Raises:
          Busy: no worker became free in time.
          Closing: the server stops.
        """
        with self._changed:
            free = self._changed.wait_for(lambda: self._closing or self.num_running < self._workers, wait_seconds)
            if self._closing:
                raise Closing
            if not free:
                raise Busy
            self.num_running += 1
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
            return self._changed.wait_for(lambda: self._num_admitted == 0, seconds)
