"""`odp-task build`."""

from __future__ import annotations

import pathlib
from typing import Any, Optional

import click
from google.protobuf import json_format

from odp_taskbuilder import build as pipeline
from odp_taskbuilder.cli import options, output
from odp_taskbuilder.config.spec import ASSUMED_POPULATION, ResolveOptions


@click.command(name="build")
@click.option("--saved_model", required=True, help="Directory of a FunctionalModel, as save_functional_model wrote it.")
@click.option("--task_config", required=True, help="Task config, text proto or JSON; - for standard input.")
@click.option(
    "--output",
    "output_directory",
    default=pipeline.DEFAULT_OUTPUT,
    show_default=True,
    help="Artifacts go into <output>/<population>/.",
)
@click.option("--overwrite", is_flag=True, help="Replace a destination that holds other files than a former output.")
@click.option("--population_name", help="Replaces the config's population_name.")
@click.option(
    "--population",
    type=click.IntRange(min=1),
    default=ASSUMED_POPULATION,
    show_default=True,
    help="Number of devices that privacy accounting assumes; delta may be at most 1/population.",
)
@click.option("--storage_path", help="Replaces {storage_path} in the config's artifact URLs.")
@options.absl_flag("build_artifact_only", help="Create no task: the tasks only name the config's artifact URLs.")
@options.absl_flag("skip_flex_ops_check", help="Build even when phones lack an op of the client graph.")
@options.absl_flag("skip_dp_check", help="Build even when epsilon exceeds the target.")
@options.absl_flag("skip_dp_aggregator", help="Build without DP: no clip, no noise, no guarantee.")
@options.json_option
def command(
    saved_model: str,
    task_config: str,
    output_directory: str,
    overwrite: bool,
    population_name: Optional[str],
    population: int,
    storage_path: Optional[str],
    build_artifact_only: bool,
    skip_flex_ops_check: bool,
    skip_dp_check: bool,
    skip_dp_aggregator: bool,
    json_mode: bool,
) -> None:
    """Build the artifacts of a task.

    \b
    Example:
      odp-task build --saved_model saved_model --task_config task_config.pbtxt

    Writes the plan for the server, the plan that phones download, the initial checkpoint, the task, a report and a manifest with
    digests into <output>/<population>/, all of them or none.
    """
    result = pipeline.build(
        saved_model,
        task_config,
        output_directory,
        pipeline.BuildOptions(
            resolve=ResolveOptions(
                population_name=population_name,
                skip_dp_check=skip_dp_check,
                skip_dp_aggregator=skip_dp_aggregator,
                population=population,
                storage_path=storage_path,
            ),
            skip_flex_ops_check=skip_flex_ops_check,
            artifact_only=build_artifact_only,
        ),
        overwrite=overwrite,
        stage=output.Progress().stage,
    )
    if json_mode:
        output.print_json(_document(result))
    else:
        _print_text(result)


def _document(result: pipeline.BuildResult) -> dict[str, Any]:
    built = result.built
    to_dict = {"preserving_proto_field_name": True}
    return {
        "directory": str(result.directory),
        "files": {name: vars(digest) for name, digest in result.manifest.files.items()},
        "task_report": json_format.MessageToDict(built.report, **to_dict),
        "task_group": json_format.MessageToDict(built.task_group, **to_dict),
        # The report's numbers are 32-bit; these are what was computed.
        "privacy": {**vars(built.budget), "aggregator": built.budget.aggregator and built.budget.aggregator.value},
        "notices": list(built.spec.notices),
    }


def _print_text(result: pipeline.BuildResult) -> None:
    output.note(f"Success! The artifacts are in {result.directory}:")
    for name, digest in sorted(result.manifest.files.items()):
        output.note(f"  {name:32} {digest.size:>12,} bytes")
    click.echo(pathlib.Path(result.directory, "report.pbtxt").read_text(encoding="utf-8"), nl=False)
