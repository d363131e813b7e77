"""What confined workers answer, as JSON: the worker handled a stranger's plan, and reading a pickle runs what its writer wants."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing.connection
from typing import Any

from odp_taskbuilder import errors
from odp_taskbuilder.sandbox import failures
from odp_taskbuilder.simulation import jobs

# The kind of the answer that comes first: what the kernel refused to the worker.
CONFINED = "confined"
_KINDS = (CONFINED, "returned", "raised")
_RESULTS: dict[str, Any] = {
    kind.__name__: kind for kind in (jobs.SessionResult, jobs.BadClient, jobs.Comparison, jobs.UntranslatedOp)
}
# A round's bad clients are the largest part; each is named with its reason.
_MAX_BYTES = 256 << 20


class NoAnswer(Exception):
    """What a worker sent is no answer."""


def write(connection: multiprocessing.connection.Connection, answer: tuple[str, Any]) -> None:
    """Sends an answer: its kind, and a result of jobs.py, a dictionary of numbers, an error or None."""
    kind, value = answer
    if isinstance(value, errors.OdpTaskError):
        document: Any = {"error": failures.to_document(value)}
    elif isinstance(value, Exception):
        document = {"defect": str(value)}
    else:
        document = {"value": _to_document(value)}
    connection.send_bytes(json.dumps([kind, document], default=float).encode())


def read(connection: multiprocessing.connection.Connection) -> tuple[str, Any]:
    """Receives an answer.

    Raises:
      EOFError, OSError: the connection is broken, or the answer larger than 256 MiB.
      NoAnswer: it is none.
    """
    content = connection.recv_bytes(_MAX_BYTES)
    try:
        kind, document = json.loads(content)
        if kind not in _KINDS:
            raise NoAnswer
        if "error" in document:
            return "raised", failures.from_document(document["error"])
        if "defect" in document:
            return "raised", RuntimeError(str(document["defect"]))
        return kind, _from_document(document["value"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise NoAnswer from error


def _to_document(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {field.name: _to_document(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"kind": type(value).__name__, "fields": fields}
    if isinstance(value, (list, tuple)):
        return {"items": [_to_document(item) for item in value]}
    if isinstance(value, dict):
        return {"entries": {str(key): _to_document(item) for key, item in value.items()}}
    return value


def _from_document(document: Any) -> Any:
    if not isinstance(document, dict):
        return document
    if "kind" in document:
        return _RESULTS[document["kind"]](**{name: _from_document(value) for name, value in document["fields"].items()})
    if "items" in document:
        return tuple(_from_document(item) for item in document["items"])
    return {key: _from_document(item) for key, item in document["entries"].items()}
