"""The WSGI server under the task builder service: waitress, with limits on how requests arrive."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import waitress.channel
import waitress.server
import waitress.task
import waitress.wasyncore

from odp_taskbuilder.server import app

# Threads beside those that wait for builds: for probes, metrics and refusals.
_SPARE_THREADS = 8
_MAX_CONNECTIONS = 1000
_MAX_HEADER_BYTES = 32 << 10


class _ErrorTask(waitress.task.ErrorTask):
    """Answers what is no proper HTTP request, or too large, with a body of the service's own kind."""

    def execute(self) -> None:
        error = self.request.error
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", app.PROTOBUF))
        self.set_close_on_finish()
        body = app.refusal_body(error.code, f"{error.reason}: {error.body}")
        self.content_length = len(body)
        self.write(body)


class _Channel(waitress.channel.HTTPChannel):
    """A connection on which a request must have arrived within a time, however slowly it trickles in."""

    error_task_class = _ErrorTask
    _arriving_since: float = 0.0

    def received(self, data: bytes) -> bool:
        now = time.monotonic()
        if self.request is None:
            self._arriving_since = now
        elif now - self._arriving_since > self.adj.channel_timeout:
            self.will_close = True
            return False
        return super().received(data)


class HttpServer:
    """Serves an application in threads of its own.

    Args:
      max_builds: builds that may be waited for at once; that many threads can be busy for long.
      max_request_bytes: larger bodies are answered with 413 before they are read.
      request_seconds: for a request to arrive, and for an idle connection to be closed.

    Raises:
      OSError: the address cannot be bound.
    """

    def __init__(
        self,
        application: Callable[..., Any],
        host: str,
        port: int,
        *,
        max_builds: int,
        max_request_bytes: int,
        request_seconds: int,
    ):
        # One line for each refused request and full queue is the service's own; waitress would add less readable ones.
        logging.getLogger("waitress").setLevel(logging.ERROR)
        self._server = waitress.server.create_server(
            application,
            sockets=[_bound_socket(host, port)],
            threads=max_builds + _SPARE_THREADS,
            connection_limit=_MAX_CONNECTIONS,
            # select() cannot watch that many connections.
            asyncore_use_poll=True,
            channel_timeout=request_seconds,
            cleanup_interval=max(1, request_seconds // 4),
            max_request_body_size=max_request_bytes + 1,
            max_request_header_size=_MAX_HEADER_BYTES,
            ident=None,
        )
        self._server.channel_class = _Channel
        self.port = int(self._server.effective_port)
        self._thread = threading.Thread(target=self._server.run, name="http", daemon=True)

    @contextlib.contextmanager
    def running(self, flush_seconds: float = 2.0) -> Iterator[None]:
        """Serves while the context lasts; answers that are ready by its end are sent before the connections are closed."""
        self._thread.start()
        try:
            yield
        finally:
            self._server.accepting = False
            end = time.monotonic() + flush_seconds
            while time.monotonic() < end and any(
                c.requests or c.total_outbufs_len for c in list(self._server.active_channels.values())
            ):
                time.sleep(0.01)
            self._server.task_dispatcher.shutdown(timeout=1)
            self._server.close()
            waitress.wasyncore.close_all(self._server._map)
            self._thread.join(flush_seconds)


def _bound_socket(host: str, port: int) -> socket.socket:
    """One socket, also where a name has addresses of both kinds."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
