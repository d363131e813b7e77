"""`odp-task ops`: the ops of a client graph, and whether phones have them."""

from __future__ import annotations

import pathlib
from typing import Optional

import click

from odp_taskbuilder import errors
from odp_taskbuilder.cli import options, output
from odp_taskbuilder.inspection.client_ops import client_ops
from odp_taskbuilder.inspection.document import client_ops_document
from odp_taskbuilder.inspection.text import client_ops_text
from odp_taskbuilder.ops.allowlist import Allowlist


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=pathlib.Path))
@click.option(
    "--min_module_version", type=click.IntRange(min=0), metavar="V", help="Ask whether phones with module version V can run it."
)
@click.option(
    "--allowlist", "allowlist_file", type=click.Path(path_type=pathlib.Path), help="CSV file of the ops that phones have."
)
@options.json_option
def command(
    path: pathlib.Path, min_module_version: Optional[int], allowlist_file: Optional[pathlib.Path], json_mode: bool
) -> int:
    """List the ops of client graphs and the module versions that run them; ends with 6 if phones lack one.

    PATH is a directory of artifacts, a ClientOnlyPlan or a Plan.

    \b
      odp-task ops odp_artifacts/digits
      odp-task ops client_only_plan.pb --min_module_version 341812000
    """
    allowlist = Allowlist.from_csv(allowlist_file) if allowlist_file else None
    graphs = client_ops(path, allowlist=allowlist)
    if json_mode:
        output.print_json(client_ops_document(graphs, min_module_version))
    else:
        click.echo(client_ops_text(graphs, min_module_version))
    unsupported = any(graph.ops.unsupported(min_module_version) for graph in graphs)
    return errors.UnsupportedOpsError.exit_code if unsupported else errors.EXIT_OK
