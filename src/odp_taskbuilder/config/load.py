"""Reads a task config from a file, standard input or a string.

The content decides how it is read, never the file's name: text proto as published, text proto inside the one pair of braces that the
ODP developer page prints, or proto JSON.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from typing import NamedTuple, Optional, Union

from google.protobuf import json_format, text_format

from odp_taskbuilder import errors
from odp_taskbuilder.proto import task_builder_pb2

STDIN = "<stdin>"


class Position(NamedTuple):
    """A place in the source, counted from 1."""

    line: int
    column: int


@dataclasses.dataclass(frozen=True)
class LoadedConfig:
    """A task config with what is known about its text.

    Attributes:
      source: the file's name as given, `<stdin>`, or None when the config was not read from text.
      notices: repairs that were made while reading, one sentence each.
      positions: where the value of each field stands, by dotted path; elements of repeated fields as `metrics[0]`.
      lines: the source, line by line.
    """

    config: task_builder_pb2.TaskConfig
    source: Optional[str] = None
    notices: tuple[str, ...] = ()
    positions: Mapping[str, Position] = dataclasses.field(default_factory=dict)
    lines: tuple[str, ...] = ()

    def problem(self, path: str, message: str, suggestion: Optional[str] = None) -> errors.Problem:
        """A fault of the field at `path`, shown where it, or else the innermost block around it, stands in the source."""
        known = path
        while known and known not in self.positions:
            known = known.rpartition(".")[0]
        if not known:
            return errors.Problem(message, path, suggestion)
        line, column = self.positions[known]
        return errors.Problem(message, path, suggestion, line, column, self.lines[line - 1])


def load_config(path: Union[str, os.PathLike]) -> LoadedConfig:
    """Reads a task config from a file, or from standard input when `path` is `-`.

    Raises:
      ConfigError: if the file cannot be read or does not parse; holds every problem that was found.
    """
    path = os.fspath(path)
    source = STDIN if path == "-" else path
    try:
        if path == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                data = file.read()
    except OSError as error:
        problem = errors.Problem(f"Cannot read the task config: {error.strerror or error}.")
        raise errors.ConfigError([problem], source=source) from error
    return parse_config(data, source)


def parse_config(text: Union[str, bytes], source: Optional[str] = None) -> LoadedConfig:
    """Parses a task config; `source` names it in messages.

    Raises:
      ConfigError: if it does not parse; holds every problem that was found.
    """
    try:
        text = text if isinstance(text, str) else text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.ConfigError(
            [errors.Problem(f"The task config is not UTF-8 text: {error.reason}.")], source=source
        ) from error
    config = task_builder_pb2.TaskConfig()
    try:
        if text.lstrip().startswith("{"):
            json_format.Parse(text, config)
        else:
            text_format.Parse(text, config)
    except (json_format.ParseError, text_format.ParseError) as error:
        raise errors.ConfigError([errors.Problem(str(error))], source=source) from error
    return LoadedConfig(config, source, lines=tuple(text.split("\n")))
