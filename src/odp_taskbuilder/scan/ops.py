"""Which operations a model may hold, and what is told about the others. The lists are data: allowed_ops.json, refused_ops.json.

The verdict depends on the allow list only. The patterns of refused_ops.json, of which the first that fits is taken, explain it.
"""

from __future__ import annotations

import enum
import fnmatch
import functools
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

_FOLDER = pathlib.Path(__file__).parent


class Place(enum.Enum):
    """Where in a SavedModel a node stands."""

    FUNCTION = "anywhere"
    MAIN_GRAPH = "main graph"
    CHECKPOINT_FUNCTION = "checkpoint functions"


class OpGroup(NamedTuple):
    """Operations that are allowed for one and the same reason; FUNCTION stands for every place."""

    name: str
    where: Place
    reason: str


@functools.cache
def allowed_ops() -> Mapping[str, OpGroup]:
    """The group of each operation that a model may hold."""
    return {
        op: OpGroup(entry["group"], Place(entry["where"]), entry["reason"])
        for entry in _read("allowed_ops.json")
        for op in entry["ops"]
    }


def is_allowed(op: str, place: Place) -> bool:
    """Whether a node of this operation may stand there."""
    group = allowed_ops().get(op)
    return group is not None and group.where in (Place.FUNCTION, place)


@functools.lru_cache(maxsize=1024)
def why_refused(op: str) -> str:
    """Says of an operation that is not allowed what it does, for example "reads or writes files"."""
    for pattern, what in _refused_ops():
        if pattern.match(op):
            return what
    return "is not on the list of operations that models need"


@functools.cache
def crashing_ops() -> list[dict[str, Any]]:
    """Of the allowed operations those that can end a process, as scripts/fuzz-allowed-ops found: `op`, `signals`, `input`, `why`."""
    return _read("crashing_ops.json")


@functools.cache
def _refused_ops() -> list[tuple[re.Pattern, str]]:
    return [
        (re.compile("|".join(map(fnmatch.translate, entry["patterns"]))), entry["what"]) for entry in _read("refused_ops.json")
    ]


def _read(name: str) -> Any:
    return json.loads((_FOLDER / name).read_text(encoding="utf-8"))
