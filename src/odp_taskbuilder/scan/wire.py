"""How much a message holds, told from its bytes before protobuf makes objects of them.

Two bytes of a file may become several hundred in memory: an empty node, an empty map entry. So messages of unknown origin are counted
first, along the fields of their type and in one pass that stops at the first limit.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from google.protobuf import descriptor as protobuf_descriptor

from odp_taskbuilder.scan.report import ScanLimits

if TYPE_CHECKING:
    from typing_extensions import TypeAlias

_Descriptor: TypeAlias = protobuf_descriptor.Descriptor
_Field = protobuf_descriptor.FieldDescriptor

# protobuf itself goes no deeper.
_MAX_DEPTH = 100
_MAX_VARINT_BYTES = 10
# What has a limit of its own among the messages, and under which name it is reported.
_LIMITED = {
    "tensorflow.FunctionDef": "functions",
    "tensorflow.NodeDef": "nodes",
    "tensorflow.NodeDef.AttrEntry": "attributes",
    "tensorflow.SavedObject": "objects",
}
_FIXED_SIZES = {1: 8, 5: 4}


class _Message(NamedTuple):
    descriptor: _Descriptor


_TEXT, _PACKED, _BYTES = "text", "packed", "bytes"


def excess(data: bytes, descriptor: _Descriptor, limits: ScanLimits) -> Optional[str]:
    """Says which limit a serialized message passes; None if it passes none. Takes about half a second for a million fields.

    Raises:
      ValueError: the bytes are no message, or one that is nested deeper than protobuf reads.
    """
    left = {message: getattr(limits, what) for message, what in _LIMITED.items()}
    num_fields = num_packed = 0
    name, fields, position, end = descriptor.full_name, _fields(descriptor), 0, len(data)
    outer: list[tuple[str, Mapping[int, Any], int]] = []
    try:
        while True:
            if position >= end:
                if position > end:
                    raise ValueError("a field reaches beyond its message")
                if not outer:
                    break
                name, fields, end = outer.pop()
                continue
            num_fields += 1
            if num_fields > limits.fields:
                return f"more than {limits.fields} fields"
            tag, position = _varint(data, position)
            if tag < 8:
                raise ValueError("a field without a number")
            wire_type = tag & 7
            if wire_type == 0:
                _, position = _varint(data, position)
            elif wire_type == 2:
                size, position = _varint(data, position)
                kind = fields.get(tag >> 3, _BYTES)
                if kind is _TEXT:
                    if size > limits.name_bytes:
                        return f"a text of {size} bytes in {name}; at most {limits.name_bytes} are accepted"
                elif kind is _PACKED:
                    num_packed += size
                elif kind is not _BYTES:
                    if len(outer) >= _MAX_DEPTH:
                        raise ValueError(f"messages are nested more than {_MAX_DEPTH} deep")
                    if position + size > end:
                        raise ValueError("a message reaches beyond the one that it is in")
                    outer.append((name, fields, end))
                    name, fields, end = kind.descriptor.full_name, _fields(kind.descriptor), position + size
                    if name in left:
                        left[name] -= 1
                        if left[name] < 0:
                            return f"more than {getattr(limits, _LIMITED[name])} {_LIMITED[name]}"
                    continue
                position += size
            elif wire_type in _FIXED_SIZES:
                position += _FIXED_SIZES[wire_type]
            else:
                raise ValueError("a group, which no message here has")
    except IndexError:
        raise ValueError("a field is cut off") from None
    if num_packed > limits.packed_bytes:
        return f"lists of numbers of {num_packed} bytes; at most {limits.packed_bytes} are accepted"
    return None


@functools.cache
def _fields(descriptor: _Descriptor) -> Mapping[int, Any]:
    """For each field that may stand in the file with a length: what its bytes are."""
    fields: dict[int, Any] = {}
    for field in descriptor.fields:
        if field.type == _Field.TYPE_MESSAGE:
            fields[field.number] = _Message(field.message_type)
        elif field.type == _Field.TYPE_STRING:
            fields[field.number] = _TEXT
        elif field.type != _Field.TYPE_BYTES and field.label == _Field.LABEL_REPEATED:
            fields[field.number] = _PACKED
    return fields


def _varint(data: bytes, position: int) -> tuple[int, int]:
    byte = data[position]
    if byte < 0x80:
        return byte, position + 1
    value = byte & 0x7F
    for shift in range(7, 7 * _MAX_VARINT_BYTES, 7):
        position += 1
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
    raise ValueError("a number is too long")
