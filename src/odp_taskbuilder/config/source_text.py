"""The text of a config: decoding, its limits, and positions in it."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable
from typing import NamedTuple, NoReturn, Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.base import redaction

# A config of the published guide has four thousand bytes.
MAX_BYTES = 1 << 18
# A text that is not a config at all would otherwise bring a problem per token.
MAX_PROBLEMS = 100
# Beyond this column of a line nothing is shown. JSON without line breaks stays below.
_MAX_SHOWN_COLUMNS = 4096
_MAX_MESSAGE = 600

_BYTE_ORDER_MARK = "\ufeff"
_UTF16 = "It looks like UTF-16. Save it as UTF-8."
_BLANKS_AND_COMMENTS = re.compile(r"\s+|#[^\n]*")
_LINE_END = re.compile("\n")


class Position(NamedTuple):
    """A place in the source, counted from 1. Columns count characters."""

    line: int
    column: int


class SourceText:
    """Decoded text with the name by which messages call it, and the problems found in it."""

    def __init__(self, text: str, name: Optional[str]):
        self.text = text
        self.name = name
        self.problems: list[errors.Problem] = []
        self._line_starts = [0, *(match.end() for match in _LINE_END.finditer(text))]

    def position(self, offset: int) -> Position:
        line = bisect.bisect_right(self._line_starts, offset)
        return Position(line, offset - self._line_starts[line - 1] + 1)

    def line_of(self, offset: int) -> int:
        return self.position(offset).line

    def shown_line(self, position: Position) -> Optional[str]:
        """The line at `position`, as far as it is worth showing."""
        start = self._line_starts[position.line - 1]
        end = self._line_starts[position.line] if position.line < len(self._line_starts) else len(self.text)
        if position.column > _MAX_SHOWN_COLUMNS:
            return None
        # Before it is cut, as the end of a URL tells what stands before its host.
        line = redaction.redact(self.text[start : min(end, start + 2 * _MAX_SHOWN_COLUMNS)])
        return printable(line[:_MAX_SHOWN_COLUMNS].rstrip())

    def add_problem(self, offset: int, message: str, suggestion: Optional[str] = None, path: str = "") -> None:
        """Notes a problem at a character offset. Raises ConfigError with all of them once there are MAX_PROBLEMS."""
        position = self.position(offset)
        self.problems.append(
            errors.Problem(
                message=presentable(message),
                path=presentable(path),
                suggestion=suggestion and presentable(suggestion),
                line=position.line,
                column=position.column,
                source_line=self.shown_line(position),
            )
        )
        if len(self.problems) == MAX_PROBLEMS:
            self.refuse(f"Reading stops after {MAX_PROBLEMS} problems.")

    def refuse(self, reason: str) -> NoReturn:
        """Raises ConfigError with the problems so far, in reading order, and why reading ends with them."""
        raise errors.ConfigError([*in_reading_order(self.problems), errors.Problem(reason)], source=self.name)


def in_reading_order(problems: Iterable[errors.Problem]) -> list[errors.Problem]:
    """Problems without a place come first."""
    return sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0))


def printable(text: str) -> str:
    """The text with a replacement mark for every character that would steer a terminal or hide its neighbours."""
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in text)


def presentable(message: str) -> str:
    """A message that quotes the source, printable and without the middle of very long quotations."""
    message = redaction.redact(message)
    if len(message) > _MAX_MESSAGE:
        message = f"{message[: _MAX_MESSAGE // 2]} ... {message[-_MAX_MESSAGE // 2 :]}"
    return printable(message)


def decode(data: Union[bytes, str], name: Optional[str]) -> tuple[SourceText, list[str]]:
    """Returns the text and the notices about what was repaired.

    Raises:
      ConfigError: if the data is too large, not UTF-8, binary, or holds nothing but blanks and comments.
    """
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    if len(data) > MAX_BYTES:
        _refuse(
            name,
            f"The task config is larger than {MAX_BYTES:,} bytes.",
            "A task config has a few thousand. Is this the right file?",
        )
    text = _decode_utf8(data, name)
    notices = []
    if text.startswith(_BYTE_ORDER_MARK):
        text = text[1:]
        notices.append("The byte order mark at the start was ignored.")
    if "\r" in text and "\n" not in text:
        text = text.replace("\r", "\n")  # Line ends of old Macintoshes.
    if "\0" in text:
        is_utf16 = text.count("\0") > len(text) // 4
        advice = _UTF16 if is_utf16 else "Is this the right file? A task config is text proto or JSON."
        _refuse(name, "The task config is not text: it holds a NUL byte.", advice)
    if not _BLANKS_AND_COMMENTS.sub("", text):
        _refuse(name, "The task config is empty.", "`odp-task init` writes one to start from.")
    return SourceText(text, name), notices


def _decode_utf8(data: bytes, name: Optional[str]) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"The task config is not UTF-8 text: byte 0x{data[error.start]:02x} in line {line}."
        is_utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        advice = _UTF16 if is_utf16 else "Save it as UTF-8. Is this the right file?"
        _refuse(name, found, advice)


def _refuse(name: Optional[str], message: str, suggestion: str) -> NoReturn:
    raise errors.ConfigError([errors.Problem(message, suggestion=suggestion)], source=name)
