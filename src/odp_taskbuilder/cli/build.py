"""`odp-task build`."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, Optional

import click
from click.core import ParameterSource
from google.protobuf import json_format, text_format

from odp_taskbuilder import errors
from odp_taskbuilder.cli import commands, network_options, options, output
from odp_taskbuilder.config import warnings_for
from odp_taskbuilder.config.build_options import DEFAULT_OUTPUT, BuildOptions
from odp_taskbuilder.config.compression import Compression
from odp_taskbuilder.config.load import config_places
from odp_taskbuilder.config.spec import ASSUMED_POPULATION, ResolveOptions

if TYPE_CHECKING:
    from odp_taskbuilder.build import BuildResult
    from odp_taskbuilder.many_builds import BuildOutcome

# What only a build in this process heeds, by the names of the parameters below.
_LOCAL_OPTIONS = (
    "output_directory",
    "overwrite",
    "population",
    "rounds_per_day",
    "max_client_checkpoint_bytes",
    "allow_runtime",
    "trust_model",
    "sandbox",
    "keep_ops",
    "compress_updates",
    "compress_model",
    "compress_above",
    "compress_evaluation",
    "sweeps",
    "fail_fast",
    "jobs",
    "no_cache",
)


@commands.command(
    name="build",
    headings={
        "What goes in": ("saved_model", "task_config", "population_name", "storage_path"),
        "Several builds": ("sweep", "fail_fast", "jobs"),
        "Where it goes": ("output", "overwrite", "no_cache", "build_artifact_only"),
        "Privacy": ("population", "rounds_per_day", "skip_dp_check", "skip_dp_aggregator"),
        "What phones take": ("skip_flex_ops_check", "keep_ops", "max_client_checkpoint_bytes", "allow_runtime"),
        "Compression": ("compress_updates", "compress_model", "compress_above", "compress_evaluation"),
        "Models of unknown origin": ("trust_model", "sandbox"),
        "On a server": ("task_builder_server", "api_key", "impersonate_service_account"),
    },
)
@click.option(
    "--saved_model", type=options.PATH_OR_URL, required=True, help="FunctionalModel, as save_functional_model wrote it: a directory or gs:// URL."
)
@click.option(
    "--task_config",
    "task_configs",
    type=options.PATH_OR_URL,
    required=True,
    multiple=True,
    help="Task config, text proto or JSON: a file, a gs:// URL, or - for standard input. May be given several times, and be a pattern "
    "('configs/*.pbtxt').",
)
@click.option(
    "--sweep",
    "sweeps",
    metavar="FIELD=VALUE,...",
    multiple=True,
    help="Build the config once with each value of a field; several sweeps make every combination. Each build goes into "
    "<output>/<field>=<value>,.../<population>/.",
)
@click.option("--fail_fast", is_flag=True, help="Of several builds, try none after one that failed.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Of several builds, so many at a time, each in a process.")
@click.option("--no_cache", is_flag=True, help="Build also what was built before, and keep nothing of it.")
@click.option(
    "--output",
    "output_directory",
    type=options.PATH_OR_URL,
    default=DEFAULT_OUTPUT,
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
@options.rounds_per_day
@click.option("--storage_path", help="Replaces {storage_path} in the config's artifact URLs.")
@options.absl_flag("build_artifact_only", help="Create no task; upload to the destinations that the config names, if any.")
@options.absl_flag("skip_flex_ops_check", help="Build even when phones lack an op of the client graph.")
@options.absl_flag("keep_ops", help="Leave ops that phones lack, loops and conditionals as they are, instead of writing them anew.")
@options.absl_flag("skip_dp_check", help="Build even when epsilon exceeds the target.")
@options.absl_flag("skip_dp_aggregator", help="Build without DP: no clip, no noise, no guarantee.")
@options.max_client_checkpoint_bytes
@options.allow_runtime
@options.compression_options
@options.trust_model
@options.absl_flag("sandbox", help="Load the model in a child process that can do little harm. The server always does.")
@click.option(
    "--task_builder_server", metavar="URL", help="Have this server build, create and upload, instead of building here."
)
@click.option("--api_key", metavar="KEY", help="For the server's API gateway.")
@click.option("--impersonate_service_account", metavar="EMAIL", help="Act as this account towards the server.")
@network_options.network_options
@options.json_option
def command(
    saved_model: str,
    task_configs: tuple[str, ...],
    sweeps: tuple[str, ...],
    fail_fast: bool,
    jobs: int,
    no_cache: bool,
    output_directory: str,
    overwrite: bool,
    population_name: Optional[str],
    population: int,
    rounds_per_day: float,
    storage_path: Optional[str],
    build_artifact_only: bool,
    skip_flex_ops_check: bool,
    keep_ops: bool,
    skip_dp_check: bool,
    skip_dp_aggregator: bool,
    max_client_checkpoint_bytes: int,
    allow_runtime: str,
    compression: Compression,
    trust_model: bool,
    sandbox: bool,
    task_builder_server: Optional[str],
    api_key: Optional[str],
    impersonate_service_account: Optional[str],
    network: Any,
    json_mode: bool,
) -> int:
    """Build the artifacts of a task.

    \b
    Example:
      odp-task build --saved_model saved_model --task_config task_config.pbtxt
      odp-task build --saved_model saved_model --task_config task_config.pbtxt --sweep noise_multiplier=0.5,1 --sweep use_daf=false,true

    Writes the plan for the server, the plan that phones download, the initial checkpoint, the task, a report and a manifest with
    digests into <output>/<population>/, all of them or none. With --task_builder_server nothing is written here: the server
    builds, creates the tasks and uploads; options about what is done here are refused then.
    """
    build_options = BuildOptions(
        resolve=ResolveOptions(
            population_name=population_name,
            skip_dp_check=skip_dp_check,
            skip_dp_aggregator=skip_dp_aggregator,
            population=population,
            rounds_per_day=rounds_per_day,
            storage_path=storage_path,
        ),
        skip_flex_ops_check=skip_flex_ops_check,
        keep_ops=keep_ops,
        artifact_only=build_artifact_only,
        trust_model=trust_model,
        max_client_checkpoint_bytes=max_client_checkpoint_bytes,
        allow_runtime=allow_runtime,
        compression=compression,
    )
    if task_builder_server:
        _refuse_options_without_effect()
        if len(task_configs) > 1:
            raise errors.UsageError("A task builder server takes one --task_config at a time.")
        _build_remotely(
            task_builder_server,
            saved_model,
            task_configs[0],
            build_options,
            api_key,
            impersonate_service_account,
            network,
            json_mode,
        )
        return errors.EXIT_OK
    options.without_onednn()
    if trust_model:
        options.note_trusted_model("with the rights of the sandbox" if sandbox else "with your rights")
    is_one = len(task_configs) == 1 and not sweeps and config_places(task_configs) == list(task_configs)
    if sandbox and not is_one:
        raise errors.UsageError("--sandbox builds one config at a time.", next_step="Run a command for each.")
    stage = output.every_stage
    if not is_one:
        from odp_taskbuilder import many_builds

        outcomes = many_builds.build_many(
            saved_model,
            task_configs,
            output_directory,
            build_options,
            sweeps=sweeps,
            overwrite=overwrite,
            fail_fast=fail_fast,
            jobs=jobs,
            use_cache=not no_cache,
            stage=stage,
            network=network,
            on_notice=output.note,
        )
        return _show_outcomes(outcomes, json_mode)
    if sandbox:
        result = _sandboxed_build()(
            saved_model, task_configs[0], output_directory, build_options, overwrite=overwrite, stage=stage, network=network
        )
    else:
        from odp_taskbuilder.build import build as build_here
        from odp_taskbuilder.build_cache import BuildCache

        cache = None if no_cache else BuildCache()
        result = build_here(
            saved_model, task_configs[0], output_directory, build_options, overwrite=overwrite, stage=stage, network=network, cache=cache
        )
        for notice in cache.notices if cache is not None else ():
            output.note(notice)
    if json_mode:
        output.print_json(_document(result))
    else:
        _print_text(result)
    return errors.EXIT_OK


def _show_outcomes(outcomes: Iterable[BuildOutcome], json_mode: bool) -> int:
    """Shows what became of several builds; returns the exit code, that of the first that failed."""
    documents, exit_code, built = [], errors.EXIT_OK, 0
    for outcome in outcomes:
        document: dict[str, Any] = {"task_config": outcome.source, "sweep": dict(outcome.settings), "ok": outcome.error is None}
        if outcome.error is None:
            built += 1
            document.update(_document(outcome.result))
            output.note(f"{outcome.name}: {outcome.result.directory}{' (built before)' if outcome.result.from_cache else ''}")
        else:
            document.update(error=str(outcome.error), exit_code=outcome.error.exit_code)
            exit_code = exit_code or outcome.error.exit_code
            output.note(f"{outcome.name}: failed\n{outcome.error}")
        documents.append(document)
    if json_mode:
        output.print_json({"builds": documents})
    else:
        output.show("\n".join(document["directory"] for document in documents if document["ok"]))
        output.note(f"{built} of {len(documents)} builds succeeded")
    return exit_code


def _refuse_options_without_effect() -> None:
    """Raises errors.UsageError if the command line has options that a build on a server would not heed."""
    context = click.get_current_context()
    given = [
        param.opts[0]
        for param in context.command.params
        if param.name in _LOCAL_OPTIONS and context.get_parameter_source(param.name) is not ParameterSource.DEFAULT
    ]
    if given:
        raise errors.UsageError(
            f"With --task_builder_server these options have no effect: {', '.join(given)}.",
            next_step="Leave them out, or build here.",
        )


def _sandboxed_build() -> Callable[..., BuildResult]:
    from odp_taskbuilder import installation, sandbox, sandboxed_build

    installation.require_sandbox()
    installation.require_tff()
    output.note("In the sandbox:")
    for protection in sandbox.available():
        output.note(f"  {protection}")
    return sandboxed_build.build_sandboxed


def _build_remotely(
    server: str,
    saved_model: str,
    task_config: str,
    build_options: BuildOptions,
    api_key: Optional[str],
    account: Optional[str],
    network: Any,
    json_mode: bool,
) -> None:
    from odp_taskbuilder.push import auth
    from odp_taskbuilder.server import remote_build

    with output.every_stage(f"building on {server}"):
        response = remote_build.build_remotely(
            server, saved_model, task_config, build_options, login=auth.Login(api_key, account), network=network
        )
    if json_mode:
        output.print_json(json_format.MessageToDict(response, preserving_proto_field_name=True))
        return
    output.note("Success! Tasks are built, and artifacts are uploaded to the cloud.")
    output.show(text_format.MessageToString(response), end="")


def _document(result: BuildResult) -> dict[str, Any]:
    to_dict = {"preserving_proto_field_name": True}
    document = {
        "directory": str(result.directory),
        "from_cache": result.from_cache,
        "files": {name: vars(digest) for name, digest in result.manifest.files.items()},
        "uploaded": list(result.uploaded),
        "task_report": json_format.MessageToDict(result.report, **to_dict),
        "task_group": json_format.MessageToDict(result.task_group, **to_dict),
        "notices": list(result.spec.notices),
        "warnings": [vars(warning) for warning in warnings_for(result.spec)],
    }
    if result.spec.mode.trains:
        # The report's numbers are 32-bit; these are what was computed.
        aggregator = result.budget.aggregator
        document["privacy"] = {**vars(result.budget), "aggregator": aggregator and aggregator.value}
        if aggregator is None:
            document["privacy"]["clip_norm"] = None
    return document


def _print_text(result: BuildResult) -> None:
    built_before = " They were built before, from the same inputs; --no_cache builds them again." if result.from_cache else ""
    output.note(f"Success! The artifacts are in {result.directory}:{built_before}")
    for name, digest in sorted(result.manifest.files.items()):
        output.note(f"  {name:32} {digest.size:>12,} bytes")
    for url in result.uploaded:
        output.note(f"  uploaded to {url}")
    for role, task in (("training", result.task_group.training_task), ("evaluation", result.task_group.eval_task)):
        if task.min_client_version.strip("0"):
            output.note(f"Phones need version {task.min_client_version} of the module, or later, for the {role} task (min_client_version).")
    for warning in warnings_for(result.spec):
        output.note(f"Warning: {warning.path}: {warning.message}")
    output.show(pathlib.Path(result.directory, "report.pbtxt").read_text(encoding="utf-8"), end="")
