"""Errors on their way out of a sandbox: the classes of errors.py as plain data."""

from __future__ import annotations

import dataclasses
from typing import Any, Optional

from odp_taskbuilder import errors

# The text comes from an untrusted process, and is shown to people.
_MAX_TEXT = 8000
_MAX_PROBLEMS = 1000
_MAX_FOREIGN_LINES = 6
# Errors that consist of a message and a next step.
_PLAIN_ERRORS = {
    error.__name__: error
    for error in (
        errors.ArtifactError,
        errors.ModelError,
        errors.OdpTaskError,
        errors.PrivacyBudgetError,
        errors.StorageError,
        errors.TaskServerError,
        errors.UntrustedModelError,
        errors.UsageError,
    )
}


def to_document(error: BaseException) -> dict[str, Any]:
    """Describes an error as JSON can hold it."""
    if isinstance(error, errors.ConfigError):
        problems = [dataclasses.asdict(problem) for problem in error.problems]
        return {"class": "ConfigError", "problems": problems, "source": error.source}
    if isinstance(error, errors.OdpTaskError):
        document: dict[str, Any] = {"class": type(error).__name__, "message": error.message, "next_step": error.next_step}
        if isinstance(error, errors.UnsupportedOpsError):
            document["ops"] = error.ops
        return document
    if isinstance(error, MemoryError):
        return {"class": "ModelError", "message": "The work on the model needs more memory than it may use.", "next_step": None}
    # TensorFlow's errors begin with a headline and end with pages of nodes.
    text = "\n".join(str(error).strip().splitlines()[:_MAX_FOREIGN_LINES])
    return {
        "class": "ModelError",
        "message": f"The work on the model failed: {type(error).__name__}: {text}",
        "next_step": None,
    }


def from_document(document: Any) -> errors.OdpTaskError:
    """Makes the error that a document describes.

    Raises:
      ValueError, TypeError, KeyError: the document describes none.
    """
    name = document["class"]
    if name == "ConfigError":
        problems = [_problem(problem) for problem in document["problems"][:_MAX_PROBLEMS]]
        return errors.ConfigError(problems, source=_text(document["source"]))
    message, next_step = _text(document["message"]) or "", _text(document["next_step"])
    if name == "UnsupportedOpsError":
        ops = {_text(op): _text(kernel) for op, kernel in document["ops"].items()}
        return errors.UnsupportedOpsError(message, ops=ops, next_step=next_step)
    return _PLAIN_ERRORS[name](message, next_step=next_step)


def _problem(document: Any) -> errors.Problem:
    line, column = (int(document[key]) if document[key] is not None else None for key in ("line", "column"))
    return errors.Problem(
        message=_text(document["message"]) or "",
        path=_text(document["path"]) or "",
        suggestion=_text(document["suggestion"]),
        line=line,
        column=column,
        source_line=_text(document["source_line"]),
    )


def _text(value: Optional[str]) -> Optional[str]:
    """A text without control characters, which could make a terminal show something else than was said."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError("expected a text")
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in value[:_MAX_TEXT])
