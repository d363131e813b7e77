"""Keeps one zygote at hand: the process, ten seconds old before it is of use, that builds are forked from."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Optional

from odp_taskbuilder import errors, sandbox


class ZygoteKeeper:
    """Starts a zygote when `start` is called, and another one when that has ended.

    The kernel ends a zygote with the thread that started it, so all of them are started from one thread, which lives as long as
    the keeper.
    """

    def __init__(self, preload: Sequence[str]):
        self._preload = tuple(preload)
        self._changed = threading.Condition()
        self._zygote: Optional[sandbox.Zygote] = None
        self._failure: Optional[errors.OdpTaskError] = None
        self._closed = False
        self._thread = threading.Thread(target=self._keep, name="zygote keeper", daemon=True)

    def start(self) -> None:
        """Begins, without waiting for the zygote."""
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        return self._zygote is not None

    def get(self) -> sandbox.Zygote:
        """Returns the zygote, after waiting for it where needed.

        Raises:
          errors.OdpTaskError: it cannot be started, or the keeper is closed.
        """
        with self._changed:
            self._failure = None
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._zygote is not None or self._failure is not None or self._closed)
            if self._closed:
                raise errors.OdpTaskError("The server is shutting down.")
            if self._zygote is None:
                raise self._failure
            return self._zygote

    def replace(self, zygote: sandbox.Zygote) -> None:
        """Ends a zygote that does not answer; the next one is started."""
        zygote.close()
        with self._changed:
            if self._zygote is zygote:
                self._zygote = None
                self._changed.notify_all()

    def close(self) -> None:
        """Ends the zygote, and with it everything that was forked from it.

        One that is still importing is not waited for: the kernel ends it with this process.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            zygote = self._zygote
        if zygote is not None:
            zygote.close()

    def _keep(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or (self._zygote is None and self._failure is None))
                if self._closed:
                    return
            try:
                zygote, failure = sandbox.Zygote(self._preload), None
            except errors.OdpTaskError as error:
                zygote, failure = None, error
            with self._changed:
                self._zygote, self._failure = zygote, failure
                self._changed.notify_all()
            if self._closed and zygote is not None:
                zygote.close()
