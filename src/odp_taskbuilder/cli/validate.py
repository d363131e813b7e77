"""`odp-task validate`."""

from __future__ import annotations

from typing import Any, Optional

import click

from odp_taskbuilder import config, errors
from odp_taskbuilder.cli import commands, options, output
from odp_taskbuilder.inspection.validation import ConfigCheck, check_configs


@commands.command(
    name="validate",
    cls=options.CommandWithArguments,
    headings={
        "Config": ("population_name", "storage_path", "build_artifact_only"),
        "Model": ("saved_model", "max_client_checkpoint_bytes"),
        "Privacy": ("population", "rounds_per_day", "skip_dp_aggregator"),
        "Verdict": ("show", "strict"),
    },
)
@click.argument("configs", type=options.PATH_OR_URL, nargs=-1, required=True)
@click.option("--show", is_flag=True, help="Print every value that a task is built with, and where it came from.")
@click.option("--strict", is_flag=True, help="Fail on warnings, too.")
@click.option("--population_name", help="Replaces the config's population_name.")
@click.option(
    "--population",
    type=click.IntRange(min=1),
    default=config.ASSUMED_POPULATION,
    show_default=True,
    help="Number of devices; delta may be at most 1/population.",
)
@options.rounds_per_day
@click.option("--storage_path", help="Replaces {storage_path} in the config's artifact URLs.")
@click.option("--saved_model", type=options.PATH_OR_URL, help="Also check that phones take this model: its checkpoint and its examples.")
@options.max_client_checkpoint_bytes
@options.absl_flag("build_artifact_only", help="Check the config's artifact URLs, which such a build needs.")
@options.absl_flag("skip_dp_aggregator", help="Check for a build without DP.")
@options.json_option
def command(
    configs: tuple[str, ...],
    show: bool,
    strict: bool,
    population_name: Optional[str],
    population: int,
    rounds_per_day: float,
    storage_path: Optional[str],
    saved_model: Optional[str],
    max_client_checkpoint_bytes: int,
    build_artifact_only: bool,
    skip_dp_aggregator: bool,
    json_mode: bool,
) -> int:
    """Check task configs: files, patterns, or - for standard input.

    \b
    Examples:
      odp-task validate task_config.pbtxt
      odp-task validate --show --strict 'configs/*.pbtxt'
      odp-task validate --saved_model saved_model task_config.pbtxt

    All faults of a config are shown at once, each with its place and what was meant. Whether the privacy budget suffices is for
    `odp-task privacy` to say. Ends with 0 if all configs are fine, with 3 if one is not, and with 4 if phones do not take the model.
    """
    resolve_options = config.ResolveOptions(
        population_name=population_name,
        skip_dp_aggregator=skip_dp_aggregator,
        population=population,
        rounds_per_day=rounds_per_day,
        storage_path=storage_path,
        require_artifact_urls=build_artifact_only,
    )
    checks = check_configs(configs, resolve_options, saved_model, max_client_checkpoint_bytes)
    if json_mode:
        output.print_json({"configs": [_document(check, show) for check in checks]})
    else:
        for check in checks:
            _print_text(check, show, strict)
    failed = any(check.error is not None or (strict and check.warnings) for check in checks)
    return errors.ConfigError.exit_code if failed else errors.EXIT_OK


def _document(check: ConfigCheck, show: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "source": check.source,
        "ok": check.error is None,
        "problems": [vars(problem) for problem in check.error.problems] if check.error else [],
        "warnings": [vars(warning) for warning in check.warnings],
        "notices": list(check.notices),
    }
    if show and check.task is not None:
        document["resolved"] = [
            {"path": value.path, "value": value.value, "origin": value.origin.value}
            for value in config.resolved_values(check.task)
        ]
    return document


def _print_text(check: ConfigCheck, show: bool, strict: bool) -> None:
    for notice in check.notices:
        output.show(f"{check.source}: note: {notice}")
    if check.error is not None:
        output.show(str(check.error))
        output.show(f"{check.source}: {_count(len(check.error.problems), 'problem')}")
        return
    for warning in check.warnings:
        output.show(f"{check.source}: warning: {warning.path}: {warning.message}")
    if show and check.task is not None:
        values = [(value.path, _shown(value), value.origin.value) for value in config.resolved_values(check.task)]
        path_width, value_width = (max(len(row[column]) for row in values) for column in (0, 1))
        for path, value, origin in values:
            output.show(f"  {path:{path_width}}  {value:{value_width}}  {origin}")
    verdict = "not accepted" if strict and check.warnings else "ok"
    output.show(f"{check.source}: {verdict}, {_count(len(check.warnings), 'warning')}")


def _shown(value: config.ResolvedValue) -> str:
    if value.value is None:
        return "(to be calibrated)" if value.path.endswith("noise_multiplier") else "(none)"
    return str(value.value).lower() if isinstance(value.value, bool) else str(value.value) or '""'


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
