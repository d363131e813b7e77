"""Option types and decorators that several commands share."""

from __future__ import annotations

from typing import Any, Callable

import click


def absl_flag(name: str, help: str) -> Callable:
    """A boolean option written as the published guide does: --name, --name=true, --name=False, --noname."""

    def decorate(function: Callable) -> Callable:
        function = click.option(f"--{name}", name, type=click.BOOL, is_flag=False, flag_value="true", default=False, help=help)(function)
        return click.option(
            f"--no{name}", name, type=click.BOOL, is_flag=True, flag_value=False, default=None, hidden=True, expose_value=False, callback=_negate(name)
        )(function)

    return decorate


def _negate(name: str) -> Callable:
    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is not None:
            ctx.params[name] = False

    return callback


json_option = click.option("--json", "json_mode", is_flag=True, help="Print the result as one JSON document on stdout, and nothing else there.")
