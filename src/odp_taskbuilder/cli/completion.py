"""`odp-task completion`: what shells complete, and the answers to them."""

from __future__ import annotations

from typing import Any

import click
from click import shell_completion

from odp_taskbuilder.cli import commands, output

_PROGRAM = "odp-task"
_VARIABLE = "_ODP_TASK_COMPLETE"


class _BothSpellings(shell_completion.ShellComplete):
    """Options that were begun with dashes in them are completed with dashes."""

    def get_completions(self, args: list[str], incomplete: str) -> list[shell_completion.CompletionItem]:
        if not incomplete.startswith("--") or "-" not in incomplete[2:] or "=" in incomplete:
            return super().get_completions(args, incomplete)
        found = super().get_completions(args, "--" + incomplete[2:].replace("-", "_"))
        return [
            shell_completion.CompletionItem("--" + item.value[2:].replace("_", "-"), type=item.type, help=item.help)
            if item.type == "plain"
            else item
            for item in found
        ]

    def source(self) -> str:
        # Not the shells' own classes': they start a shell to look at its version.
        return self.source_template % self.source_vars()


class _Bash(_BothSpellings, shell_completion.BashComplete):
    pass


class _Zsh(_BothSpellings, shell_completion.ZshComplete):
    pass


class _Fish(_BothSpellings, shell_completion.FishComplete):
    pass


_SHELLS: dict[str, type[shell_completion.ShellComplete]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


@commands.command()
@click.argument("shell", type=click.Choice(list(_SHELLS)))
def command(shell: str) -> None:
    """Print a script that lets SHELL complete commands, options (with underscores or dashes) and paths.

    \b
      bash:  eval "$(odp-task completion bash)"                        in ~/.bashrc
      zsh:   eval "$(odp-task completion zsh)"                         in ~/.zshrc, behind compinit
      fish:  odp-task completion fish > ~/.config/fish/completions/odp-task.fish
    """
    output.show(_SHELLS[shell](click.get_current_context().find_root().command, {}, _PROGRAM, _VARIABLE).source(), end="")


def answer_shell(cli: click.Command, instruction: str) -> int:
    """Prints what the script of `odp-task completion` asked for; returns the exit code.

    Args:
      instruction: value of _ODP_TASK_COMPLETE: SHELL_complete.
    """
    shell, _, verb = instruction.partition("_")
    if shell not in _SHELLS or verb != "complete":
        return 1
    context: dict[str, Any] = {}
    output.show(_SHELLS[shell](cli, context, _PROGRAM, _VARIABLE).complete())
    return 0
