"""`odp-task setup`."""

from __future__ import annotations

import click

from odp_taskbuilder.cli import commands, output
from odp_taskbuilder.installation.setup import set_up


@commands.command()
@click.option("--with_tff_runtime", is_flag=True, help="Also TFF's own runtime (0.3 GB), for `simulate --engine tff`. Linux on x86-64 only.")
def command(with_tff_runtime: bool) -> None:
    """Complete the installation: add TensorFlow Federated and two packages that it imports.

    \b
    Example:
      odp-task setup

    They go into the environment that runs odp-task, with the pip or uv that manages it, each checked against the hash that ships
    with odp-task. TFF's own runtime, which only `simulate --engine tff` starts, is left out. What is there already stays; a setup
    that was interrupted is completed by the next one.
    """
    installed = set_up(with_tff_runtime=with_tff_runtime, stage=output.every_stage)
    output.show(f"Set up: {', '.join(installed)}." if installed else "Everything is set up already.")
