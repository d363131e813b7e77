"""Candidates that fail, and when they are too many."""

from __future__ import annotations

import collections
from collections.abc import Mapping

from odp_taskbuilder import errors

# Of the candidates that a selection starts with.
MAX_FAILED_SHARE = 0.2
_MAX_NAMES = 5
_MAX_CAUSES = 10


def table_of_causes(failures: Mapping[str, str]) -> str:
    """One line per cause: how many candidates, their names, the cause."""
    names = collections.defaultdict(list)
    for name, cause in failures.items():
        names[cause].append(name)
    lines = []
    for cause, failed in sorted(names.items(), key=lambda item: (-len(item[1]), item[0]))[:_MAX_CAUSES]:
        shown = ", ".join(failed[:_MAX_NAMES]) + (", ..." if len(failed) > _MAX_NAMES else "")
        lines.append(f"  {len(failed):3d}  {shown}: {cause}")
    if len(names) > _MAX_CAUSES:
        lines.append(f"  and {len(names) - _MAX_CAUSES} more causes")
    return "\n".join(lines)


def require_few(failures: Mapping[str, str], total: int) -> None:
    """Raises ModelError if more than MAX_FAILED_SHARE of `total` candidates failed."""
    if len(failures) > MAX_FAILED_SHARE * total:
        raise errors.ModelError(
            f"{len(failures)} of {total} candidates failed; at most {int(MAX_FAILED_SHARE * total)} may.\n{table_of_causes(failures)}",
            next_step="Mend the search space, the data or the configs, and run the same command with another --dir.",
        )
