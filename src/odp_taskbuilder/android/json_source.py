"""JSON with the place of every value."""

from __future__ import annotations

import dataclasses
import json
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Optional

from odp_taskbuilder.android.problems import Places

_SPACE = " \t\n\r"
_SCALARS = json.JSONDecoder()


@dataclasses.dataclass
class Node:
    """A value.

    Attributes:
      value: of a scalar; None for an object or a list.
      members: of an object, as they stand: name, its offset, value. None for others.
      items: of a list. None for others.
    """

    offset: int
    value: Any = None
    members: Optional[list[tuple[str, int, Node]]] = None
    items: Optional[list[Node]] = None

    def get(self, name: str) -> Optional[Node]:
        """The last member of a name, which is the one that counts for whoever reads the file."""
        return next((node for key, _, node in reversed(self.members or []) if key == name), None)


def parse(places: Places) -> Optional[Node]:
    """The document; None where it is no JSON, which is among the problems then."""
    try:
        json.loads(places.text, parse_constant=_refuse)
        node, _ = _value(places.text, _skipped(places.text, 0))
    except json.JSONDecodeError as error:
        places.add(error.pos, f"not JSON: {error.msg}", "Mend it.")
    except RecursionError:
        places.add(0, "values are nested too deeply", "A download has three levels.")
    except ValueError as error:
        places.add(0, f"not JSON: {error}", "Mend it.")
    else:
        return node
    return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no value of JSON")


def _value(text: str, position: int) -> tuple[Node, int]:
    """A value of a text that is known to be JSON, and the offset behind it."""
    start = position
    if text[position] == "{":
        members = []
        position = _skipped(text, position + 1)
        while text[position] != "}":
            position = _skipped(text, position + 1) if text[position] == "," else position
            at = position
            name, position = scanstring(text, position + 1)
            node, position = _value(text, _skipped(text, _skipped(text, position) + 1))
            members.append((name, at, node))
            position = _skipped(text, position)
        return Node(start, members=members), position + 1
    if text[position] == "[":
        items = []
        position = _skipped(text, position + 1)
        while text[position] != "]":
            position = _skipped(text, position + 1) if text[position] == "," else position
            node, position = _value(text, position)
            items.append(node)
            position = _skipped(text, position)
        return Node(start, items=items), position + 1
    value, position = _SCALARS.raw_decode(text, position)
    return Node(start, value), position


def _skipped(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position
