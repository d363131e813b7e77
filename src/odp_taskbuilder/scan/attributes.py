"""What the attributes of an operation may be, as TensorFlow defines them (op_attributes.json, which scripts/list-op-attributes writes).

TensorFlow checks a node against its operation's definition when it makes the node, but some of its graph optimisers rewrite nodes of
functions before that, and end the process over an attribute that is missing, of another kind, or too short a list.
"""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Optional

import odp_taskbuilder.proto  # noqa: F401 - makes TensorFlow's messages importable without TensorFlow.
from odp_taskbuilder.scan.report import printable

from tensorflow.core.framework import attr_value_pb2, node_def_pb2, types_pb2  # isort: skip

# The field of an attribute's value, by the kind in the operation's definition.
_FIELDS = {"int": "i", "float": "f", "bool": "b", "string": "s", "type": "type", "shape": "shape", "tensor": "tensor", "func": "func"}
# Types of values. References are what TensorFlow 1 had in place of variables' handles.
_TYPES = [name for name in types_pb2.DataType.DESCRIPTOR.values_by_name if name != "DT_INVALID" and not name.endswith("_REF")]


class _Definition(NamedTuple):
    """An attribute as an operation defines it.

    Attributes:
      kind: of its value, as TensorFlow names it: "list(int)".
      field: where the value stands; for lists that of the elements.
      is_list: whether it is a list.
      least: the smallest integer, or the shortest list; None if there is no bound.
      allowed: texts (bytes) or numbers of types, of which the value must be one; None for all.
    """

    kind: str
    field: str
    is_list: bool
    least: Optional[int]
    allowed: Optional[frozenset]


def problems(node: node_def_pb2.NodeDef) -> Iterator[str]:
    """Says which attributes of a node are not what its operation has. Says nothing of operations that are not allowed anyway."""
    definitions, required = _defined().get(node.op, ({}, ()))
    for key, attr in node.attr.items():
        definition = definitions.get(key)
        problem = None if definition is None else _problem(definition, attr)
        if problem is not None:
            yield f"the attribute {printable(key)!r} {problem}"
    for key in required:
        if key not in node.attr:
            yield f"lacks the attribute {key!r}"


def _problem(definition: _Definition, attr: attr_value_pb2.AttrValue) -> Optional[str]:
    field = attr.WhichOneof("value")
    if field == "placeholder":
        # Refused elsewhere, whatever it stands for.
        return None
    if field != ("list" if definition.is_list else definition.field):
        return f"is no {definition.kind}"
    if definition.is_list:
        filled = [field.name for field, _ in attr.list.ListFields()]
        if filled not in ([], [definition.field]):
            return f"is no {definition.kind}"
        values = getattr(attr.list, definition.field)
        if definition.least is not None and len(values) < definition.least:
            return f"has {len(values)} values; at least {definition.least} are needed"
        return _not_allowed(values, definition)
    if definition.field == "i" and definition.least is not None and attr.i < definition.least:
        return f"is {attr.i}; it is at least {definition.least}, as it counts operands or results"
    return _not_allowed([getattr(attr, definition.field)], definition) if definition.allowed is not None else None


def _not_allowed(values: Iterable, definition: _Definition) -> Optional[str]:
    if definition.allowed is None or definition.allowed.issuperset(values):
        return None
    return f"has a value that no such {definition.kind} has"


@functools.cache
def _defined() -> Mapping[str, tuple[Mapping[str, _Definition], tuple[str, ...]]]:
    """For each operation its attributes, and which of them it must have because they have no default."""
    defined: dict[str, tuple[dict[str, _Definition], tuple[str, ...]]] = {}
    for entry in json.loads((pathlib.Path(__file__).parent / "op_attributes.json").read_text(encoding="utf-8")):
        kind = entry["kind"]
        element = kind.removeprefix("list(").removesuffix(")")
        allowed = entry.get("allowed")
        if element == "type":
            allowed = frozenset(map(types_pb2.DataType.Value, allowed or _TYPES))
        elif allowed is not None:
            allowed = frozenset(map(str.encode, allowed))
        definition = _Definition(kind, _FIELDS[element], element != kind, entry.get("least"), allowed)
        for op in entry["ops"]:
            definitions, required = defined.get(op, ({}, ()))
            definitions[entry["attribute"]] = definition
            defined[op] = definitions, required + ((entry["attribute"],) if entry.get("required") else ())
    return defined
