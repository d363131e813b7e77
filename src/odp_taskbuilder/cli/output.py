"""What commands print: data on stdout, everything else on stderr; nothing that steers the terminal it comes to, and no secret.

All output of all commands goes through here: names in it come from models, artifacts, buckets and servers, that is from anyone.

Progress is animated only for a person watching stderr; a pipe or a log gets one line per finished stage.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from odp_taskbuilder import errors
from odp_taskbuilder.base import plain_text, redaction

# What our own texts are laid out with.
_LAYOUT = "\n\t"


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
    click.echo(plain_text.escaped(redaction.redact(text), keep=_LAYOUT) + end, nl=False)


def print_json(document: Any) -> None:
    """Prints one JSON document on stdout. Numbers that JSON lacks become strings, as in proto JSON: "Infinity", "NaN"."""
    document = redaction.redact_document(_finite(document))
    text = plain_text.escaped_json(json.dumps(document, indent=2, ensure_ascii=False))
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        # The escapes that JSON has, not those of Python.
        text = json.dumps(document, indent=2)
    click.echo(text)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def note(message: str) -> None:
    """Tells a person something, on stderr; characters that would steer the terminal as escapes."""
    click.echo(plain_text.escaped(redaction.redact(message), keep=_LAYOUT), err=True)


def report_error(error: errors.OdpTaskError, json_mode: bool) -> None:
    """Shows an error on stderr, and as {"error": ...} on stdout when the command was asked for JSON."""
    note(f"Error: {error}")
    if not json_mode:
        return
    document = {"class": type(error).__name__, "exit_code": error.exit_code, "message": error.message, "next_step": error.next_step}
    if isinstance(error, errors.ConfigError):
        document["problems"] = [vars(problem) for problem in error.problems]
    if isinstance(error, errors.UnsupportedOpsError):
        document["ops"] = error.ops
    print_json({"error": document})


class Progress:
    """Names the stage that is running: `with progress.stage("calibrating the noise"): ...`."""

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console

            with Console(stderr=True).status(plain_text.escaped(redaction.redact(f"{name} ..."))):
                yield
        else:
            yield
        note(f"{name}: {time.monotonic() - start:.1f} s")
