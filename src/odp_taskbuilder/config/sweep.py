"""One config made into many: a sweep gives a field one value after the other."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Optional

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from odp_taskbuilder import errors
from odp_taskbuilder.config.load import LoadedConfig, parse_config
from odp_taskbuilder.proto import task_builder_pb2

# Builds of one command; a typing error of a sweep is quickly a million.
MAX_CONFIGS = 1000


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The values of one field.

    Attributes:
      path: of the field in a TaskConfig, dotted.
      values: as text.
    """

    path: str
    values: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


@dataclasses.dataclass(frozen=True)
class SweptConfig:
    """A config with the values that a sweep gave it.

    Attributes:
      settings: name of a field -> its value as given.
    """

    config: LoadedConfig
    settings: tuple[tuple[str, str], ...]


def parse_sweep(text: str) -> Sweep:
    """Reads FIELD=VALUE,VALUE,...; FIELD is a name, or as much of its path as tells it from others.

    Raises:
      ConfigError: there is no such field, or several, or no value.
    """
    name, _, values = text.partition("=")
    name = name.strip()
    found = tuple(value.strip() for value in values.split(","))
    if not name or not all(found):
        raise _refusal(f"--sweep {text!r} is not of the form FIELD=VALUE,VALUE,...")
    paths = [path for path, _ in _scalar_fields(task_builder_pb2.TaskConfig.DESCRIPTOR)]
    matches = [path for path in paths if path == name or path.endswith(f".{name}")]
    if not matches:
        names = {path.rpartition(".")[2] for path in paths}
        similar = difflib.get_close_matches(name, [*names, *paths], n=1)
        raise _refusal(f"--sweep: no field {name!r} takes a single value.", f"Did you mean {similar[0]!r}?" if similar else None)
    if len(matches) > 1 and name not in matches:
        raise _refusal(f"--sweep: {name!r} is the name of {len(matches)} fields.", f"Write one of {', '.join(matches)}.")
    return Sweep(name if name in matches else matches[0], found)


def swept(config: LoadedConfig, sweeps: Sequence[Sweep]) -> list[SweptConfig]:
    """The config with every combination of values; without a sweep the config as it is.

    Raises:
      ConfigError: a value is none of its field, or there are more combinations than MAX_CONFIGS.
    """
    count = 1
    for sweep in sweeps:
        count *= len(sweep.values)
    if count > MAX_CONFIGS:
        raise _refusal(f"The sweeps make {count} configs of one; at most {MAX_CONFIGS} are built.")
    paths = [sweep.path for sweep in sweeps]
    if len(set(paths)) != len(paths):
        raise _refusal(f"--sweep names {max(paths, key=paths.count)} twice.", "Write all of its values in one.")
    combinations = itertools.product(*([(sweep, value) for value in sweep.values] for sweep in sweeps))
    return [_with_values(config, chosen) for chosen in combinations]


def _with_values(config: LoadedConfig, chosen: Sequence[tuple[Sweep, str]]) -> SweptConfig:
    if not chosen:
        return SweptConfig(config, ())
    changed = task_builder_pb2.TaskConfig()
    changed.CopyFrom(config.readable)
    for sweep, value in chosen:
        given = _parsed(sweep, value)
        *blocks, name = sweep.path.split(".")
        target = changed
        for block in blocks:
            given, target = getattr(given, block), getattr(target, block)
        # Not merged: that would leave a zero out.
        target.SetInParent()
        setattr(target, name, getattr(given, name))
    positions = {path: place for path, place in config.positions.items() if path not in {sweep.path for sweep, _ in chosen}}
    settings = tuple((sweep.name, value) for sweep, value in chosen)
    described = ", ".join(f"{name}={value}" for name, value in settings)
    source = f"{config.source or 'task config'} with {described}"
    return SweptConfig(dataclasses.replace(config, readable=changed, positions=positions, source=source), settings)


def _parsed(sweep: Sweep, value: str) -> task_builder_pb2.TaskConfig:
    """A config with the one value, read as any other. Raises ConfigError."""
    field = dict(_scalar_fields(task_builder_pb2.TaskConfig.DESCRIPTOR))[sweep.path]
    *blocks, name = sweep.path.split(".")
    literal = json.dumps(value) if field.type == FieldDescriptor.TYPE_STRING else value
    text = "".join(f"{block} {{ " for block in blocks) + f"{name}: {literal}" + " }" * len(blocks)
    loaded = parse_config(text, f"--sweep {sweep.name}={value}")
    if loaded.problems:
        raise _refusal(f"--sweep: {value!r} is no value of {sweep.path}. {loaded.problems[0].message}", loaded.problems[0].suggestion)
    return loaded.readable


def _scalar_fields(descriptor: Descriptor, prefix: str = "") -> Iterator[tuple[str, FieldDescriptor]]:
    for field in descriptor.fields:
        path = f"{prefix}{field.name}"
        if field.label == FieldDescriptor.LABEL_REPEATED:
            continue
        if field.message_type is not None:
            yield from _scalar_fields(field.message_type, f"{path}.")
        else:
            yield path, field


def _refusal(message: str, suggestion: Optional[str] = None) -> errors.ConfigError:
    return errors.ConfigError([errors.Problem(message, suggestion=suggestion)], source="command line")
