"""Reads a parsed config into a TaskConfig along the schema: unknown, misplaced and repeated fields, and values of the wrong type."""

from __future__ import annotations

from typing import Optional

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from odp_taskbuilder.config import scalars, suggest, syntax
from odp_taskbuilder.config.source_text import Position, SourceText
from odp_taskbuilder.proto import task_builder_pb2


class SchemaReader:
    """Fills a TaskConfig; problems go to the source, and reading goes on as if what is suggested had been written.

    Attributes:
      config: what was read.
      positions: where each field stands, by dotted path; elements of repeated fields as `metrics[0]`.
      unread: paths of fields that have a value in the source that could not be read.
      notices: repairs that cannot change the meaning, one sentence each.
    """

    def __init__(self, source: SourceText):
        self.config = task_builder_pb2.TaskConfig()
        self.positions: dict[str, Position] = {}
        self.unread: set[str] = set()
        self.notices: list[str] = []
        self._source = source
        self._first_lines: dict[str, int] = {}
        self._repetitions: dict[str, int] = {}

    def read(self, block: syntax.Block) -> None:
        """Reads the fields of a whole config."""
        self._read_block(block, self.config, "")

    def _read_block(self, block: syntax.Block, message: Message, path: str) -> None:
        for entry in block.fields:
            field = _find_field(message.DESCRIPTOR, entry)
            if field is None:
                self._read_unknown(entry, message, path)
                continue
            field_path = f"{path}.{field.name}".lstrip(".")
            if field.label != FieldDescriptor.LABEL_REPEATED:
                self._check_first(entry, field, field_path)
            self._read_field(entry, field, message, field_path)

    def _check_first(self, entry: syntax.Field, field: FieldDescriptor, path: str) -> None:
        offset = entry.name_token.offset
        if path in self._first_lines:
            advice = "Remove one of the two." if field.message_type is None else "Merge the two blocks."
            message = f"'{field.name}' was given in line {self._first_lines[path]} already."
            self._source.add_problem(offset, message, advice, path)
        else:
            self._first_lines[path] = self._source.line_of(offset)

    def _read_unknown(self, entry: syntax.Field, message: Message, path: str) -> None:
        entity = path.rpartition(".")[2] or "task_config"
        suggestion = suggest.suggest_field(message.DESCRIPTOR, path, entry.name, entry.value)
        entry_path = f"{path}.{entry.name}".lstrip(".")
        self._source.add_problem(entry.name_token.offset, f"{entity} has no field '{entry.name}'.", suggestion.text, entry_path)
        if len(suggestion.places) == 1:
            place = suggestion.places[0]
            meant = message if place.block == path else self._message_at(place.block)
            self._read_field(entry, place.field, meant, place.path)
        else:
            self.unread.update(place.path for place in suggestion.places)

    def _message_at(self, path: str) -> Message:
        """The message at `path`; a detached one for an element of a repeated field, of which the path does not say which."""
        message: Message = self.config
        for name in filter(None, path.split(".")):
            if message.DESCRIPTOR.fields_by_name[name].label == FieldDescriptor.LABEL_REPEATED:
                return getattr(type(message)(), name).add()
            message = getattr(message, name)
        return message

    def _read_field(self, entry: syntax.Field, field: FieldDescriptor, message: Message, path: str) -> None:
        value = entry.value
        if value is None:
            self.unread.add(path)
            return
        if entry.is_json and isinstance(value, syntax.Scalar) and value.text == "null":
            return
        offset = entry.name_token.offset if isinstance(value, syntax.Block) else value.offset
        self.positions.setdefault(path, self._source.position(offset))
        if field.label != FieldDescriptor.LABEL_REPEATED:
            self._read_value(field, value, message, path, entry.is_json)
        elif entry.is_json and not isinstance(value, syntax.List):
            self._refuse(value, f"{field.name} takes a list.", f'Write "{field.name}": [...]', path)
        else:
            for item in value.items if isinstance(value, syntax.List) else (value,):
                # In text proto every entry of a repeated field adds to the ones before.
                index = self._repetitions.get(path, 0)
                self._repetitions[path] = index + 1
                self.positions[f"{path}[{index}]"] = self._source.position(item.offset)
                self._read_value(field, item, message, f"{path}[{index}]", entry.is_json)

    def _read_value(self, field: FieldDescriptor, value: syntax.Value, message: Message, path: str, is_json: bool) -> None:
        """Reads one value; `message` is the one that has the field."""
        if isinstance(value, syntax.List):
            self._refuse(value, f"{field.name} takes one value, not a list.", "Remove the square brackets.", path)
        elif field.message_type is not None and isinstance(value, syntax.Block):
            child = getattr(message, field.name)
            if field.label == FieldDescriptor.LABEL_REPEATED:
                child = child.add()
            child.SetInParent()
            self._read_block(value, child, path)
        elif field.message_type is not None:
            self._refuse(value, f"{field.name} is a block of fields.", f"Write {field.name} {{ ... }}", path)
        elif isinstance(value, syntax.Block):
            self._refuse(value, f"{field.name} is not a block of fields.", f"Write {field.name}: and its value.", path)
        else:
            self._read_scalar(field, value, message, path, is_json)

    def _read_scalar(self, field: FieldDescriptor, scalar: syntax.Scalar, message: Message, path: str, is_json: bool) -> None:
        fault = scalars.assign(message, field, scalar, is_json=is_json)
        if fault is None:
            return
        enumerator = field.enum_type and field.enum_type.values_by_name.get(scalar.content.upper())
        if enumerator and scalar.is_string == is_json:
            setattr(message, field.name, enumerator.number)
            self.notices.append(f"Line {self._source.line_of(scalar.offset)}: {scalar.content} was read as {enumerator.name}.")
        else:
            self._refuse(scalar, fault.message, fault.suggestion, path)

    def _refuse(self, value: syntax.Value, message: str, suggestion: Optional[str], path: str) -> None:
        self._source.add_problem(value.offset, message, suggestion, path)
        self.unread.add(path)


def _find_field(descriptor: Descriptor, entry: syntax.Field) -> Optional[FieldDescriptor]:
    """The field of that name. JSON has lowerCamelCase names as well."""
    field = descriptor.fields_by_name.get(entry.name)
    if field is None and entry.is_json:
        field = descriptor.fields_by_camelcase_name.get(entry.name)
    return field
