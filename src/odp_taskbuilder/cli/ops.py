"""`odp-task ops`: the ops of a client graph, and whether phones have them."""

from __future__ import annotations

import pathlib
from typing import Optional

import click

from odp_taskbuilder import errors
from odp_taskbuilder.cli import commands, options, output
from odp_taskbuilder.cli.network_options import network_options
from odp_taskbuilder.transport.deadline import Network


@commands.command(
    headings={
        "Model": ("saved_model", "task_config", "keep_ops", "trust_model"),
        "Phones": ("min_module_version", "allowlist"),
    }
)
@click.argument("path", required=False, type=click.Path(exists=True, path_type=pathlib.Path))
@click.option("--saved_model", type=options.PATH_OR_URL, help="Directory or URL of a FunctionalModel.")
@click.option("--task_config", type=options.PATH_OR_URL, help="Task config, text proto or JSON; - for standard input.")
@click.option(
    "--min_module_version", type=click.IntRange(min=0), metavar="V", help="Ask whether phones with module version V can run it."
)
@click.option(
    "--allowlist", "allowlist_file", type=click.Path(path_type=pathlib.Path), help="CSV file of the ops that phones have."
)
@options.absl_flag("keep_ops", help="Of a model: as built with --keep_ops, where nothing takes the place of ops that phones lack.")
@options.trust_model
@network_options
@options.json_option
def command(
    path: Optional[pathlib.Path],
    saved_model: Optional[str],
    task_config: Optional[str],
    min_module_version: Optional[int],
    allowlist_file: Optional[pathlib.Path],
    keep_ops: bool,
    trust_model: bool,
    network: Network,
    json_mode: bool,
) -> int:
    """List the ops of client graphs and the module versions that run them; ends with 6 if phones lack one.

    PATH is a directory of artifacts, a ClientOnlyPlan or a Plan. With a model and a task config instead, which are built but not
    written, it also says which layer, loss or metric each op comes from.

    \b
      odp-task ops odp_artifacts/digits
      odp-task ops client_only_plan.pb --min_module_version 341812000
      odp-task ops --saved_model saved_model --task_config task_config.pbtxt
    """
    has_model = saved_model is not None and task_config is not None
    if has_model == (path is not None) or (saved_model is None) != (task_config is None):
        raise errors.UsageError("Give either PATH, or --saved_model and --task_config.")
    from odp_taskbuilder.inspection.client_ops import client_ops
    from odp_taskbuilder.ops.allowlist import Allowlist

    allowlist = Allowlist.from_csv(allowlist_file) if allowlist_file else None
    if path is not None:
        graphs = client_ops(path, allowlist=allowlist)
    else:
        options.without_onednn()
        from odp_taskbuilder.inspection.model_ops import model_ops

        if trust_model:
            options.note_trusted_model()
        graphs = model_ops(
            saved_model,
            task_config,
            allowlist=allowlist,
            trust_model=trust_model,
            keep_ops=keep_ops,
            stage=output.every_stage,
            network=network,
        )
    if json_mode:
        from odp_taskbuilder.inspection.document import client_ops_document

        output.print_json({"graphs": client_ops_document(graphs, min_module_version)})
    else:
        from odp_taskbuilder.inspection.text import client_ops_text

        output.show(client_ops_text(graphs, min_module_version))
    unsupported = any(graph.ops.unsupported(min_module_version) for graph in graphs)
    return errors.UnsupportedOpsError.exit_code if unsupported else errors.EXIT_OK
