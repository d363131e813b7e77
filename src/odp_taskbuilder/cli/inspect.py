"""`odp-task inspect`: what is inside plans and checkpoints."""

from __future__ import annotations

import pathlib
from typing import Optional

import click

from odp_taskbuilder.cli import commands, options, output

_FILE = click.Path(dir_okay=False, path_type=pathlib.Path)


@commands.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=pathlib.Path))
@click.option("--graph", "graph_file", type=_FILE, help="Draw how data flows between server and devices (.svg, .png, .pdf).")
@options.json_option
def command(paths: tuple[pathlib.Path, ...], graph_file: Optional[pathlib.Path], json_mode: bool) -> None:
    """Show what plans and checkpoints hold, and the bytes that each round moves.

    PATH is a Plan, a ClientOnlyPlan, a checkpoint, or a directory of them; they may come from any builder.

    \b
      odp-task inspect odp_artifacts/digits
      odp-task inspect plan.pb initial_state.server.ckp --graph flow.svg
      odp-task inspect client_only_plan.pb --json
    """
    with output.stage("reading the files"):
        from odp_taskbuilder.inspection.inspect import inspect

        inspection = inspect(paths)
    if graph_file is not None:
        from odp_taskbuilder.inspection.picture import draw_data_flow

        draw_data_flow(inspection, graph_file)
        output.note(f"Wrote {graph_file}.")
    if json_mode:
        from odp_taskbuilder.inspection.document import inspection_document

        output.print_json(inspection_document(inspection))
    else:
        from odp_taskbuilder.inspection.text import inspection_text

        output.show(inspection_text(inspection))
