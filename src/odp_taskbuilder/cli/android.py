"""`odp-task android`: the phone's side of a task."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Optional

import click

from odp_taskbuilder import errors
from odp_taskbuilder.cli import commands, options, output


class _AppUnlessNamed(click.Group):
    """A group whose arguments belong to its command `app` unless they begin with the name of another one."""

    command_class = commands.Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # As everywhere, a dash may stand for an underscore.
        if args and args[0].replace("-", "_") not in self.commands and args[0] not in self.get_help_option_names(ctx):
            args = ["app", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_AppUnlessNamed)
def command() -> None:
    """Make and check what an app needs to feed a task. `odp-task android ARTIFACTS ...` is `odp-task android app ARTIFACTS ...`.

    \b
      odp-task android odp_artifacts/digits --output app --package com.example.digits --service DigitsService \\
          --federated_compute_url https://federated.example.com
    """


@command.command(
    "app",
    headings={
        "Task": ("saved_model", "task_config", "population_name"),
        "App": ("package", "service", "language", "api", "settings_name"),
        "Servers": ("federated_compute_url", "download_url"),
        "Where it goes": ("output", "overwrite"),
    },
)
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
@click.option("--language", type=click.Choice(("java", "kotlin")), default="java", show_default=True)
@click.option(
    "--api",
    type=click.Choice(("released", "guide")),
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
    from odp_taskbuilder.android import app
    from odp_taskbuilder.artifacts.example_format import format_of_artifacts, format_of_model

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


@command.command("check")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path))
@click.option(
    "--last_sync_token", type=click.IntRange(min=0), help="Of the download that phones have: the next one's must be greater."
)
@options.json_option
def check_command(files: tuple[pathlib.Path, ...], last_sync_token: Optional[int], json_mode: bool) -> int:
    """Check manifests, settings and downloads stricter than phones do, which skip what is misspelt; ends with 2 if something is wrong.

    What a file is, its content tells. One manifest and one settings file are also compared with each other.

    \b
      odp-task android check AndroidManifest.xml res/xml/odp_settings.xml download.json
    """
    from odp_taskbuilder.android.checks import check_files

    problems = check_files(files, last_sync_token=last_sync_token)
    if json_mode:
        output.print_json({"problems": [dataclasses.asdict(problem) for problem in problems]})
    else:
        for problem in problems:
            output.show(str(problem))
        if not problems:
            output.note(f"{len(files)} files, nothing wrong.")
    return errors.UsageError.exit_code if problems else errors.EXIT_OK


@command.command("download")
@click.argument("table", type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path))
@click.option("--sync_token", required=True, help="Seconds since 1970 on the hour, or `now`: rounded down to the hour.")
@click.option("--last_sync_token", type=click.IntRange(min=0), help="Of the download that phones have.")
@click.option("--population_name", help="Of the examples in a TFRecord file.")
@click.option(
    "--output",
    "output_file",
    type=click.Path(dir_okay=False, path_type=pathlib.Path),
    help="File to write; standard output if not given.",
)
@click.option("--overwrite", is_flag=True, help="Replace the output.")
def download_command(
    table: pathlib.Path,
    sync_token: str,
    last_sync_token: Optional[int],
    population_name: Optional[str],
    output_file: Optional[pathlib.Path],
    overwrite: bool,
) -> None:
    """Write a download that phones accept.

    TABLE is a .csv, .tsv or Parquet table with the columns key, data and, if need be, encoding (utf8, or base64), JSON objects with
    these members, or a TFRecord file of examples.

    \b
      odp-task android download entries.csv --sync_token now --output download.json
      odp-task android download examples.tfrecord --population_name digits --sync_token now --output download.json
    """
    from odp_taskbuilder.android import downloads

    token = downloads.sync_token(sync_token, last_sync_token)
    if output_file is not None and output_file.exists() and not overwrite:
        raise errors.StorageError(f"{output_file} exists.", next_step="Choose another file, or replace it with --overwrite.")
    content = downloads.make_download(table, token, population_name=population_name)
    if output_file is None:
        output.show(content, end="")
        return
    try:
        output_file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise errors.StorageError(f"Cannot write {output_file}: {error.strerror}.") from error


@command.command("serve_download")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path))
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="On 127.0.0.1; 0 takes a free one."
)
def serve_download_command(file: pathlib.Path, port: int) -> None:
    """Answer the polling of phones with a download, on 127.0.0.1, until interrupted. The file may change meanwhile.

    A test phone reaches it through `adb reverse tcp:8090 tcp:8090`; phones' settings name https URLs, so something must speak TLS in between.
    """
    from odp_taskbuilder.android.download_server import DownloadServer

    with DownloadServer(file, port, output.note) as server:
        output.note(f"Serving {file} at http://127.0.0.1:{server.server_port}/")
        server.serve_forever()
