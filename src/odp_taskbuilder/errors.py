"""The errors of this package, and the exit code that each of them ends a command with.

    OdpTaskError               1   anything of ours without a class of its own
    ├── UsageError             2   the command line asks for something impossible
    ├── ConfigError            3   the task config does not parse, or its values do not fit
    ├── ModelError             4   the saved model is missing, not a FunctionalModel, or cannot be built from
    │   └── UntrustedModelError    the model holds operations that no model needs
    ├── PrivacyBudgetError     5   the configured noise spends more than the target epsilon
    ├── UnsupportedOpsError    6   phones lack an operation of the client graph
    ├── StorageError           7   a file, bucket or network connection failed
    ├── TaskServerError        8   a task server refused, or a task was left incomplete
    └── ArtifactError          9   a built artifact is corrupt, foreign or does not belong to its neighbours

Commands end with 130 after SIGINT, 143 after SIGTERM and 129 after SIGHUP, and with 1 after an error that is not of this tree (a defect of ours).

Every error carries a message that says what was found and what was expected, and, where there is one, a `next_step`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Optional

EXIT_OK = 0
EXIT_UNEXPECTED = 1
EXIT_INTERRUPTED = 130
# As a shell tells it of programs that the end of their reader kills.
EXIT_BROKEN_PIPE = 141


class OdpTaskError(Exception):
    """An error that a user can act on."""

    exit_code: ClassVar[int] = EXIT_UNEXPECTED

    def __init__(self, message: str, *, next_step: Optional[str] = None):
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return self.message if self.next_step is None else f"{self.message}\n{self.next_step}"


class UsageError(OdpTaskError):
    """The command line asks for something impossible."""

    exit_code = 2


@dataclasses.dataclass(frozen=True)
class Problem:
    """One fault in a task config.

    Attributes:
      message: what was found and what was expected, in the wording of the task builder that users know where it has one.
      path: the field, for example `federated_learning.learning_process.server_learning_rate`; empty for the whole config.
      suggestion: what was probably meant, or what to do.
      line, column: position in the source, counted from 1; None when the config was not read from text.
      source_line: the line itself.
    """

    message: str
    path: str = ""
    suggestion: Optional[str] = None
    line: Optional[int] = None
    column: Optional[int] = None
    source_line: Optional[str] = None


class ConfigError(OdpTaskError):
    """The task config does not parse, or its values do not fit.

    Attributes:
      problems: every one that was found, not just the first.
      source: name of the file; None when the config was not read from text.
      notices: what else is to say about the config, one sentence each.
    """

    exit_code = 3

    def __init__(self, problems: Sequence[Problem], *, source: Optional[str] = None, notices: Sequence[str] = ()):
        self.problems = tuple(problems)
        self.source = source
        self.notices = tuple(notices)
        super().__init__("\n".join(self._describe(problem) for problem in self.problems))

    def _describe(self, problem: Problem) -> str:
        place = self.source or "task config"
        if problem.line is not None:
            place += f":{problem.line}"
            if problem.column is not None:
                place += f":{problem.column}"
        lines = [f"{place}: {problem.message}"]
        if problem.source_line is not None:
            shown, column = _excerpt(problem.source_line, problem.column or 1)
            lines.append(f"    {shown}")
            if problem.column is not None:
                # Tabs of the source line are kept in the margin, so that the caret stands below its character.
                margin = "".join("\t" if c == "\t" else " " for c in shown[: column - 1])
                lines.append(f"    {margin}^")
        if "." in problem.path:  # The name alone is in the message.
            lines.append(f"    at {problem.path}")
        if problem.suggestion:
            lines.append(f"    {problem.suggestion}")
        return "\n".join(lines)


def _excerpt(line: str, column: int, width: int = 120) -> tuple[str, int]:
    """At most `width` characters of a line around a column, and where that column is in them."""
    if len(line) <= width:
        return line, column
    start = max(0, min(column - 1 - width // 2, len(line) - width))
    return line[start : start + width], column - start


class ModelError(OdpTaskError):
    """The saved model is missing, is not a FunctionalModel, or a task cannot be built from it."""

    exit_code = 4


class UntrustedModelError(ModelError):
    """The saved model holds operations that no model needs."""


class PrivacyBudgetError(OdpTaskError):
    """The configured noise spends more than the target epsilon."""

    exit_code = 5


class UnsupportedOpsError(OdpTaskError):
    """Phones lack an operation of the client graph.

    Attributes:
      ops: unsupported TensorFlow op names with their kernel class names, ordered by op name.
    """

    exit_code = 6

    def __init__(self, message: str, *, ops: dict[str, str], next_step: Optional[str] = None):
        super().__init__(message, next_step=next_step)
        self.ops = ops


class StorageError(OdpTaskError):
    """A file, bucket or network connection failed."""

    exit_code = 7


class TaskServerError(OdpTaskError):
    """A task server refused, or a task was left incomplete."""

    exit_code = 8


class ArtifactError(OdpTaskError):
    """A built artifact is corrupt, foreign, or does not belong to its neighbours."""

    exit_code = 9
