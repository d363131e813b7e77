"""Keeps secrets out of everything that is printed or logged.

What is known to be a secret (an API key, a token, a password in a URL of the command line) is registered with `protect`; what looks
like one (what stands before the host of a URL, values in its query, a bearer token) is recognised. `redact` masks both in a text,
`redact_url` masks what is secret in one URL, of which no guess is needed where it ends. Once there are sessions, log records of every
library are redacted as they are made: urllib3, for one, logs whole URLs.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import urllib.parse
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

_MASK = "[redacted]"
# Shorter ones would turn messages into masks, and protect nothing.
_SHORTEST_SECRET = 4

# Sought at the beginning of a word only, or long words would take long.
_SCHEME = r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*"
# Also as those write it who leave out slashes.
_START = rf"(?:{_SCHEME}://|(?<![A-Za-z0-9+.-])(?:https?|ftp|gs):/?(?!/))"
_URL_START = re.compile(rf"\s*{_START}|\s*file:/?", re.IGNORECASE)
# In a text a URL ends with the quotation mark that it begins with, or else at a blank.
_QUOTED_URL = re.compile(rf"(?<=(?P<quote>[\"'`]))(?P<start>{_START})(?P<rest>(?:\\.|(?!(?P=quote))[^\n])*)(?=(?P=quote))", re.IGNORECASE)
_BARE_URL = re.compile(
    # Names in buckets and files may hold an @: what follows them is looked at for itself.
    rf"(?P<files>\b(?:gs|file)://)(?P<name>(?:(?!{_SCHEME}://)\S)*)|(?P<start>{_START})(?P<rest>\S*)",
    re.IGNORECASE,
)
_CLOSING = re.compile(r"[\"'`)>.,:]*\Z")
_FILE_SCHEMES = ("gs", "file")
_PARAMETER = re.compile(r"(?P<start>[?&#;])(?P<name>[^=&#;?]*)(?P<equals>=?)(?P<value>[^&#;]*)")
_SEPARATOR = re.compile(r"[/?#@&=;:\\\s'\"]")
# What may stand in a query of any kind of place. An upload_id is the session address of an upload: it gives write access by itself.
_SECRET_NAME = re.compile(
    r"(?:x-\w+-)?(?:(?:api|access|secret|private|auth)?[_-]?key|(?:\w+[_-])?(?:token|secret|password|passwd|pwd|signature|credential)|sig|auth|authorization"
    r"|upload_id)",
    re.IGNORECASE,
)
_SECRET_PARAMETER = re.compile(rf"([?&#;]{_SECRET_NAME.pattern}=)[^&#;\s'\"]+", re.IGNORECASE)
_BEARER = re.compile(r"(?i)(\bbearer\s+)[A-Za-z0-9._~+/=-]+")

# Each secret in the forms in which it is written, and until when it is one (time.monotonic). Replaced, never changed: others
# may be reading it.
_secrets: dict[str, float] = {}
_changing = threading.Lock()
_guarded = threading.Lock()


class _Parts(NamedTuple):
    """A URL as far as secrets are concerned: the four together are the URL."""

    start: str
    userinfo: str
    place: str
    query: str


def protect(secret: str, seconds: float = float("inf")) -> str:
    """Registers a secret, which is good for so many seconds, and returns it."""
    global _secrets
    if len(secret) >= _SHORTEST_SECRET:
        now = time.monotonic()
        with _changing:
            valid = {known: end for known, end in _secrets.items() if end > now}
            for form in _forms(secret):
                valid[form] = max(now + seconds, valid.get(form, 0.0))
            _secrets = valid
    return secret


def protect_urls(texts: Iterable[str]) -> None:
    """Registers what is secret in those of the texts that are URLs: a command's arguments (also `--option=URL`) and environment.

    Only for URLs of whoever runs the command: those of others could make anything unreadable.
    """
    for text in texts:
        option, _, value = text.partition("=") if text.startswith("-") else ("", "", text)
        for secret in _secrets_of(value):
            protect(secret)


def redact(text: str) -> str:
    """Returns `text` with every known or recognisable secret masked."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, _MASK)
    text = _QUOTED_URL.sub(lambda match: match["start"] + _masked_rest(_scheme(match["start"]), match["rest"]), text)
    text = _BARE_URL.sub(_masked_match, text)
    text = _SECRET_PARAMETER.sub(rf"\g<1>{_MASK}", text)
    return _BEARER.sub(rf"\g<1>{_MASK}", text)


