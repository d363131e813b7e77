"""`odp-task scan`."""

from __future__ import annotations

import pathlib
from typing import Any

import click

from odp_taskbuilder import errors
from odp_taskbuilder.cli import commands, options, output
from odp_taskbuilder.model import admission
from odp_taskbuilder.scan import ScanReport


@commands.command(name="scan")
@click.argument("model", type=click.Path(path_type=pathlib.Path))
@options.json_option
def command(model: pathlib.Path, json_mode: bool) -> int:
    """Look for what a model of unknown origin should not hold, without loading it.

    \b
    Example:
      odp-task scan saved_model

    Goes through every function, node and object of the SavedModel and lists its operations. Ends with 0 if there are pure
    operations only, and with 4 and every finding if not. TensorFlow is not loaded.
    """
    with output.stage("scanning the model"):
        report, reason = admission.examine(model)
    if reason is not None:
        output.note(reason)
    if json_mode:
        output.print_json(_document(report))
    else:
        output.show(_text(report))
    return errors.EXIT_OK if report.is_safe else errors.UntrustedModelError.exit_code


def _document(report: ScanReport) -> dict[str, Any]:
    return {
        "model": str(report.path),
        "safe": report.is_safe,
        "findings": [vars(finding) for finding in report.findings],
        "functions": report.num_functions,
        "nodes": sum(report.op_counts.values()),
        "variables_bytes": report.variables_bytes,
        "ops": report.ops_by_group(),
    }


def _text(report: ScanReport) -> str:
    lines = [
        f"{report.path}: {report.num_functions} functions, {sum(report.op_counts.values())} nodes, "
        f"{report.variables_bytes} bytes of variables"
    ]
    for group, ops in report.ops_by_group().items():
        lines.append(f"  {group}: {', '.join(f'{op} {count}' for op, count in ops.items())}")
    if report.is_safe:
        lines.append("Pure operations only: nothing speaks against loading this model.")
    else:
        lines += ["Do not load this model:", *(f"  {finding}" for finding in report.findings)]
    return "\n".join(lines)
