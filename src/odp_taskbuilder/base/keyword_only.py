"""Dataclasses whose fields are given by name: two booleans in the wrong order are not noticed, and one of them once switched a scan off."""

from __future__ import annotations

import functools
import inspect
from typing import Any, TypeVar

_Class = TypeVar("_Class", bound=type)


def keyword_only(cls: _Class) -> _Class:
    """Decorates a dataclass so that its constructor takes no positional arguments, as `dataclass(kw_only=True)` does from Python 3.10 on.

        @keyword_only
        @dataclasses.dataclass(frozen=True)
        class Options:
            overwrite: bool = False

    Every class of options with a boolean has it. Type checkers see the positional constructor; calling it raises TypeError.
    """
    positional = cls.__init__  # type: ignore[misc]

    @functools.wraps(positional)
    def __init__(self: Any, **values: Any) -> None:  # noqa: N807 - it is one
        positional(self, **values)

    signature = inspect.signature(positional)
    first, *fields = signature.parameters.values()
    fields = [field.replace(kind=inspect.Parameter.KEYWORD_ONLY) for field in fields]
    setattr(__init__, "__signature__", signature.replace(parameters=[first, *fields]))  # noqa: B010 - no attribute of the type
    setattr(cls, "__init__", __init__)  # noqa: B010 - of this very class
    return cls
