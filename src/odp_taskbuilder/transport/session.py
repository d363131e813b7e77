"""Sessions under a deadline, and single requests whose failure says whether the server can have seen them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Optional

import requests
import requests.adapters
import urllib3.exceptions

from odp_taskbuilder.base import redaction
from odp_taskbuilder.transport import deadline as deadlines

# Answers of the task servers hold a few URLs and numbers.
_MAX_ANSWER_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 16

# The media type of requests to task servers, and of their answers.
PROTOBUF = "application/x-protobuf"

# What a server, or a gateway before it, answers in passing.
TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})


class _DeadlineAdapter(requests.adapters.HTTPAdapter):
    """Gives every request timeouts that fit into what is left of the deadline, and none once it has passed."""

    def __init__(self, network: deadlines.Network, deadline: deadlines.Deadline):
        self._network = network
        self._deadline = deadline
        super().__init__()

    def send(self, request: requests.PreparedRequest, *args: Any, timeout: Any = None, **kwargs: Any) -> requests.Response:
        remaining = self._deadline.remaining()
        if remaining <= 0:
            raise requests.ConnectTimeout("the deadline has passed", request=request)
        self._deadline.latest = f"{request.method} {request.url}"
        connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        bounded = (
            min(remaining, self._network.connect_timeout, connect or remaining),
            min(remaining, self._network.silence, read or remaining),
        )
        return super().send(request, *args, timeout=bounded, **kwargs)


def configure(session: requests.Session, network: deadlines.Network, deadline: deadlines.Deadline) -> requests.Session:
    """Puts a session of any kind under the deadline, and what is logged about it under guard (redaction.py)."""
    redaction.guard_logs()
    adapter = _DeadlineAdapter(network, deadline)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    # Without an auth of its own a session looks into ~/.netrc, and what it finds there would replace our Authorization header.
    session.auth = lambda request: request
    return session


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a server said.

    Attributes:
      headers: names in any case.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


class NoAnswer(Exception):
    """A request that got no complete answer.

    Attributes:
      sent: False when the server certainly did not see the request.
    """

    def __init__(self, text: str, sent: bool):
        super().__init__(text)
        self.sent = sent


def exchange(
    session: requests.Session,
    method: str,
    url: str,
    *,
    headers: Optional[Mapping[str, str]] = None,
    body: Optional[bytes] = None,
) -> Answer:
    """Sends one request, once. Redirects are not followed: they would carry the secrets of the headers to another host.

    Raises:
      NoAnswer: no connection, no complete answer, or one beyond 16 MiB.
    """
    try:
        with session.request(method, url, headers=headers, data=body, allow_redirects=False, stream=True) as response:
            content = bytearray()
            for chunk in response.iter_content(_CHUNK_BYTES):
                content += chunk
                if len(content) > _MAX_ANSWER_BYTES:
                    raise NoAnswer(f"the answer is larger than {_MAX_ANSWER_BYTES} bytes", sent=True)
            return Answer(response.status_code, response.reason or "", response.headers, bytes(content))
    except requests.RequestException as error:
        # Not chained: texts of requests' exceptions hold the URL, and that may hold a key.
        raise NoAnswer(redaction.redact(_describe(error)), sent=not _was_not_sent(error)) from None


def _was_not_sent(error: requests.RequestException) -> bool:
    if isinstance(error, (requests.ConnectTimeout, requests.exceptions.InvalidURL)):
        return True
    cause = error.args[0] if error.args else None
    reason = getattr(cause, "reason", None)
    return isinstance(reason, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError))


def _describe(error: requests.RequestException) -> str:
    """The innermost reason, which is the readable one: `[Errno 111] Connection refused`."""
    reason: Any = error
    while True:
        inner = getattr(reason, "reason", None) or next(
            (arg for arg in getattr(reason, "args", ()) if isinstance(arg, Exception)), None
        )
        if not isinstance(inner, Exception):
            return str(reason) or type(reason).__name__
        reason = inner
