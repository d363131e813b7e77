"""Option types and decorators that several commands share."""

from __future__ import annotations

from typing import Callable

import click


def absl_flag(name: str, help: str) -> Callable:
    """A boolean option written as the published guide does: --name, --name=true, --name=False, --noname."""

    negated = f"no{name}"

    def apply_negation(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
        return value and not ctx.meta.get(negated, False)

    def remember_negation(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        ctx.meta[negated] = value

    def decorate(function: Callable) -> Callable:
        function = click.option(
            f"--{name}", type=click.BOOL, is_flag=False, flag_value="true", default=False, callback=apply_negation, help=help
        )(function)
        # Eager: it is read before the option that it negates.
        return click.option(
            f"--{negated}", is_flag=True, is_eager=True, hidden=True, expose_value=False, callback=remember_negation
        )(function)

    return decorate


json_option = click.option(
    "--json", "json_mode", is_flag=True, help="Print the result as one JSON document on stdout, and nothing else there."
)
