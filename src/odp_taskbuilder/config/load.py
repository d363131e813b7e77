"""Reads a task config from a file, standard input or a string.

The content decides how it is read, never the file's name: text proto as published, text proto inside the one pair of braces that the
ODP developer page prints, or proto JSON (spec: task_config.md, section 7).
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.config import schema, source_text, syntax
from odp_taskbuilder.config.source_text import Position, SourceText
from odp_taskbuilder.proto import task_builder_pb2

STDIN = "<stdin>"


@dataclasses.dataclass(frozen=True)
class LoadedConfig:
    """A task config with what is known about its text.

    Attributes:
      readable: the part of the config that could be read; all of it if there are no problems.
      source: the file's name as given, `<stdin>`, or None when the config was not read from text.
      notices: repairs that were made while reading, one sentence each.
      problems: what could not be read.
      positions: where each field stands, by dotted path; elements of repeated fields as `metrics[0]`.
      unread: paths of fields that are given, but not in `readable`; an empty path stands for any field.
      text: the source that the positions belong to.
    """

    readable: task_builder_pb2.TaskConfig
    source: Optional[str] = None
    notices: tuple[str, ...] = ()
    problems: tuple[errors.Problem, ...] = ()
    positions: Mapping[str, Position] = dataclasses.field(default_factory=dict)
    unread: frozenset[str] = frozenset()
    text: Optional[SourceText] = None

    @property
    def config(self) -> task_builder_pb2.TaskConfig:
        """The config. Raises ConfigError if there are problems."""
        if self.problems:
            raise errors.ConfigError(self.problems, source=self.source)
        return self.readable

    def is_unread(self, path: str) -> bool:
        """Whether the field at `path`, or a block around it, is given but could not be read."""
        names = path.split(".")
        return any(".".join(names[:end]) in self.unread for end in range(len(names) + 1))

    def problem(self, path: str, message: str, suggestion: Optional[str] = None) -> errors.Problem:
        """A fault of the field at `path`, shown where it, or else the innermost block around it, stands in the source."""
        message = source_text.presentable(message)
        known = path
        while known and known not in self.positions:
            known = known.rpartition(".")[0]
        if self.text is None or not known:
            return errors.Problem(message, path, suggestion)
        position = self.positions[known]
        return errors.Problem(message, path, suggestion, position.line, position.column, self.text.shown_line(position))

    @contextlib.contextmanager
    def located(self) -> Iterator[None]:
        """Shows the problems of a ConfigError that the block raises where they stand in this config's text."""
        try:
            yield
        except errors.ConfigError as error:
            problems = [self.problem(problem.path, problem.message, problem.suggestion) for problem in error.problems]
            raise errors.ConfigError(problems, source=self.source) from error


def config_places(patterns: Sequence[Union[str, os.PathLike]]) -> list[str]:
    """The files that patterns with *, ? and ** name; what names none as it is, so that whoever reads it reports it."""
    places = []
    for pattern in (os.fspath(each) for each in patterns):
        found = [] if pattern == "-" or os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        places += found or [pattern]
    return places


def load_config(path: Union[str, os.PathLike]) -> LoadedConfig:
    """Reads a task config from a file, or from standard input when `path` is `-`.

    What does not parse is in the result: resolve() adds the problems of the values and raises all of them at once.

    Raises:
      ConfigError: if the file cannot be read, or is no text.
    """
    path = os.fspath(path)
    source = STDIN if path == "-" else path
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            data = file.read(source_text.MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise errors.ConfigError([errors.Problem(f"Cannot read the task config: {reason}.")], source=source) from error
    return parse_config(data, source)


def parse_config(text: Union[str, bytes], source: Optional[str] = None) -> LoadedConfig:
    """Parses a task config as load_config does; `source` names it in messages.

    Raises:
      ConfigError: if this is no text, or has a hundred problems.
    """
    origin, notices = source_text.decode(text, source)
    tokens = syntax.tokenize(origin.text)
    is_json = _is_json(tokens)
    if is_json:
        _check_json_syntax(origin)
        tokens = syntax.without_outer_braces(tokens)
    elif tokens[0].text == "{":
        _check_outer_braces(tokens, origin)
        tokens = syntax.without_outer_braces(tokens)
        notices.append("The pair of braces around the whole config was ignored: text proto has none.")
    notices += _notices_about_name(source, is_json)

    block = syntax.parse(tokens, origin, is_json=is_json)
    reader = schema.SchemaReader(origin)
    if origin.problems:
        # Blocks may not be where they seem to be: nothing can be said about values that are missing.
        reader.unread.add("")
    reader.read(block)
    return LoadedConfig(
        readable=reader.config,
        source=source,
        notices=(*notices, *reader.notices),
        problems=tuple(origin.problems),
        positions=reader.positions,
        unread=frozenset(reader.unread),
        text=origin,
    )


def _is_json(tokens: Sequence[syntax.Token]) -> bool:
    """Whether this is meant as JSON: an object with a quoted first name, or an empty one, behind whatever comment."""
    if tokens[0].text != "{":
        return False
    if tokens[1].text == "/":
        names = (token for token, following in zip(tokens, tokens[1:]) if following.text == ":")
        return next(names, tokens[0]).kind == "string"
    return tokens[1].kind == "string" or tokens[1].text == "}"


def _check_json_syntax(origin: SourceText) -> None:
    try:
        json.loads(origin.text)
    except json.JSONDecodeError as error:
        origin.add_problem(error.pos, f"This is not valid JSON: {error.msg}.", _json_advice(origin.text, error.pos))
        if origin.text[error.pos : error.pos + 1] == "'":
            # None of its strings could be read.
            raise errors.ConfigError(origin.problems, source=origin.name) from error
    except (ValueError, RecursionError) as error:  # Numbers of thousands of digits, thousands of brackets.
        origin.add_problem(0, f"This JSON cannot be read: {error}.")


def _json_advice(text: str, offset: int) -> Optional[str]:
    found = text[offset : offset + 1]
    if found in ("#", "/"):
        return "JSON has no comments."
    if found == "'":
        return "JSON has double quotes only."
    if text[:offset].rstrip().endswith(",") or (found == "," and text[offset + 1 :].lstrip()[:1] in ("}", "]")):
        return "JSON has no comma behind the last field of an object or the last item of a list."
    return None


def _check_outer_braces(tokens: Sequence[syntax.Token], origin: SourceText) -> None:
    """Text proto that starts with a brace is read without it and its partner, which must be around the whole."""
    partner = syntax.partner_of_first_brace(tokens)
    if partner is None:
        message = "The brace that opens the config is not closed."
        origin.add_problem(tokens[0].offset, message, "Remove it: text proto has no braces around the whole.")
    elif tokens[partner + 1].kind != "end":
        message = f"This closes the brace of line {origin.line_of(tokens[0].offset)}, but the config goes on."
        origin.add_problem(tokens[partner].offset, message, "Remove both: text proto has no braces around the whole.")


def _notices_about_name(source: Optional[str], is_json: bool) -> list[str]:
    if source is None or source == STDIN or source.endswith(".json") == is_json:
        return []
    return [f"{source} holds {'JSON' if is_json else 'text proto'}, whatever its name says, and was read as that."]
