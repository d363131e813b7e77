"""What a phone asks of a download (spec: android.md, section 5). It drops what breaks a rule without a word."""

from __future__ import annotations

import base64
import binascii
from typing import Optional

from odp_taskbuilder.android import json_source
from odp_taskbuilder.android.json_source import Node
from odp_taskbuilder.android.problems import Places, meant

SECONDS_PER_TOKEN = 3600
ENCODINGS = ("utf8", "base64")
# Seconds since 1970 have ten digits until the year 2286; milliseconds have thirteen.
_LARGEST_SECONDS = 9_999_999_999
_KNOWN = ("syncToken", "contents")
_ENTRY = ("key", "data", "encoding")


def check_download(places: Places, last_sync_token: Optional[int] = None) -> None:
    """Adds what is wrong with a download to `places`.

    Args:
      last_sync_token: of the download that phones have.
    """
    document = json_source.parse(places)
    if document is None:
        return
    if document.members is None:
        places.add(document.offset, "a download is an object", 'Expected {"syncToken": ..., "contents": [...]}.')
        return
    _check_names(places, document, _KNOWN, "a download")
    token = document.get("syncToken")
    if token is None:
        places.add(
            document.offset,
            "there is no syncToken: the phone drops the download",
            'Add "syncToken": seconds since 1970, on the hour.',
        )
    else:
        _check_token(places, token, last_sync_token)
    contents = document.get("contents")
    if contents is None:
        places.add(
            document.offset,
            "there are no contents: the phone drops the download",
            'Add "contents": [{"key": ..., "data": ...}].',
        )
    elif contents.items is None:
        places.add(contents.offset, "contents is no list", 'Expected [{"key": ..., "data": ...}, ...].')
    elif not contents.items:
        places.add(contents.offset, "contents is empty: the phone drops the download", "Add an entry.")
    else:
        keys: dict[str, int] = {}
        for entry in contents.items:
            _check_entry(places, entry, keys)


def token_problem(token: int, last_sync_token: Optional[int] = None) -> Optional[tuple[str, str]]:
    """What is wrong with a token, and what to do; None if nothing is."""
    if token <= 0:
        return f"syncToken {token} is not greater than 0", "Take seconds since 1970, on the hour."
    if token > _LARGEST_SECONDS:
        return (
            f"syncToken {token} is not in seconds: it would be after the year 2286",
            f"In milliseconds? Then {token // 1000 // 3600 * 3600}.",
        )
    if token % SECONDS_PER_TOKEN:
        down = token // SECONDS_PER_TOKEN * SECONDS_PER_TOKEN
        return (
            f"syncToken {token} is not on the hour: the phone drops the download",
            f"Take {down} or {down + SECONDS_PER_TOKEN}.",
        )
    if last_sync_token is not None and token <= last_sync_token:
        return (
            f"syncToken {token} is not greater than the last one, {last_sync_token}: the phone drops the download",
            f"Take {last_sync_token // SECONDS_PER_TOKEN * SECONDS_PER_TOKEN + SECONDS_PER_TOKEN} or later.",
        )
    return None


def _check_token(places: Places, token: Node, last_sync_token: Optional[int]) -> None:
    if isinstance(token.value, bool) or not isinstance(token.value, int):
        places.add(token.offset, "syncToken is no integer", "Write it as a number without quotes or fraction.")
        return
    problem = token_problem(token.value, last_sync_token)
    if problem:
        places.add(token.offset, *problem)


def _check_entry(places: Places, entry: Node, keys: dict[str, int]) -> None:
    if entry.members is None:
        places.add(entry.offset, "an entry is an object", 'Expected {"key": ..., "data": ...}.')
        return
    _check_names(places, entry, _ENTRY, "an entry")
    for name in ("key", "data"):
        node = entry.get(name)
        if node is None:
            places.add(entry.offset, f"the entry has no {name}: the phone drops it", f'Add "{name}".')
        elif not isinstance(node.value, str):
            places.add(node.offset, f"{name} is no string", "Put it into quotes.")
        elif name == "key" and not node.value:
            places.add(node.offset, "the key is empty", "Name the entry.")
        elif not _is_unicode(node.value):
            places.add(node.offset, f"{name} holds half of a character, which the phone replaces", 'Send bytes as "base64".')
    key, data, encoding = (entry.get(name) for name in _ENTRY)
    if key is not None and isinstance(key.value, str):
        if key.value in keys:
            places.add(
                key.offset,
                f"the key {key.value!r} stood before: the phone keeps the last entry only",
                "Remove one, or rename it.",
            )
        keys[key.value] = key.offset
    if encoding is not None and encoding.value not in ENCODINGS:
        known = meant(str(encoding.value), ENCODINGS) or "utf8"
        places.add(
            encoding.offset, f"the encoding {encoding.value!r} is unknown: the phone drops the entry", f'Write "{known}".'
        )
    if encoding is not None and encoding.value == "base64" and data is not None and isinstance(data.value, str):
        try:
            base64.b64decode(data.value, validate=True)
        except (binascii.Error, ValueError) as error:
            places.add(data.offset, f"data is no base64: {error}", "Encode it, or take the encoding away.")


def _is_unicode(text: str) -> bool:
    """JSON can write surrogates that belong to no pair; UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_names(places: Places, node: Node, known: tuple[str, ...], what: str) -> None:
    seen = set()
    for name, offset, _ in node.members or ():
        if name in seen:
            places.add(offset, f"{name!r} stands twice in {what}", "Remove one.")
        seen.add(name)
        if name not in known:
            likely = meant(name, known)
            places.add(
                offset,
                f"{what} has no {name!r}, and the phone skips it",
                f"Did you mean {likely!r}?" if likely else f"There are {', '.join(known)}.",
            )
