"""The WSGI server under the task builder service: waitress, with limits on how requests arrive."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import re
import resource
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Optional

import waitress.channel
import waitress.parser
import waitress.server
import waitress.task
import waitress.utilities
import waitress.wasyncore

from odp_taskbuilder.server import app

# Threads beside those that wait for builds: for metrics and refusals. Probes have one of their own.
_SPARE_THREADS = 8
# Beyond these, the connection on which a request has been arriving for the longest time makes room for the next.
_MAX_CONNECTIONS = 2000
# Descriptors for everything but connections: builds, uploads, files.
_OTHER_DESCRIPTORS = 200
_MAX_HEADER_BYTES = 32 << 10
# Bodies that have arrived, or are arriving, and wait for an answer; a build's request has kilobytes.
_MAX_HELD_BYTES = 64 << 20

_TRANSFER_ENCODING = re.compile(rb"(?im)^transfer-encoding[ \t]*:")
_CONTENT_LENGTH = re.compile(rb"(?im)^content-length[ \t]*:")


class _Busy(waitress.utilities.Error):
    code = 503
    reason = "Service Unavailable"


class _HeldBytes:
    """How much of requests' bodies the server holds; several threads change it."""

    def __init__(self, most: int):
        self._most = most
        self._now = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Adds bytes, if that many more may be held."""
        with self._lock:
            if self._now + size > self._most:
                return False
            self._now += size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._now -= size


class _Nowhere:
    """In place of the buffer of a body that nobody will read."""

    def append(self, data: bytes) -> None:
        pass

    def getfile(self) -> io.BytesIO:
        return io.BytesIO()

    def close(self) -> None:
        pass

    def __len__(self) -> int:
        return 0


class _Request(waitress.parser.HTTPRequestParser):
    """A request while it arrives. Its body is kept only where somebody may send one, and as long as there is room."""

    # Of the server; set by a subclass.
    held: _HeldBytes
    may_have_a_body: Callable[[app.RequestHead], bool]
    # Of waitress, which has no types.
    body_rcv: Any
    error: Any
    expect_continue: Any

    _held = 0
    _refusal: Optional[_Busy] = None

    def parse_header(self, header_plus: bytes) -> None:
        encodings = len(_TRANSFER_ENCODING.findall(header_plus))
        # Two servers that take different ones for the body's end see different requests (RFC 9112, section 6.1).
        if encodings and _CONTENT_LENGTH.search(header_plus):
            raise waitress.parser.ParsingError("Content-Length together with Transfer-Encoding")
        super().parse_header(header_plus)
        if encodings and (encodings > 1 or not self.chunked):
            raise waitress.parser.ParsingError("Transfer-Encoding other than once, as chunked, in HTTP/1.1")
        if self.body_rcv is not None and not self.may_have_a_body(app.RequestHead(self.command, self.path, self.query, self.headers)):
            if self.expect_continue:
                # It can be answered without its body, which may come all the same: nothing behind it is a request.
                self.body_rcv, self.content_length, self.connection_close = None, 0, True
                self.expect_continue = False
            else:
                self._discard_body()

    def received(self, data: bytes) -> int:
        before = self.body_bytes_received
        consumed = super().received(data)
        arrived = self.body_bytes_received - before
        if arrived and self._refusal is None and not isinstance(self.body_rcv.getbuf(), _Nowhere):
            if self.held.take(arrived):
                self._held += arrived
            else:
                self._refusal = _Busy("The server holds as many requests as it can.")
                self._discard_body()
        if self.completed and self.error is None:
            self.error = self._refusal
        if self.error is not None:
            self.expect_continue = False
        return consumed

    def close(self) -> None:
        super().close()
        self.held.give_back(self._held)
        self._held = 0

    def _discard_body(self) -> None:
        self.close()
        self.body_rcv.buf = _Nowhere()


class _ErrorTask(waitress.task.ErrorTask):
    """Answers what is no proper HTTP request, or too large, with a body of the service's own kind."""

    def execute(self) -> None:
        error = self.request.error
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", app.PROTOBUF))
        if error.code == _Busy.code:
            self.response_headers.append(("Retry-After", str(app.RETRY_AFTER_SECONDS)))
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

    @property
    def is_waiting(self) -> bool:
        """Whether no request has arrived on it that is not answered yet."""
        return not (self.requests or self.total_outbufs_len or self.will_close)

    def add_channel(self, map: Any = None) -> None:  # noqa: A002 - waitress's name
        channels = self.server.active_channels
        if len(channels) >= self.server.max_channels:
            waiting = [channel for channel in channels.values() if channel.is_waiting]
            if waiting:
                min(waiting, key=lambda channel: channel._arriving_since or channel.opened).will_close = True
        self.opened = time.monotonic()
        super().add_channel(map)

    def del_channel(self, map: Any = None) -> None:  # noqa: A002
        super().del_channel(map)
        if self.request is not None:
            self.request.close()


class _Dispatchers:
    """Answers probes in a thread of their own, and everything else in the others."""

    def __init__(self, others: waitress.task.ThreadedTaskDispatcher):
        self._others, self._probes = others, waitress.task.ThreadedTaskDispatcher()
        self._probes.set_thread_count(1)

    def add_task(self, channel: _Channel) -> None:
        request = channel.requests[0]
        is_probe = request.error is None and request.path in app.PROBES
        (self._probes if is_probe else self._others).add_task(channel)

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> None:
        for dispatcher in (self._probes, self._others):
            dispatcher.shutdown(cancel_pending, timeout)


class HttpServer:
    """Serves an application in threads of its own.

    Args:
      max_builds: builds that may be waited for at once; that many threads can be busy for long.
      tokens: see app.create_app; without one of them no body is kept.
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
        tokens: Sequence[str] = (),
        max_request_bytes: int,
        request_seconds: int,
    ):
        # One line for each refused request and full queue is the service's own; waitress would add less readable ones.
        logging.getLogger("waitress").setLevel(logging.ERROR)
        self._server = waitress.server.create_server(
            application,
            sockets=[_bound_socket(host, port)],
            # The server makes room for new connections itself: a limit of waitress's would keep probes waiting outside.
            connection_limit=1 << 30,
            backlog=_MAX_CONNECTIONS,
            # select() cannot watch that many connections.
            asyncore_use_poll=True,
            channel_timeout=request_seconds,
            cleanup_interval=max(1, request_seconds // 4),
            max_request_body_size=max_request_bytes + 1,
            max_request_header_size=_MAX_HEADER_BYTES,
            ident=None,
        )
        self._server.task_dispatcher = _Dispatchers(self._server.task_dispatcher)
        self._server.max_channels = _raised_connection_limit()
        held = _HeldBytes(max(_MAX_HELD_BYTES, max_request_bytes))
        members = {"held": held, "may_have_a_body": staticmethod(functools.partial(app.may_have_a_body, tokens))}
        self._server.channel_class = type("Channel", (_Channel,), {"parser_class": type("Request", (_Request,), members)})
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


def _raised_connection_limit() -> int:
    """Lets this process have descriptors for _MAX_CONNECTIONS connections; returns for how many it has them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_CONNECTIONS + _OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    have, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_CONNECTIONS if have == resource.RLIM_INFINITY else max(1, min(_MAX_CONNECTIONS, have - _OTHER_DESCRIPTORS))


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
