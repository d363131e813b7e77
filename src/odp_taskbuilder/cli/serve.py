"""`odp-task serve`: the task builder HTTP service."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Optional

import click

from odp_taskbuilder import errors, installation
from odp_taskbuilder.cli import commands


@commands.command(
    headings={
        "Where it listens": ("host", "port"),
        "What requests may do": ("allow_read", "allow_write", "allow_overwrite", "token_file"),
        "Task management": ("task_management_server", "impersonate_service_account"),
        "Limits": ("workers", "queue", "build_timeout", "build_memory", "max_request_bytes", "request_timeout", "grace_period"),
        "Builds": ("work_dir", "accept_weaker_sandbox"),
    }
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Others than this machine can connect only with --token_file."
)
@click.option("--port", type=click.IntRange(0, 65535), default=5000, show_default=True, help="0 takes a free one.")
@click.option(
    "--allow_read", multiple=True, metavar="PLACE", help="gs://BUCKET[/PREFIX] or directory with models; repeat for several."
)
@click.option(
    "--allow_write",
    multiple=True,
    metavar="PLACE",
    help="The same for destinations that a config names (artifact_building); those that the task management server names are "
    "not asked for.",
)
@click.option("--allow_overwrite", is_flag=True, help="Let such destinations be replaced when they hold something else.")
@click.option(
    "--task_management_server",
    metavar="URL",
    help="Its word is taken for where the artifacts of tasks go. Default: TASK_MANAGEMENT_SERVER_URL, then the project's "
    "secret of that name.",
)
@click.option("--impersonate_service_account", metavar="EMAIL", help="Towards the task management server.")
@click.option(
    "--token_file",
    type=click.Path(exists=True, dir_okay=False, path_type=pathlib.Path),
    help="One of these lines is wanted of every request.",
)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Builds at a time.")
@click.option(
    "--queue", type=click.IntRange(min=0), default=8, show_default=True, help="Builds that may wait; the rest is answered 503."
)
@click.option(
    "--build_timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=900,
    show_default=True,
    metavar="SECONDS",
    help="For one build.",
)
@click.option(
    "--build_memory", type=click.IntRange(min=1), default=8192, show_default=True, metavar="MIB", help="For one build."
)
@click.option(
    "--max_request_bytes",
    type=click.IntRange(min=1),
    default=16 << 20,
    show_default=True,
    help="Larger requests are answered 413.",
)
@click.option(
    "--request_timeout",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="For a request to arrive.",
)
@click.option(
    "--grace_period",
    type=click.FloatRange(min=0),
    default=5,
    show_default=True,
    metavar="SECONDS",
    help="For running builds after SIGTERM.",
)
@click.option(
    "--work_dir",
    type=click.Path(file_okay=False, path_type=pathlib.Path),
    help="Where builds work, and unfinished pushes are kept.",
)
@click.option(
    "--accept_weaker_sandbox",
    is_flag=True,
    help="Serve even where the kernel grants builds less protection than it should, which the log names.",
)
@click.option("--build_function", hidden=True, help="module:name, in place of the build.")
def command(
    host: str,
    port: int,
    allow_read: tuple[str, ...],
    allow_write: tuple[str, ...],
    allow_overwrite: bool,
    task_management_server: Optional[str],
    impersonate_service_account: Optional[str],
    token_file: Optional[pathlib.Path],
    workers: int,
    queue: int,
    build_timeout: float,
    build_memory: int,
    max_request_bytes: int,
    request_timeout: int,
    grace_period: float,
    work_dir: Optional[pathlib.Path],
    accept_weaker_sandbox: bool,
    build_function: Optional[str],
) -> None:
    """Run the task builder service.

    It has the published endpoints /taskbuilder/v1:build-task-group, /taskbuilder/v1:build-artifacts, /ready and /healthz, and
    /metrics for Prometheus. Models are read only where --allow_read says. Artifacts are written where a config names
    destinations that --allow_write allows, and where the task management server wants those of the tasks that it creates. Each
    build runs in a sandbox; where that prevents less than it should, the service does not start.

    SIGTERM ends it: running builds and uploads get a few seconds, then they are answered as failed. A task that is incomplete
    by then is named in the answer and in the log, with the command that finishes it.

    \b
    Examples:
      odp-task serve --allow_read gs://models/digits --task_management_server http://localhost:8082
      odp-task serve --host 0.0.0.0 --token_file tokens.txt --allow_read gs://models --allow_write gs://artifacts
    """
    from odp_taskbuilder.push import auth
    from odp_taskbuilder.sandbox import SandboxLimits
    from odp_taskbuilder.server import access, build_service, serving

    installation.require_sandbox()
    if build_function is None:
        installation.require_tff()
    _check_server(task_management_server)
    readable = access.AllowedPlaces.parse(allow_read)
    for directory in readable.directories:
        if not directory.is_dir():
            raise errors.UsageError(f"--allow_read {directory} is not a directory.")
    service_options = build_service.ServiceOptions(
        readable=readable,
        writable=access.AllowedPlaces.parse(allow_write),
        overwrite=allow_overwrite,
        task_management_server=task_management_server,
        login=auth.Login(impersonate_service_account=impersonate_service_account),
        limits=SandboxLimits(wall_seconds=build_timeout, memory_bytes=build_memory << 20),
    )
    if build_function:
        service_options = dataclasses.replace(
            service_options, build_function=build_function, preload=(build_function.partition(":")[0],)
        )
    serving.serve(
        serving.ServeOptions(
            host=host,
            port=port,
            workers=workers,
            queue=queue,
            max_request_bytes=max_request_bytes,
            request_seconds=request_timeout,
            grace_seconds=grace_period,
            token_file=token_file,
            work_dir=work_dir,
            accept_weaker_sandbox=accept_weaker_sandbox,
        ),
        service_options,
    )


def _check_server(url: Optional[str]) -> None:
    """Raises errors.UsageError for what no task could be created at."""
    from odp_taskbuilder.base import redaction
    from odp_taskbuilder.push import locating

    if url is None:
        return
    try:
        locating.check_base_url(url, f"--task_management_server {redaction.redact_url(url)!r}")
    except errors.TaskServerError as error:
        raise errors.UsageError(error.message, next_step=error.next_step) from error
