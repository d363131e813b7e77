"""Reads a single value into its field, or says what to write instead.

protobuf decides; this module explains, since protobuf's messages say what it could not do, not what was meant.
"""

from __future__ import annotations

import json
from typing import Callable, NamedTuple, Optional

from google.protobuf import json_format, text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from odp_taskbuilder.config import suggest, syntax

_INTEGER_BITS = {FieldDescriptor.TYPE_INT32: 32, FieldDescriptor.TYPE_INT64: 64}
# Longer ones are no numbers that a person wrote, and converting them takes quadratic time.
_MAX_NUMBER_LENGTH = 400


class Fault(NamedTuple):
    """What is wrong with a value, and what to write instead."""

    message: str
    suggestion: Optional[str] = None


def assign(message: Message, field: FieldDescriptor, scalar: syntax.Scalar, *, is_json: bool) -> Optional[Fault]:
    """Sets the field of the message; returns None, or why it could not."""
    if not scalar.is_string and len(scalar.text) > _MAX_NUMBER_LENGTH:
        return Fault(f"{field.name} has a value of {len(scalar.text):,} characters.")
    try:
        if is_json:
            value = json.loads(scalar.text)
            # Half a surrogate pair is a ValueError here; protobuf would raise a SystemError.
            str(value).encode()
            json_format.ParseDict({field.name: value}, message)
        else:
            text_format.Merge(f"{field.name}: {scalar.text}", message)
    except (json_format.ParseError, text_format.ParseError, ValueError, OverflowError):
        return _explain(field, scalar, is_json)
    return None


def _explain(field: FieldDescriptor, scalar: syntax.Scalar, is_json: bool) -> Fault:
    name = f'"{field.name}"' if is_json else field.name

    def write(value: str) -> str:
        return f"{name}: {value}"

    if field.enum_type is not None:
        return _explain_enum(field, scalar, write, is_json)
    if field.type in _INTEGER_BITS:
        return _explain_integer(field, scalar, write)
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        advice = f"Remove the quotes: {write(scalar.content)}" if scalar.is_string else None
        return Fault(f"{field.name} takes a number, not {scalar.text}.", advice)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return Fault(f"{field.name} is true or false, not {scalar.text}.", f"Write {write('true')} or {write('false')}")
    if scalar.is_string:
        return Fault(f"The text of {field.name} has an escape that stands for no character.", "Write a backslash twice.")
    quoted = json.dumps(scalar.text, ensure_ascii=False)
    return Fault(f"{field.name} takes a text, not {scalar.text}.", f"Put it in quotes: {write(quoted)}")


def _explain_enum(field: FieldDescriptor, scalar: syntax.Scalar, write: Callable[[str], str], is_json: bool) -> Fault:
    meant = suggest.suggest_enum_value(field.enum_type, scalar.content)
    if scalar.is_string and not is_json and meant is not None:
        return Fault(f"{field.name} takes a name without quotes, not {scalar.text}.", f"Remove the quotes: {write(meant)}")
    if meant is not None:
        return Fault(f"{field.name} has no value '{scalar.content}'.", f"Did you mean {meant}?")
    names = ", ".join(value.name for value in field.enum_type.values if value.number)
    return Fault(f"{field.name} has no value '{scalar.content}'.", f"The values are {names}.")


def _explain_integer(field: FieldDescriptor, scalar: syntax.Scalar, write: Callable[[str], str]) -> Fault:
    refusal = f"{field.name} takes a whole number, not {scalar.text}."
    try:
        number = float(scalar.content)
    except ValueError:
        return Fault(refusal)
    limit = 2 ** (_INTEGER_BITS[field.type] - 1)
    if not -limit <= number < limit:
        return Fault(f"{field.name} must be between {-limit} and {limit - 1}, not {scalar.text}.")
    whole = scalar.content if scalar.content.lstrip("-").isdigit() else str(int(number))
    return Fault(refusal, f"{'Remove the quotes' if scalar.is_string else 'Write a whole number'}: {write(whole)}")
