"""One field of a task config at a time: reads it, checks it, applies its default, and notes where the value came from.

Messages of violated rules use the template of the existing task builder (spec: task_config.md, section 2.1), so that users find
the texts that they know; it is applied to rules that the existing one lacks as well.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterable
from typing import Any, Callable, Optional, TypeVar, Union

from google.protobuf.message import Message

from odp_taskbuilder import errors
from odp_taskbuilder.config import load, source_text, spec

_Number = TypeVar("_Number", int, float)
_Enum = TypeVar("_Enum", bound=enum.Enum)
_Default = TypeVar("_Default")

# The task server keeps 64 characters.
_POPULATION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_POPULATION_NAME_RULE = (
    "A population name has 1 to 64 letters, digits, dots, hyphens and underscores, and starts with a letter or digit."
)
_POPULATION_NAME_REASON = "The name becomes part of URLs and of object names on the task server."


class FieldReader:
    """Reads checked values from a config, collecting every problem instead of raising the first.

    A reading method always returns a usable value, so that reading can go on after a problem; `raise_problems` then refuses the
    config as a whole.
    """

    def __init__(self, loaded: load.LoadedConfig):
        self._loaded = loaded
        self._problems: list[errors.Problem] = []
        self.origins: dict[str, spec.Origin] = {}
        self.notices: list[str] = list(loaded.notices)

    def raise_problems(self) -> None:
        """Raises ConfigError if there are any, with those of the text."""
        problems = source_text.in_reading_order([*self._loaded.problems, *self._problems])
        if problems:
            raise errors.ConfigError(problems, source=self._loaded.source, notices=self.notices)

    def raw(self, path: str) -> Any:
        """The field's value, proto3's zero value when it is unset; the whole config for an empty path."""
        value = self._loaded.readable
        for name in filter(None, path.split(".")):
            value = getattr(value, name)
        return value

    def is_given(self, path: str) -> bool:
        """Whether the config has the field. A scalar that is set to zero counts if the source text shows it."""
        value = self.raw(path)
        has_content = value.ByteSize() > 0 if isinstance(value, Message) else bool(value)
        return has_content or path in self._loaded.positions

    def add_problem(self, path: str, message: str, suggestion: Optional[str] = None) -> None:
        if not self._loaded.is_unread(path):
            self._problems.append(self._loaded.problem(path, message, suggestion))

    def bad_value(self, path: str, value: object, rule: str, suggestion: Optional[str] = None) -> None:
        """Notes a violated rule in the words of the existing task builder."""
        entity, _, key = path.rpartition(".")
        entity = entity.rpartition(".")[2] or "task_config"
        message = f"[Invalid task config]: key `{key}` has a bad value: `{value}` in `{entity}`. {rule}"
        self.add_problem(path, message, suggestion)

    def note_origin(self, path: str) -> None:
        self.origins[path] = spec.Origin.CONFIG if self.is_given(path) else spec.Origin.DEFAULT

    def number(
        self,
        path: str,
        is_valid: Callable[[_Number], bool],
        rule: str,
        *,
        default: _Number,
        suggestion: Optional[str] = None,
    ) -> _Number:
        """The number at `path`, or `default` when it is zero, which in proto3 means unset, or breaks the rule."""
        value = self.raw(path)
        if not (math.isfinite(value) and is_valid(value)):
            self.bad_value(path, value, rule, suggestion)
            return default
        if value == 0 and default != 0:
            self.origins[path] = spec.Origin.DEFAULT
            return default
        self.note_origin(path)
        return value

    def nonnegative(self, path: str, default: _Number = 0) -> _Number:
        return self.number(path, lambda x: x >= 0, f"{path.rpartition('.')[2]} must be a nonnegative number.", default=default)

    def probability(self, path: str, default: float) -> float:
        return self.number(path, lambda x: 0 <= x <= 1, f"{path.rpartition('.')[2]} must be a probability.", default=default)

    def check_finite(self, paths: Iterable[str]) -> None:
        """Refuses nan and inf in fields that are otherwise not read."""
        for path in paths:
            if not math.isfinite(self.raw(path)):
                self.bad_value(path, self.raw(path), f"{path.rpartition('.')[2]} must be a finite number.")

    def enum(self, path: str, kind: type[_Enum], default: _Default) -> Union[_Enum, _Default]:
        """The member of `kind` that `path` holds, or `default` when it is unset or has a number without a name."""
        block, _, key = path.rpartition(".")
        number = self.raw(path)
        if number == 0:
            self.origins[path] = spec.Origin.DEFAULT
            return default
        enum_type = self.raw(block).DESCRIPTOR.fields_by_name[key].enum_type
        if number not in enum_type.values_by_number:
            self.bad_value(path, number, f"{key} must be one of {', '.join(member.name for member in kind)}.")
            return default
        self.note_origin(path)
        return kind[enum_type.values_by_number[number].name]

    def text(self, path: str) -> str:
        self.note_origin(path)
        return self.raw(path)

    def check_population_name(self, path: str, name: str) -> None:
        if not _POPULATION_NAME.fullmatch(name):
            self.bad_value(path, name, _POPULATION_NAME_RULE, _POPULATION_NAME_REASON)

    def check_population_option(self, name: str) -> None:
        """As `check_population_name`, for a name that is not from the config: no line of that is at fault."""
        if not _POPULATION_NAME.fullmatch(name):
            self.add_problem("", f"--population_name has a bad value: `{name}`. {_POPULATION_NAME_RULE}", _POPULATION_NAME_REASON)