def redact_url(url: str) -> str:
    """Returns a URL, or what was given in the place of one, without what is secret in it: all that stands before the host, whatever
    characters it is made of, and values in the query. Names of objects and files stay."""
    parts = _parts(url)
    scheme = _scheme(parts.start)
    return redact(f"{parts.start}{_MASK + '@' if parts.userinfo else ''}{parts.place}{_masked_query(scheme, parts.query)}")


def redact_document(document: Any) -> Any:
    """Returns a document of dicts, lists and scalars, as JSON holds it, with the secrets in its texts masked."""
    if isinstance(document, str):
        return redact(document)
    if isinstance(document, dict):
        return {redact(key) if isinstance(key, str) and "://" in key else key: redact_document(value) for key, value in document.items()}
    if isinstance(document, (list, tuple)):
        return [redact_document(value) for value in document]
    return document


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


def _forms(secret: str) -> set[str]:
    """How a secret may be written: as it is, percent-encoded, as a string of JSON, of Python, or of a text proto."""
    encoded = {urllib.parse.quote(secret, safe=""), urllib.parse.quote(secret), urllib.parse.quote_plus(secret)}
    forms = {secret, *encoded, urllib.parse.unquote(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1]}
    return {form for form in forms if len(form) >= _SHORTEST_SECRET}


def _parts(url: str) -> _Parts:
    match = _URL_START.match(url)
    start = match[0] if match else ""
    scheme = _scheme(start)
    rest = url[len(start) :]
    userinfo, at, place = rest.rpartition("@")
    # Without a scheme it may be the path of a file.
    if at and (scheme not in (*_FILE_SCHEMES, "") or _has_password(rest) or (not scheme and ":" in userinfo)):
        userinfo += at
    else:
        userinfo, place = "", rest
    query = re.search(r"[?#]", place)
    return _Parts(start, userinfo, place[: query.start()], place[query.start() :]) if query else _Parts(start, userinfo, place, "")


def _scheme(start: str) -> str:
    return start.partition(":")[0].strip().lower()


def _has_password(rest: str) -> bool:
    """Whether what follows `gs://` or `file://` begins with what no bucket and no host is called."""
    first = rest.partition("/")[0]
    return "@" in rest and ("@" in first or ":" in first)


def _secrets_of(url: str) -> Iterator[str]:
    parts = _parts(url)
    if parts.userinfo:
        yield parts.userinfo
        user, colon, password = parts.userinfo[:-1].partition(":")
        yield password
        # What takes the text for something else than a URL cuts it where it likes.
        yield from _SEPARATOR.split(password if colon else user)
    scheme = _scheme(parts.start)
    for parameter in _PARAMETER.finditer(parts.query):
        if _is_secret(scheme, parameter):
            yield parameter["value"] or parameter["name"]


def _is_secret(scheme: str, parameter: re.Match) -> bool:
    if scheme in (*_FILE_SCHEMES, ""):
        return bool(_SECRET_NAME.fullmatch(parameter["name"]))
    return bool(parameter["value"] or not parameter["equals"])


def _masked_query(scheme: str, query: str) -> str:
    def masked(parameter: re.Match) -> str:
        if not _is_secret(scheme, parameter) or not (parameter["name"] or parameter["value"]):
            return parameter[0]
        return parameter["start"] + (f"{parameter['name']}={_MASK}" if parameter["equals"] else _MASK)

    return _PARAMETER.sub(masked, query)


def _masked_match(match: re.Match) -> str:
    start, rest = (match["files"], match["name"]) if match["files"] else (match["start"], match["rest"])
    return start + _masked_rest(_scheme(start), rest)


def _masked_rest(scheme: str, rest: str) -> str:
    """What follows the scheme of a URL in a text, which may hold more than the URL."""
    closing = _CLOSING.search(rest)[0]
    rest = rest[: len(rest) - len(closing)]
    userinfo, _, place = rest.rpartition("@")
    is_secret = _has_password(rest) or (scheme not in _FILE_SCHEMES and ":" in userinfo)
    if not is_secret:
        place = rest
    if scheme in ("http", "https"):
        query = re.search(r"[?#]", place)
        if query:
            place = place[: query.start()] + _masked_query(scheme, place[query.start() :])
    return f"{_MASK + '@' if is_secret else ''}{place}{closing}"
