"""Keeps what a client sent from coming back, or going into the log, at the length at which it was sent."""

from __future__ import annotations


def shorten(text: str, max_characters: int) -> str:
    """`text`, or its beginning and end with the number of characters between them, if it is longer than `max_characters`."""
    if len(text) <= max_characters:
        return text
    half = max_characters // 2
    return f"{text[:half]} [{len(text) - 2 * half} more characters] {text[-half:]}"
