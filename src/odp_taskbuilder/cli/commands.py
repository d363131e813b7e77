"""What all commands share, however they are found: the first thing that starts, so that nothing is imported here that takes time."""

from __future__ import annotations

import difflib
from typing import Optional

import click

from odp_taskbuilder.cli import output


class CommandGroup(click.Group):
    """A group that says which command a misspelt one may be. (click does as of 8.4, and only where commands are not imported late.)"""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Optional[str], Optional[click.Command], list[str]]:
        names, given = self.list_commands(ctx), _folded(args[0])
        if args[0].replace("-", "_") not in names and not given.startswith("_") and not ctx.resilient_parsing:
            close = difflib.get_close_matches(given, names, n=1) or [name for name in names if given and name.startswith(given)][:1]
            meant = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"No such command {args[0]!r}.{meant}", ctx)
        return super().resolve_command(ctx, args)


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")


def with_verbosity(command: click.Command) -> click.Command:
    """The command, and those in it, with -q and -v."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            with_verbosity(inner)
    elif not any("-q" in parameter.opts for parameter in command.params):
        command.params += [
            _verbosity_option("-q", "--quiet", output.Verbosity.QUIET, "Print results and errors only."),
            _verbosity_option("-v", "--verbose", output.Verbosity.VERBOSE, "Tell of every stage, and of errors where in the code they arose."),
        ]
    return command


def _verbosity_option(short: str, long: str, verbosity: output.Verbosity, help: str) -> click.Option:
    def choose(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            output.set_verbosity(verbosity)

    return click.Option([short, long], is_flag=True, is_eager=True, expose_value=False, callback=choose, help=help)
