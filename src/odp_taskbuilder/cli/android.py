"""`odp-task android`: the phone's side of a task."""

from __future__ import annotations

import pathlib
from typing import Optional

import click

from odp_taskbuilder import errors
from odp_taskbuilder.android import app
from odp_taskbuilder.artifacts.example_format import format_of_artifacts, format_of_model
from odp_taskbuilder.cli import options, output


class _AppUnlessNamed(click.Group):
    """A group whose arguments belong to its command `app` unless they begin with the name of another one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *self.get_help_option_names(ctx)}:
            args = ["app", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_AppUnlessNamed)
def command() -> None:
    """Make and check what an app needs to feed a task. `odp-task android ARTIFACTS ...` is `odp-task android app ARTIFACTS ...`.

    \b
      odp-task android odp_artifacts/digits --output app --package com.example.digits --service DigitsService \\
          --federated_compute_url https://federated.example.com
    """


@command.command("app")
@click.argument("artifacts", nargs=-1, type=click.Path(exists=True, path_type=pathlib.Path))
@click.option("--saved_model", type=click.Path(path_type=pathlib.Path), help="With --task_config: a task before it is built.")
@click.option("--task_config", type=click.Path(path_type=pathlib.Path), help="Task config, text proto or JSON.")
@click.option(
    "--output",
    "output_dir",
    required=True,
    type=click.Path(file_okay=False, path_type=pathlib.Path),
    help="Directory to write to.",
)
@click.option("--package", required=True, help="The app's package.")
@click.option("--service", required=True, help="Class that the phone binds to.")
@click.option("--federated_compute_url", required=True, help="https URL of the federated compute server.")
@click.option("--download_url", help="https URL that phones poll for downloads.")
@click.option("--population_name", help="Of the task, where its artifacts do not tell it.")
@click.option("--language", type=click.Choice(app.LANGUAGES), default="java", show_default=True)
@click.option(
    "--api",
    type=click.Choice(app.APIS),
    default="released",
    show_default=True,
    help="What the phone calls: as released, or as the guide prints it.",
)
@click.option(
    "--settings_name", default="odp_settings", show_default=True, help="Of the XML resource; the guide's is OdpSettings."
)
@click.option("--overwrite", is_flag=True, help="Replace files that are there, but for SERVICEData, which is yours.")
@options.json_option
def app_command(
    artifacts: tuple[pathlib.Path, ...],
    saved_model: Optional[pathlib.Path],
    task_config: Optional[pathlib.Path],
    output_dir: pathlib.Path,
    package: str,
    service: str,
    federated_compute_url: str,
    download_url: Optional[str],
    population_name: Optional[str],
    language: str,
    api: str,
    settings_name: str,
    overwrite: bool,
    json_mode: bool,
) -> None:
    """Write the files of an app that feeds tasks: manifest, settings, encoder of examples, service, scripts for a test phone, README.

    ARTIFACTS are directories that `odp-task build` made, one a population, or plans. Files that are there are kept.
    """
    if (saved_model is None) != (task_config is None):
        raise errors.UsageError("--saved_model and --task_config go together.")
    tasks = [format_of_artifacts(path) for path in artifacts]
    if saved_model is not None and task_config is not None:
        tasks.append(format_of_model(saved_model, task_config))
    if not tasks:
        raise errors.UsageError(
            "Whose examples?", next_step="Name the directory of a build, or --saved_model and --task_config."
        )
    if population_name is not None:
        if len(tasks) > 1:
            raise errors.UsageError("--population_name is that of one task; several are named.")
        tasks = [tasks[0].with_population(population_name)]
    written = app.write_app(
        tasks,
        output_dir,
        app.AppOptions(
            package=package,
            service=service,
            federated_compute_url=federated_compute_url,
            download_url=download_url,
            language=language,
            api=api,
            settings_name=settings_name,
        ),
        overwrite=overwrite,
    )
    for notice in written.notices:
        output.note(notice)
    if json_mode:
        output.print_json(
            {"written": list(map(str, written.written)), "kept": list(map(str, written.kept)), "notices": written.notices}
        )
        return
    for path in written.written:
        output.show(str(path))
    for path in written.kept:
        output.note(f"Kept {path}, which was there.")
