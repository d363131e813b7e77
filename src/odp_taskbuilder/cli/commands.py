"""What all commands share, however they are found: the first thing that starts, so that nothing is imported here that takes time."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import click

from odp_taskbuilder.cli import output

# The last headings of every command's help, for options that commands share.
_SHARED_HEADINGS = {
    "Network": ("api_key", "impersonate_service_account", "deadline", "request_timeout"),
    "On the terminal": ("json", "quiet", "verbose", "help"),
}
_OTHER_OPTIONS = "Options"


class Command(click.Command):
    """A command whose help shows its options under headings.

    Args:
        headings: Heading -> names of the options below it, without dashes. Without any, what is the command's own stands below "Options".
    """

    def __init__(self, *args: Any, headings: Optional[Mapping[str, Sequence[str]]] = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        own = dict(headings or {})
        named = {name for names in own.values() for name in names}
        shared = {heading: [name for name in names if name not in named] for heading, names in _SHARED_HEADINGS.items()}
        self.headings: dict[str, Sequence[str]] = {**own, _OTHER_OPTIONS: (), **shared}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        below: dict[str, list[tuple[str, str]]] = {heading: [] for heading in self.headings}
        for param in self.get_params(ctx):
            # As of click 8.5, arguments have records, too; the line of usage and the text above tell what they are.
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                below[self._heading_of(param)].append(record)
        # As wide under every heading, and as wide as click's own lists at most.
        width = min(30, max(len(option) for records in below.values() for option, _ in records))
        for heading, records in below.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl([(f"{option:{width}}", help) for option, help in records])

    def _heading_of(self, param: click.Parameter) -> str:
        given = {opt.lstrip("-") for opt in param.opts}
        return next((heading for heading, names in self.headings.items() if not given.isdisjoint(names)), _OTHER_OPTIONS)


command = functools.partial(click.command, cls=Command)


class CommandGroup(click.Group):
    """A group that says which command a misspelt one may be. (click does as of 8.4, and only where commands are not imported late.)"""

    command_class = Command

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
