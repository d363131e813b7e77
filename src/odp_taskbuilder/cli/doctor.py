"""`odp-task doctor`."""

from __future__ import annotations

from odp_taskbuilder import errors
from odp_taskbuilder.cli import commands, options, output
from odp_taskbuilder.installation.doctor import Diagnosis, diagnose


@commands.command()
@options.json_option
def command(json_mode: bool) -> int:
    """Show what odp-task finds on this machine: versions, what is missing, the sandbox, memory; and the cure of each fault.

    \b
    Example:
      odp-task doctor

    Ends with 0 if tasks can be built here, and with 2 if not. Nothing is changed, and no network is used.
    """
    with output.every_stage("looking at this machine"):
        diagnosis = diagnose()
    if json_mode:
        output.print_json(diagnosis.to_document())
    else:
        output.show(_text(diagnosis))
    return errors.EXIT_OK if diagnosis.can_build else errors.UsageError.exit_code


def _text(diagnosis: Diagnosis) -> str:
    place = diagnosis.platform
    lines = [
        f"{place['system']} {place['release']} on {place['machine']}, {place['libc']}; Python {place['python']} in {place['environment']}",
        *(f"  {name} {version}" for name, version in diagnosis.versions.items()),
        f"  TensorFlow Federated's own runtime: {'installed' if diagnosis.tff_runtime else 'not installed; only `simulate --engine tff` needs it'}",
        f"{diagnosis.processors} processors, {_gib(diagnosis.memory_bytes)} of memory, {_gib(diagnosis.available_memory_bytes)} of it free",
    ]
    if diagnosis.sandbox:
        lines.append("The sandbox for models of unknown origin:")
        lines += [f"  {'prevented' if in_force else 'NOT PREVENTED'}: {name} ({means})" for name, in_force, means in diagnosis.sandbox]
    lines += [f"{'Fault' if fault.prevents_builds else 'Note'}: {fault}" for fault in diagnosis.faults]
    lines.append("Tasks can be built here." if diagnosis.can_build else "Nothing can be built here yet.")
    return "\n".join(lines)


def _gib(number: object) -> str:
    return f"{number / 2**30:.1f} GiB" if isinstance(number, int) else "unknown"
