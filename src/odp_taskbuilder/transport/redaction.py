"""Keeps secrets out of everything that is printed or logged.

What is known to be a secret (an API key, a token) is registered with `protect`; what looks like one (a key in a URL, a bearer
token, a password before a host name) is recognised. Once there are sessions, log records of every library are redacted as they
are made: urllib3, for one, logs whole URLs.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import urllib.parse
from typing import Any

_MASK = "[redacted]"
# Shorter ones would turn messages into masks, and protect nothing.
_SHORTEST_SECRET = 4

# The session address of a resumable upload (upload_id) gives write access by itself.
_QUERY_SECRET = re.compile(r"([?&](?:key|api_key|access_token|upload_id)=)[^&\s'\"]+")
_BEARER = re.compile(r"(?i)(\bbearer\s+)[A-Za-z0-9._~+/=-]+")
_PASSWORD = re.compile(r"(://)[^/\s@'\"]+@")

# Each secret in the forms in which it is written, and until when it is one (time.monotonic). Replaced, never changed: others
# may be reading it.
_secrets: dict[str, float] = {}
_changing = threading.Lock()
_guarded = threading.Lock()


def protect(secret: str, seconds: float = float("inf")) -> str:
    """Registers a secret, which is good for so many seconds, and returns it."""
    global _secrets
    if len(secret) >= _SHORTEST_SECRET:
        now = time.monotonic()
        with _changing:
            valid = {known: end for known, end in _secrets.items() if end > now}
            for form in (secret, urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret)):
                valid[form] = max(now + seconds, valid.get(form, 0.0))
            _secrets = valid
    return secret


def redact(text: str) -> str:
    """Returns `text` with every known or recognisable secret masked."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, _MASK)
    text = _QUERY_SECRET.sub(rf"\g<1>{_MASK}", text)
    text = _BEARER.sub(rf"\g<1>{_MASK}", text)
    return _PASSWORD.sub(rf"\g<1>{_MASK}@", text)


def guard_logs() -> None:
    """From now on, redacts what any library logs in this process."""
    if not _guarded.acquire(blocking=False):
        return
    make_record = logging.getLogRecordFactory()

    def make_redacted_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        record.msg, record.args = redact(record.getMessage()), None
        return record

    logging.setLogRecordFactory(make_redacted_record)
