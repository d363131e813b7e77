"""`odp-task diff`: what differs between two builds."""

from __future__ import annotations

import dataclasses
import pathlib

import click

from odp_taskbuilder import errors
from odp_taskbuilder.cli import commands, options, output

_PATH = click.Path(exists=True, path_type=pathlib.Path)


@commands.command()
@click.argument("left", metavar="A", type=_PATH)
@click.argument("right", metavar="B", type=_PATH)
@click.option("--exit_code", is_flag=True, help=f"End with {errors.ArtifactError.exit_code} if anything differs.")
@options.json_option
def command(left: pathlib.Path, right: pathlib.Path, exit_code: bool, json_mode: bool) -> int:
    """Show what differs between two builds: phases, tensors, ops, metrics, privacy parameters, bytes per round.

    A and B are two artifacts, or two directories of them.

    \b
      odp-task diff odp_artifacts/digits before/digits
      odp-task diff plan.pb other/plan.pb --json
    """
    with output.stage("comparing"):
        from odp_taskbuilder.inspection.diff import diff
        from odp_taskbuilder.inspection.text import differences_text

        differences = diff(left, right)
    if json_mode:
        output.print_json({"differences": [dataclasses.asdict(difference) for difference in differences]})
    else:
        output.show(differences_text(differences))
    return errors.ArtifactError.exit_code if differences and exit_code else errors.EXIT_OK
