"""What a misspelt or misplaced name of a config was meant to be."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Optional

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from odp_taskbuilder.config import syntax
from odp_taskbuilder.proto import task_builder_pb2

# Enumerators of the published guide that spelling alone does not lead to: `TREE` is closer to ADAPTIVE_TREE.
_ENUM_ALIASES = {"TREE": "TREE_AGGREGATION"}
# Comparing spellings costs the product of the lengths.
_MAX_NAME = 100


class Place(NamedTuple):
    """A field and the path of the block that it belongs to; empty for the top level."""

    block: str
    field: FieldDescriptor

    @property
    def path(self) -> str:
        return f"{self.block}.{self.field.name}".lstrip(".")

    def __str__(self) -> str:
        return f"inside {self.block}" if self.block else "at the top level"


class FieldSuggestion(NamedTuple):
    """What to tell about a name that its block does not have, and the fields that may be meant."""

    text: str
    places: tuple[Place, ...] = ()


def suggest_enum_value(enum: EnumDescriptor, name: str) -> Optional[str]:
    """The enumerator that `name` probably stands for: regardless of case, by alias, then by spelling."""
    folded = name.upper()
    if folded in enum.values_by_name:
        return folded
    if _ENUM_ALIASES.get(folded) in enum.values_by_name:
        return _ENUM_ALIASES[folded]
    return next(iter(_closest(folded, enum.values_by_name)), None)


def suggest_field(block: Descriptor, path: str, name: str, value: Optional[syntax.Value]) -> FieldSuggestion:
    """What `name` inside the block at `path` was meant to be.

    Tried in this order: another way to write a name of this block; a field of another block, where it belongs; a part of a name of
    this block; a misspelling in this block; a part of a name, or a misspelling, of a field anywhere.
    """
    own = {field.name: Place(path, field) for field in block.fields}
    by_folded_name = {_fold(own_name): own_name for own_name in own}
    if _fold(name) in by_folded_name:
        return _did_you_mean([by_folded_name[_fold(name)]], own)
    elsewhere = [place for place in _all_places() if _fold(place.field.name) == _fold(name)]
    if elsewhere:
        places = _likely_places(elsewhere, path, value)
        return FieldSuggestion(f"'{places[0].field.name}' belongs {' or '.join(map(str, places))}.", places)
    close = _containing(name, own) or _closest(name.lower(), own)
    if close:
        return _did_you_mean(close, own)
    places_by_name = {place.field.name: place for place in _all_places()}
    close = _containing(name, places_by_name) or _closest(name.lower(), places_by_name, cutoff=0.8)
    if len(close) == 1:
        place = places_by_name[close[0]]
        return FieldSuggestion(f"Did you mean '{close[0]}', which belongs {place}?", (place,))
    return FieldSuggestion(f"Its fields are {', '.join(own)}.")


def _did_you_mean(names: Sequence[str], own: dict[str, Place]) -> FieldSuggestion:
    quoted = " or ".join(f"'{name}'" for name in names)
    return FieldSuggestion(f"Did you mean {quoted}?", tuple(own[name] for name in names))


def _fold(name: str) -> str:
    """The same for all ways to write a name: report_goal, reportGoal, Report-Goal."""
    return name.lower().replace("_", "").replace("-", "")


def _containing(name: str, candidates: Iterable[str]) -> list[str]:
    """Candidates that have all words of the name: learning_rate is in client_learning_rate and in server_learning_rate."""
    words = set(name.lower().split("_"))
    return [candidate for candidate in candidates if words <= set(candidate.split("_"))]


def _closest(name: str, candidates: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """The candidate that is spelt most alike, or none."""
    if len(name) > _MAX_NAME:
        return []
    return difflib.get_close_matches(name, list(candidates), n=1, cutoff=cutoff)


@functools.lru_cache(maxsize=1)
def _all_places() -> tuple[Place, ...]:
    """Every field of the schema."""
    places: list[Place] = []

    def visit(descriptor: Descriptor, path: str) -> None:
        for field in descriptor.fields:
            places.append(Place(path, field))
            if field.message_type is not None:
                visit(field.message_type, f"{path}.{field.name}".lstrip("."))

    visit(task_builder_pb2.TaskConfig.DESCRIPTOR, "")
    return tuple(places)


def _likely_places(places: Sequence[Place], path: str, value: Optional[syntax.Value]) -> tuple[Place, ...]:
    """Of several places the ones that fit the value, and of those the ones inside the block where the name was found."""
    fitting = [place for place in places if value is not None and _fits(place.field, value)] or places
    inside = [place for place in fitting if f"{place.block}.".startswith(f"{path}.")]
    return tuple(inside or fitting)


def _fits(field: FieldDescriptor, value: syntax.Value) -> bool:
    if field.message_type is not None or not isinstance(value, syntax.Scalar):
        return (field.message_type is not None) != isinstance(value, syntax.Scalar)
    if field.enum_type is not None:
        return suggest_enum_value(field.enum_type, value.content) is not None
    return (field.type == FieldDescriptor.TYPE_STRING) == value.is_string
