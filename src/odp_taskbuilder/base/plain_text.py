"""Text that steers nothing: names come from models, artifacts and buckets, that is from anyone, and end in terminals and logs."""

from __future__ import annotations

import re
import unicodedata

# Nearly all that is printed is none of these, and is let through at the speed of the matching.
_SUSPECT = re.compile(r"[^ -~]")


def escaped(text: str, *, keep: str = "") -> str:
    """The text with an escape in place of every character that moves a cursor, changes a terminal, hides, or turns its neighbours
    round: control characters (C0, DEL, C1), separators of lines, format characters (the bidirectional ones among them),
    surrogates, and what this Python knows no character for. The escapes are those of Python (`\\x1b`, `\\u202e`).

    Args:
      keep: characters that stay, as "\\n" in a text of several lines.
    """
    return _SUSPECT.sub(lambda match: match[0] if match[0] in keep or _is_plain(match[0]) else ascii(match[0])[1:-1], text)


def escaped_json(document: str) -> str:
    """A JSON document with the same characters inside its strings spelled as JSON's escapes: its value does not change."""
    return _SUSPECT.sub(lambda match: match[0] if match[0] in "\n\r\t" or _is_plain(match[0]) else _json_escape(match[0]), document)


def shortened(text: str, max_characters: int) -> str:
    """`text`, or its beginning and end with the number of characters between them, if it is longer than `max_characters`."""
    if len(text) <= max_characters:
        return text
    half = max_characters // 2
    return f"{text[:half]} [{len(text) - 2 * half} more characters] {text[-half:]}"


def _is_plain(character: str) -> bool:
    # isprintable() is about repr(), which escapes every space but one.
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
