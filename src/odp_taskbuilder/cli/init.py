"""`odp-task init`."""

from __future__ import annotations

from typing import Optional

import click

from odp_taskbuilder.artifacts import phone_fit
from odp_taskbuilder.base.phone_limits import MAX_CLIENT_CHECKPOINT_BYTES
from odp_taskbuilder.cli import commands, options, output
from odp_taskbuilder.model import starter_config
from odp_taskbuilder.model.input_spec import read_model_spec


@commands.command(name="init")
@click.option("--saved_model", type=options.PATH_OR_URL, required=True, help="Directory of a FunctionalModel, as save_functional_model wrote it.")
@click.option(
    "--output",
    "output_file",
    type=options.PATH_OR_URL,
    default="task_config.pbtxt",
    show_default=True,
    help="The config; a second one for builds without tasks goes beside it as <name>_artifacts.pbtxt.",
)
@click.option("--population_name", help="Population of the tasks; made from the model's name by default.")
@click.option("--label_name", help="Name of the label in the examples of a model with named features; `label` by default.")
@click.option("--overwrite", is_flag=True, help="Replace configs that are there.")
@options.json_option
def command(
    saved_model: str,
    output_file: str,
    population_name: Optional[str],
    label_name: Optional[str],
    overwrite: bool,
    json_mode: bool,
) -> None:
    """Write a first task config for a model.

    \b
    Example:
      odp-task init --saved_model saved_model
      odp-task build --saved_model saved_model --task_config task_config.pbtxt

    The model's file tells how examples must look and which metrics fit; nothing of the model is run. The second config names the
    destination of each artifact, for `odp-task build --build_artifact_only --storage_path gs://bucket/directory`.
    """
    written = starter_config.write_starter_configs(
        saved_model, output_file, population_name=population_name, label_name=label_name, overwrite=overwrite
    )
    model = read_model_spec(saved_model)
    notices = phone_fit.phone_notices(model, label_name)
    num_bytes = phone_fit.weight_bytes(model)
    if num_bytes > MAX_CLIENT_CHECKPOINT_BYTES:
        notices += (
            f"Phones drop a checkpoint above {MAX_CLIENT_CHECKPOINT_BYTES:,} bytes; this model's holds {num_bytes:,} bytes of weights.",
        )
    for notice in notices:
        output.note(f"Warning: {notice}")
    if json_mode:
        output.print_json(
            {
                "config": str(written.config),
                "artifact_config": str(written.artifact_config),
                "metrics": written.metrics,
                "notices": notices,
            }
        )
    else:
        metrics = ", ".join((*written.metrics, "loss"))
        output.show(f"{written.config}: for `odp-task build`, with the metrics {metrics}")
        output.show(f"{written.artifact_config}: the same with a destination for each artifact")
