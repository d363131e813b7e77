"""Opens a Plan or a ClientOnlyPlan that may come from anyone.

Only the description (phases, names, shapes) goes through the protobuf library, and only up to a size at which it cannot fill the
memory. Graphs stay where they are in the file until somebody walks over them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any, Optional, Union

from google.protobuf import message as protobuf_message

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import wire
from odp_taskbuilder.base import server_limits
from odp_taskbuilder.config.spec import PlanForm
from odp_taskbuilder.proto import plan_pb2

# The description of a plan takes about 150 bytes per tensor of the model.
_MAX_DESCRIPTION_BYTES = 4 << 20
_MAX_TFLITE_BYTES = 256 << 20
_MAX_FIELDS = 10_000
_MAX_ENTRIES = 200_000

# Fields that hold graphs; those of a Plan are wrapped in google.protobuf.Any, but for the flatbuffer.
_PLAN_GRAPHS = {7: "server", 8: "client", 13: "prepare", 14: "result"}
_PLAN_TFLITE = 12
_CLIENT_PLAN_GRAPH, _CLIENT_PLAN_TFLITE = 1, 5
_ANY_VALUE = 2


@dataclasses.dataclass(frozen=True)
class PlanFile:
    """An open Plan or ClientOnlyPlan.

    Attributes:
      description: the message without its graphs.
      graphs: "server", "prepare", "result" or "client" -> the range of a serialized GraphDef in `source`.
      tflite_graph: the flatbuffer; empty where there is none.
    """

    source: wire.Source
    what: str
    description: Union[plan_pb2.Plan, plan_pb2.ClientOnlyPlan]
    graphs: Mapping[str, tuple[int, int]]
    tflite_graph: bytes

    @property
    def is_client_only(self) -> bool:
        return isinstance(self.description, plan_pb2.ClientOnlyPlan)

    @property
    def phase(self) -> plan_pb2.Plan.Phase:
        """The one phase of a Plan."""
        return self.description.phase[0]

    @property
    def client_phase(self) -> plan_pb2.ClientPhase:
        return self.description.phase if self.is_client_only else self.phase.client_phase

    @property
    def form(self) -> Optional[PlanForm]:
        """What decides for a server: whether there is a server_phase_v2. None for a ClientOnlyPlan."""
        if self.is_client_only:
            return None
        return PlanForm.DISTRIBUTE_AGGREGATE if self.phase.HasField("server_phase_v2") else PlanForm.MAP_REDUCE


@contextlib.contextmanager
def open_plan(path: Union[str, os.PathLike]) -> Iterator[PlanFile]:
    """Opens a plan of either kind, which is told from its fields.

    Raises:
      StorageError: the file cannot be read.
      ArtifactError: it is no plan that a server or a device would take.
    """
    with wire.open_file(path) as source:
        yield parse_plan(source, os.fspath(path))


def parse_plan(source: wire.Source, what: str) -> PlanFile:
    """See `open_plan`."""
    if len(source) > server_limits.MAX_ARTIFACT_BYTES:
        raise errors.ArtifactError(f"{what} is no plan: it is {len(source)} bytes long, and servers read less than 2 GiB")
    try:
        fields = list(wire.fields(source, 0, len(source), what, limit=_MAX_FIELDS))
    except errors.ArtifactError as error:
        raise errors.ArtifactError(
            f"{what} is no Plan, ClientOnlyPlan or V1 checkpoint, or is damaged: {error.message}"
        ) from None
    numbers = {field.number for field in fields}
    if {_CLIENT_PLAN_GRAPH, _CLIENT_PLAN_TFLITE} & numbers:
        return _client_only_plan(source, fields, what)
    if numbers & {*_PLAN_GRAPHS, _PLAN_TFLITE}:
        return _plan(source, fields, what)
    raise errors.ArtifactError(f"{what} is no Plan, ClientOnlyPlan or V1 checkpoint: it has no graph")


def _plan(source: wire.Source, fields: list[wire.Field], what: str) -> PlanFile:
    large = {_PLAN_TFLITE, *_PLAN_GRAPHS}
    plan = _description(plan_pb2.Plan, source, fields, large, what)
    if len(plan.phase) != 1:
        raise errors.ArtifactError(f"{what} is no Plan that a server would run: it has {len(plan.phase)} phases, not 1")
    graphs = {}
    for number, name in _PLAN_GRAPHS.items():
        any_field = _single(fields, number, what)
        if any_field is not None:
            inside = wire.fields(source, any_field.start, any_field.end, what, limit=8)
            value = _single(list(inside), _ANY_VALUE, what)
            if value is not None and value.start < value.end:
                graphs[name] = (value.start, value.end)
    return PlanFile(source, what, plan, graphs, _tflite(source, _single(fields, _PLAN_TFLITE, what), what))


def _client_only_plan(source: wire.Source, fields: list[wire.Field], what: str) -> PlanFile:
    plan = _description(plan_pb2.ClientOnlyPlan, source, fields, {_CLIENT_PLAN_GRAPH, _CLIENT_PLAN_TFLITE}, what)
    graph = _single(fields, _CLIENT_PLAN_GRAPH, what)
    graphs = {"client": (graph.start, graph.end)} if graph is not None and graph.start < graph.end else {}
    return PlanFile(source, what, plan, graphs, _tflite(source, _single(fields, _CLIENT_PLAN_TFLITE, what), what))


def _description(message_class: Any, source: wire.Source, fields: list[wire.Field], large: set[int], what: str) -> Any:
    """Parses the message without its large fields."""
    parts, begin = [], 0
    for field in fields:
        # `begin` is where the field's tag stands.
        if field.number not in large:
            parts.append((begin, field.end))
        begin = field.end
    size = sum(end - start for start, end in parts)
    if size > _MAX_DESCRIPTION_BYTES:
        raise errors.ArtifactError(f"{what} is no plan: what describes its graphs takes {size} bytes")
    try:
        message = message_class.FromString(b"".join(source[start:end] for start, end in parts))
    except protobuf_message.DecodeError:
        raise errors.ArtifactError(f"{what} is corrupt: it does not parse as a {message_class.__name__}") from None
    known = set(message_class.DESCRIPTOR.fields_by_number)
    foreign = sorted({field.number for field in fields} - known)
    if foreign:
        raise errors.ArtifactError(f"{what} is no {message_class.__name__}: it has a field {foreign[0]}")
    if _count_entries(message, _MAX_ENTRIES) > _MAX_ENTRIES:
        raise errors.ArtifactError(f"{what} is no plan: it lists more than {_MAX_ENTRIES} things")
    return message


def _count_entries(message: Any, limit: int) -> int:
    """The number of fields and list elements in a message and all that it holds; counting stops beyond the limit."""
    count = 0
    for field, value in message.ListFields():
        values = value if field.label == field.LABEL_REPEATED else [value]
        count += len(values)
        if count > limit:
            break
        # A map's entries are few or small: they are counted, not entered.
        if field.type == field.TYPE_MESSAGE and not field.message_type.GetOptions().map_entry:
            for inner in values:
                count += _count_entries(inner, limit - count)
                if count > limit:
                    break
    return count


def _tflite(source: wire.Source, field: Optional[wire.Field], what: str) -> bytes:
    if field is None:
        return b""
    if field.end - field.start > _MAX_TFLITE_BYTES:
        raise errors.ArtifactError(
            f"{what}: its TFLite graph is {field.end - field.start} bytes long; at most {_MAX_TFLITE_BYTES} are read"
        )
    return source[field.start : field.end]


def _single(fields: list[wire.Field], number: int, what: str) -> Optional[wire.Field]:
    found = [field for field in fields if field.number == number]
    if len(found) > 1 or any(field.wire_type != wire.BYTES for field in found):
        raise errors.ArtifactError(f"{what} is corrupt: field {number} is not there once, as bytes")
    return found[0] if found else None
