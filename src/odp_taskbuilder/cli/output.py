"""What commands print: data on stdout, everything else on stderr; and nothing that steers the terminal it comes to.

All output of all commands goes through here: names in it come from models, artifacts, buckets and servers, that is from anyone.

Progress is animated only for a person watching stderr; a pipe or a log gets one line per finished stage.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from odp_taskbuilder import errors
from odp_taskbuilder.base import plain_text

# What our own texts are laid out with.
_LAYOUT = "\n\t"


def show(text: str, *, end: str = "\n") -> None:
    """Prints what a person asked for, on stdout; characters that would steer the terminal as escapes."""
    click.echo(plain_text.escaped(text, keep=_LAYOUT) + end, nl=False)


def print_json(document: Any) -> None:
    """Prints one JSON document on stdout. Numbers that JSON lacks become strings, as in proto JSON: "Infinity", "NaN"."""
    click.echo(plain_text.escaped_json(json.dumps(_finite(document), indent=2, ensure_ascii=False)))


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
    click.echo(plain_text.escaped(message, keep=_LAYOUT), err=True)


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

            with Console(stderr=True).status(f"{name} ..."):
                yield
        else:
            yield
        note(f"{name}: {time.monotonic() - start:.1f} s")
