"""What is wrong with a file, and where."""

from __future__ import annotations

import bisect
import dataclasses
import difflib
from collections.abc import Iterable
from typing import Optional


@dataclasses.dataclass(frozen=True)
class FileProblem:
    """One thing that a phone would not tell.

    Attributes:
      line, column: counted from 1; columns count characters.
      fix: what to do.
    """

    file: str
    line: int
    column: int
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}. {self.fix}"


class Places:
    """Offsets of a text as lines and columns; gathers its problems."""

    def __init__(self, file: str, text: str):
        self.file = file
        self.text = text
        self.problems: list[FileProblem] = []
        self._starts = [0, *(offset + 1 for offset, character in enumerate(text) if character == "\n")]

    def offset(self, line: int, column: int) -> int:
        """Of a place counted from 1."""
        return self._starts[line - 1] + column - 1

    def add(self, offset: int, message: str, fix: str) -> None:
        line = bisect.bisect_right(self._starts, offset)
        self.problems.append(FileProblem(self.file, line, offset - self._starts[line - 1] + 1, message, fix))


def meant(name: str, known: Iterable[str]) -> Optional[str]:
    """The known name that another one is closest to."""
    by_plain = {plain(each): each for each in known}
    matches = difflib.get_close_matches(plain(name), list(by_plain), n=1, cutoff=0.5)
    return by_plain[matches[0]] if matches else None


def plain(name: str) -> str:
    """A name without what spelling may vary in: case, and the signs between words."""
    return "".join(character for character in name.lower() if character.isalnum())
