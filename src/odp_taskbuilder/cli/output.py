"""What commands print: data on stdout, everything else on stderr; nothing that steers the terminal it comes to, and no secret.

All output of all commands goes through here: names in it come from models, artifacts, buckets and servers, that is from anyone.

Progress is animated only for a person watching stderr; a pipe or a log gets one line per stage that took long.
"""

from __future__ import annotations

import contextlib
import enum
import io
import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Callable, Optional

import click

from odp_taskbuilder import errors
from odp_taskbuilder.base import plain_text, redaction
from odp_taskbuilder.cli.json_documents import SCHEMA_VERSION

# What our own texts are laid out with.
_LAYOUT = "\n\t"
# Seconds that work may take before anyone is told of it.
_PATIENCE = 1.0


class Verbosity(enum.Enum):
    """How much stderr gets to see beside errors."""

    QUIET = "nothing"
    NORMAL = "notes, and stages that take long"
    VERBOSE = "notes, every stage, and where errors arose"


_verbosity = Verbosity.NORMAL
# What the terminal shows at its bottom now.
_shown: Optional[_Status] = None


def set_verbosity(verbosity: Verbosity) -> None:
    global _verbosity
    _verbosity = verbosity


def verbosity() -> Verbosity:
    return _verbosity


def prepare_streams() -> None:
    """Makes printing safe: a stream that was closed before the start (`>&-`) swallows what is printed, and a character that an
    encoding lacks is replaced by its escape. An answer, and with it the exit code, must not depend on who listens."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            # Left free, the descriptor would go to the next file that is opened.
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            setattr(sys, name, open(descriptor, "w", encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show(text: str, *, end: str = "\n") -> None:
    """Prints what a person asked for, on stdout; characters that would steer the terminal as escapes."""
    _echo(plain_text.escaped(redaction.redact(text), keep=_LAYOUT) + end, err=False, nl=False)


def print_json(document: Mapping[str, Any]) -> None:
    """Prints one JSON document on stdout, as json_documents.py describes them. Numbers that JSON lacks become strings, as in proto JSON: "Infinity", "NaN"."""
    document = redaction.redact_document(_finite({"schema_version": SCHEMA_VERSION, **document}))
    text = plain_text.escaped_json(json.dumps(document, indent=2, ensure_ascii=False))
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        # The escapes that JSON has, not those of Python.
        text = json.dumps(document, indent=2)
    _echo(text, err=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def note(message: str) -> None:
    """Tells a person something, on stderr, unless they want to hear nothing; characters that would steer the terminal as escapes."""
    if _verbosity is not Verbosity.QUIET:
        _echo(plain_text.escaped(redaction.redact(message), keep=_LAYOUT), err=True)


def report_error(error: errors.OdpTaskError, json_mode: bool) -> None:
    """Shows an error on stderr, and as {"error": ...} on stdout when the command was asked for JSON."""
    _echo(plain_text.escaped(redaction.redact(f"Error: {error}"), keep=_LAYOUT), err=True)
    if not json_mode:
        return
    document = {"class": type(error).__name__, "exit_code": error.exit_code, "message": error.message, "next_step": error.next_step}
    if isinstance(error, errors.ConfigError):
        document["problems"] = [vars(problem) for problem in error.problems]
    if isinstance(error, errors.UnsupportedOpsError):
        document["ops"] = error.ops
    print_json({"error": document})


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Tells of work that takes more than a second: a terminal while it runs, a pipe or a log when it is done."""
    start = time.monotonic()
    if _verbosity is Verbosity.VERBOSE:
        note(f"{name} ...")
    with status(name):
        yield
    seconds = time.monotonic() - start
    if seconds >= _PATIENCE or _verbosity is Verbosity.VERBOSE:
        note(f"{name}: {seconds:.1f} s")


@contextlib.contextmanager
def every_stage(name: str) -> Iterator[None]:
    """Tells of work that belongs to a sequence of stages, however long each takes."""
    start = time.monotonic()
    with status(name):
        yield
    note(f"{name}: {time.monotonic() - start:.1f} s")


@contextlib.contextmanager
def status(text: str) -> Iterator[Callable[[str], None]]:
    """Shows a person at a terminal what is going on, from one second after the start to the end of the block; nobody else anything.

    Yields:
      A function that replaces the text.
    """
    global _shown
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb" or _verbosity is Verbosity.QUIET or _shown is not None:
        yield lambda text: None
        return
    _shown = _Status(text)
    try:
        yield _shown.update
    finally:
        shown, _shown = _shown, None
        shown.end()


class _Status:
    """A line at the bottom of the terminal that moves while work is done. Safe to use from several threads."""

    def __init__(self, text: str):
        self._lock = threading.RLock()
        self._text = text
        self._status: Any = None
        self._is_over = False
        self._timer = threading.Timer(_PATIENCE, self._begin)
        self._timer.daemon = True
        self._timer.start()

    def _begin(self) -> None:
        with self._lock:
            if self._is_over:
                return
            from rich.console import Console

            self._status = Console(stderr=True).status(_line(self._text))
            self._status.start()

    def update(self, text: str) -> None:
        with self._lock:
            self._text = text
            if self._status is not None:
                self._status.update(_line(text))

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Within the block the terminal is free for whole lines."""
        with self._lock:
            if self._status is None:
                yield
                return
            self._status.stop()
            try:
                yield
            finally:
                self._status.start()

    def end(self) -> None:
        self._timer.cancel()
        with self._lock:
            self._is_over = True
            if self._status is not None:
                self._status.stop()


def _line(text: str) -> str:
    # In rich's markup a bracket may begin a style.
    return plain_text.escaped(redaction.redact(text)).replace("[", "\\[") + " ..."


def _echo(text: str, *, err: bool, nl: bool = True) -> None:
    with contextlib.nullcontext() if _shown is None else _shown.aside():
        click.echo(text, err=err, nl=nl)
