"""`odp-task push`: create the tasks of an artifact directory at a task management server, and upload the artifacts."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Optional

import click

from odp_taskbuilder.cli import commands, options, output
from odp_taskbuilder.cli.network_options import network_options

if TYPE_CHECKING:
    from odp_taskbuilder.transport.deadline import Network


@commands.command(
    headings={
        "What is pushed": ("resume", "training_only", "source_training_task_id", "overwrite"),
        "Server": ("task_management_server", "impersonate_service_account"),
    }
)
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=pathlib.Path))
@click.option(
    "--task_management_server",
    metavar="URL",
    help="Default: TASK_MANAGEMENT_SERVER_URL, then the project's secret of that name.",
)
@click.option("--impersonate_service_account", metavar="EMAIL", help="Act as this account; localhost needs no authentication.")
@click.option("--resume", is_flag=True, help="Finish a push that was interrupted; the server is remembered.")
@click.option(
    "--training_only",
    is_flag=True,
    help="Push the training task; the evaluation task stays for a later push of the same directory.",
)
@click.option(
    "--source_training_task_id",
    type=click.IntRange(min=1),
    metavar="ID",
    help="Training task that the evaluation task reads checkpoints of.  [default: that of the same push]",
)
@click.option("--overwrite", is_flag=True, help="Replace objects that hold something else.")
@network_options
@options.json_option
def command(
    directory: pathlib.Path,
    task_management_server: Optional[str],
    impersonate_service_account: Optional[str],
    resume: bool,
    training_only: bool,
    source_training_task_id: Optional[int],
    overwrite: bool,
    network: Network,
    json_mode: bool,
) -> None:
    """Create the tasks that were built in DIR and upload their artifacts.

    The server plan of a task goes last, because servers start nothing without it: a task is complete, or it is not started. Run
    the same command again after a failure; what is in its place already is not sent again.

    A server has at most one active task of a kind (training, evaluation) in a population, and an evaluation usually stays open. All of
    that is looked up before the first task is created.

    Artifacts that were built with destinations in the config (artifact_building) are only uploaded there; no task is created.

    \b
    Examples:
      odp-task push odp_artifacts/digits --task_management_server http://localhost:8082
      odp-task push --resume odp_artifacts/digits
    """
    from odp_taskbuilder.push import auth, push

    with output.stage("pushing"):
        pushed = push.push(
            directory,
            push.PushOptions(
                server=task_management_server,
                login=auth.Login(impersonate_service_account=impersonate_service_account),
                overwrite=overwrite,
                resume=resume,
                training_only=training_only,
                source_training_task_id=source_training_task_id,
            ),
            network,
            notify=output.note,
        )
    if json_mode:
        output.print_json(
            {"artifacts": [{"task": p.role, "task_id": p.task_id, "url": p.url, "outcome": p.outcome.value} for p in pushed]}
        )
        return
    for task_id, role in dict.fromkeys((p.task_id, p.role) for p in pushed):
        output.show(f"Task {task_id} ({role}) is complete." if task_id else f"The {role} artifacts are in their place.")
